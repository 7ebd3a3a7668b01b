"""Small image files and tar files for tests."""

import io
import tarfile

from PIL import Image


def png(color=(9, 9, 9), size=(6, 4)):
    file = io.BytesIO()
    Image.new("RGB", size, color).save(file, "PNG")
    return file.getvalue()


def save(path, color=(9, 9, 9), size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(color, size))


def pack(folder, target, mode="w"):
    """A tar file of all that is in a folder."""
    with tarfile.open(target, mode) as archive:
        archive.add(folder, arcname="./")
    return target


def write_tar(path, files):
    """A tar file of ``{name: bytes}``."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def red(image):
    """The red value of a uniform image, which tests number them by."""
    return image.getpixel((0, 0))[0]
