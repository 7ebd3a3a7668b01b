"""The report of a search: one HTML file, and its figures as PNG files."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from cream.report.page import page
from cream.report.search import read_search
from cream.report.sections import SECTIONS
from pimm.utils import atomic_file, write_text

REPORT = "report.html"
PICTURES = "report"  # the folder of the figures
DPI = 150


def write_report(folder: Path) -> dict[str, np.ndarray]:
    """Write ``report.html``, and its figures as ``report/NAME.png``, into the folder of a search.

    Returns:
        The pixels of each figure, {name: [H, W, 3] uint8}.

    Raises:
        CheckpointError: ``folder`` is not the folder of a finished search.
    """
    search = read_search(Path(folder))
    sections = [section for make in SECTIONS for section in make(search)]
    (search.folder / PICTURES).mkdir(exist_ok=True)
    pixels = {}
    for picture in (section.picture for section in sections if section.picture is not None):
        content = io.BytesIO()
        picture.figure.savefig(content, format="png", dpi=DPI, facecolor="white")
        picture.figure.set_layout_engine("none")  # keeps the layout, so that the page does not compute it again
        with atomic_file(search.folder / PICTURES / f"{picture.name}.png") as file:
            file.write(content.getvalue())
        pixels[picture.name] = np.asarray(Image.open(content).convert("RGB"))
    write_text(search.folder / REPORT, page(f"Search report: {search.folder.resolve().name}", sections))
    return pixels
