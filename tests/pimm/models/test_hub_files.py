"""Files of a hub and of URLs when things go wrong: each failure is one line, and no half file is believed later."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import hub_server
import numpy as np
import pytest
from hub_models import CLASSES, drawn, saved
from paths import ROOT, TESTS

import pimm
from pimm.errors import CheckpointError, ConfigError
from pimm.models import url_files
from pimm.models.hub_files import hub_file, hub_weights
from pimm.models.url_files import url_file

LARGE = bytes(range(256)) * 40


@pytest.fixture
def no_pauses(monkeypatch):
    """Let huggingface_hub, which waits 23 seconds in all for a hub that does not answer, and `url_file` try at once."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr(url_files, "_PAUSE", 0)


def weights_in(cache):
    """List the files of a cache that could be taken for weights."""
    files = (path.relative_to(cache) for path in Path(cache).rglob("*") if path.is_file())
    others = {".locks", ".no_exist", "refs", "CACHEDIR.TAG"}
    return [path for path in files if not others & set(path.parts) and path.suffix not in (".lock", ".incomplete")]


def failure(kind, action):
    with pytest.raises(kind) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message and len(message) < 400, message
    return message


# The hub


def test_a_broken_connection_is_resumed(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1024)  # what has come of a file by then
    hub.add("me/net", {"model.safetensors": LARGE})
    hub.faults["model.safetensors"] = ["torn"]
    path = hub_weights("me/net", cache_dir=tmp_path)
    assert path.read_bytes() == LARGE
    assert [asked for method, path, asked in hub.asked if method == "GET"] == [None, f"bytes={len(LARGE) // 2}-"]


def test_a_body_that_is_too_short(hub, tmp_path):
    hub.add("me/net", {"model.safetensors": LARGE})
    hub.faults["model.safetensors"] = ["short", "always"]
    message = failure(CheckpointError, lambda: hub_weights("me/net", cache_dir=tmp_path))
    assert message.startswith(
        f"cannot get model.safetensors of me/net from {hub.url}: OSError: Consistency check failed"
    )
    assert weights_in(tmp_path) == []
    hub.faults.clear()
    assert hub_weights("me/net", cache_dir=tmp_path).read_bytes() == LARGE


@pytest.mark.parametrize("content", [LARGE, b"small"], ids=["large", "small"])
def test_other_bytes_than_the_checksum(hub, tmp_path, content):
    hub.add("me/net", {"model.safetensors": content})
    hub.faults["model.safetensors"] = ["changed"]
    message = failure(CheckpointError, lambda: hub_weights("me/net", cache_dir=tmp_path))
    right = hashlib.sha256(content).hexdigest() if content == LARGE else hub_server.git_sha1(content)
    assert "model.safetensors of me/net is damaged" in message and right[:16] in message
    assert weights_in(tmp_path) == []
    assert hub_weights("me/net", cache_dir=tmp_path).read_bytes() == content


def test_a_file_that_the_disk_damaged_is_downloaded_again(hub, tmp_path):
    hub.add("me/net", {"model.safetensors": LARGE})
    blob = hub_weights("me/net", cache_dir=tmp_path).resolve()
    blob.write_bytes(LARGE[:-1] + b"\0")
    assert "is removed from the cache" in failure(CheckpointError, lambda: hub_weights("me/net", cache_dir=tmp_path))
    assert hub_weights("me/net", cache_dir=tmp_path).read_bytes() == LARGE


def test_a_hub_that_is_busy_for_a_moment(hub, tmp_path, no_pauses):
    hub.add("me/net", {"model.safetensors": LARGE})
    hub.faults["HEAD model.safetensors"] = [503, 503, 503]
    assert hub_weights("me/net", cache_dir=tmp_path).read_bytes() == LARGE


def test_a_hub_that_is_down(hub, tmp_path, no_pauses):
    hub.add("me/net", {"model.safetensors": LARGE})
    hub.faults["HEAD model.safetensors"] = [503, "always"]
    message = failure(CheckpointError, lambda: hub_weights("me/net", cache_dir=tmp_path))
    assert message.startswith(
        f"model.safetensors of me/net is not in the cache {tmp_path}, and {hub.url} cannot be asked"
    )
    assert "503" in message and hub.downloads() == 0 and weights_in(tmp_path) == []
    assert {path.rpartition("/")[2] for _, path, _ in hub.asked} == {"model.safetensors"}  # no wait for each name
    hub.faults.clear()
    path = hub_weights("me/net", cache_dir=tmp_path)
    hub.faults["HEAD model.safetensors"] = [503, "always"]
    assert hub_weights("me/net", cache_dir=tmp_path) == path


def test_a_download_that_the_hub_refuses(hub, tmp_path):
    hub.add("me/net", {"model.safetensors": LARGE})
    hub.faults["model.safetensors"] = [403]
    message = failure(CheckpointError, lambda: hub_weights("me/net", cache_dir=tmp_path))
    assert message.startswith(f"cannot get model.safetensors of me/net from {hub.url}: ") and "403" in message
    assert weights_in(tmp_path) == []


def test_a_hub_that_nobody_runs(hub, tmp_path, monkeypatch, no_pauses):
    hub.add("me/net", {"model.safetensors": LARGE})
    path = hub_weights("me/net", cache_dir=tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert hub_weights("me/net", cache_dir=tmp_path) == path
    message = failure(CheckpointError, lambda: hub_file("me/net", "config.json", tmp_path))
    assert "config.json of me/net" in message and "http://127.0.0.1:9" in message


def test_what_the_hub_does_not_have(hub, tmp_path):
    hub.add("me/net", {"README.md": b"x", "notes.txt": b"y"})
    hub.add("me/secret", {"model.safetensors": LARGE})
    hub.gated.add("me/secret")
    messages = {
        "me/none": "there is no such model, or it is private and HF_TOKEN must be set",
        "me/secret": "access to it must be asked for on its page there, and HF_TOKEN be set",
        "me/net@v2": "it has no revision v2",
        "me/net": "none of model.safetensors, pytorch_model.bin, open_clip_model.safetensors, "
        "open_clip_pytorch_model.bin; it holds README.md, notes.txt",
    }
    for model_id, message in messages.items():
        assert message in failure(CheckpointError, lambda name=model_id: hub_weights(name, cache_dir=tmp_path))
    message = failure(CheckpointError, lambda: hub_weights("me/net", "best.bin", tmp_path))
    assert "none of best.safetensors, best.bin; it holds README.md" in message
    message = failure(CheckpointError, lambda: hub_file("me/net", "config.json", tmp_path))
    assert message == f"me/net has no config.json at {hub.url}; it holds README.md, notes.txt"


LOAD = """
import sys, pimm
net = pimm.create_model("hf-hub:me/net", pretrained=True)
print(float(net.conv_head.weight.sum()))
"""


def start(code, **environment):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, TESTS))), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def result(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out.splitlines()


def test_the_environment_is_followed_and_one_of_two_processes_downloads(hub, tmp_path):
    """The cache is huggingface_hub's own: HF_HOME moves it, and HF_HUB_OFFLINE reads it alone."""
    hub.add("me/net", saved())
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    wanted = [str(float(np.float32(drawn(CLASSES)["conv_head.weight"].sum())))]
    found = [result(each) for each in [start(LOAD, **environment) for _ in range(2)]]
    assert float(found[0][0]) == float(found[1][0]) == pytest.approx(float(wanted[0]), rel=1e-3)
    assert hub.downloads() == 1
    snapshot = tmp_path / "home" / "hub" / "models--me--net" / "snapshots" / hub.commit_of("me/net", "main")
    assert {path.name for path in snapshot.iterdir()} == {"config.json", "model.safetensors"}
    asked = len(hub.asked)
    code = LOAD + 'pimm.create_model("hf-hub:me/other")'
    process = start(code, **environment, HF_HUB_OFFLINE="1")
    out, err = process.communicate(timeout=300)
    last = err.strip().splitlines()[-1]
    assert out.splitlines() == found[0] and len(hub.asked) == asked
    cache = tmp_path / "home" / "hub"
    assert last.endswith(f"config.json of me/other is not in the cache {cache}, and HF_HUB_OFFLINE forbids a download")


def test_a_cache_of_the_library_is_read_offline(hub, tmp_path, monkeypatch):
    """Blobs by checksum, snapshots of links to them, and the name of a branch: as the library lays them out."""
    folder, commit = tmp_path / "models--me--net", "a" * 40
    for name, content in saved().items():
        blob = (
            folder
            / "blobs"
            / (hub_server.git_sha1(content) if name == "config.json" else hashlib.sha256(content).hexdigest())
        )
        link = folder / "snapshots" / commit / name
        for path in (blob, link):
            path.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        link.symlink_to(Path("..", "..", "blobs", blob.name))
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("hf-hub:me/net", f"hf-hub:me/net@{commit}"):
        net = pimm.create_model(name, pretrained=True, cache_dir=tmp_path)
        np.testing.assert_array_equal(net.conv_head.weight.numpy(), drawn(CLASSES)["conv_head.weight"])
    assert hub.asked == []


def test_a_cache_without_links_is_read_too(tmp_path, monkeypatch):
    folder = tmp_path / "models--me--net"
    for name, content in saved().items():
        path = folder / "snapshots" / ("a" * 40) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("a" * 40)
    monkeypatch.setenv("HF_HUB_OFFLINE", "yes")
    assert pimm.create_model("hf-hub:me/net", pretrained=True, cache_dir=tmp_path).num_classes == CLASSES


# URLs


def named(content, name="net"):
    return f"{name}-{hashlib.sha256(content).hexdigest()[:8]}.pth"


def test_a_url_is_cached_in_the_folder_of_timm(hub, tmp_path):
    name = named(LARGE)
    hub.plain[name] = LARGE
    path = url_file(f"{hub.url}/files/{name}?download=true")
    assert path == tmp_path / "torch" / "hub" / "checkpoints" / name and path.read_bytes() == LARGE
    assert url_file(f"{hub.url}/files/{name}") == path and hub.downloads("/files/") == 1
    assert url_file((f"{hub.url}/files/{name}", "mine.pth"), tmp_path / "own") == tmp_path / "own" / "mine.pth"
    path.write_bytes(LARGE[:100])
    assert url_file(f"{hub.url}/files/{name}").read_bytes() == LARGE and hub.downloads("/files/") == 3


@pytest.mark.parametrize("fault", ["torn", 503, 429])
def test_a_url_is_tried_again(hub, tmp_path, no_pauses, fault):
    hub.plain["net.pth"] = LARGE
    hub.faults["net.pth"] = [fault, fault]
    assert url_file(f"{hub.url}/files/net.pth", tmp_path).read_bytes() == LARGE and hub.downloads("/files/") == 3


@pytest.mark.parametrize(
    ("fault", "message", "attempts"),
    [
        ("torn", "cannot download {}: the connection broke after 5,120 of 10,240 bytes", 3),
        (503, "cannot download {}: the server answers 503 Service Unavailable", 3),
        (404, "cannot download {}: the server answers 404 Not Found", 1),
        ("changed", "{} is damaged: its SHA-256 begins with ", 1),
        ("short", "{} is damaged: its SHA-256 begins with ", 1),
    ],
)
def test_a_url_that_fails_leaves_nothing(hub, tmp_path, no_pauses, fault, message, attempts):
    name = named(LARGE)
    hub.plain[name] = LARGE
    hub.faults[name] = [fault, "always"]
    url = f"{hub.url}/files/{name}"
    assert failure(CheckpointError, lambda: url_file(url, tmp_path)).startswith(message.format(url))
    assert hub.downloads("/files/") == attempts and weights_in(tmp_path) == []
    hub.faults.clear()
    assert url_file(url, tmp_path).read_bytes() == LARGE


def test_names_that_only_look_like_checksums(hub, tmp_path):
    hub.plain["IN1K-vit.h.14-300e.pth.tar"] = LARGE
    assert url_file(f"{hub.url}/files/IN1K-vit.h.14-300e.pth.tar", tmp_path).read_bytes() == LARGE


def test_urls_that_are_none(hub, tmp_path, monkeypatch, no_pauses):
    for url in ("file:///etc/passwd", "net.pth", "http://host/", ("http://host/a.pth", "../a.pth")):
        assert "is no URL of a file of weights; valid is https://HOST/.../FILE" in failure(
            ConfigError, lambda url=url: url_file(url, tmp_path)
        )
    message = failure(CheckpointError, lambda: url_file("http://127.0.0.1:9/net.pth", tmp_path))
    assert message.startswith("cannot download http://127.0.0.1:9/net.pth: ") and "refused" in message
    (tmp_path / "file").touch()
    message = failure(CheckpointError, lambda: url_file(f"{hub.url}/files/net.pth", tmp_path / "file"))
    assert message == f"cannot create the cache {tmp_path}/file: File exists"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = failure(CheckpointError, lambda: url_file(f"{hub.url}/files/net.pth", tmp_path))
    assert message == f"net.pth is not in the cache {tmp_path}, and HF_HUB_OFFLINE forbids a download"
    assert hub.downloads("/files/") == 0


FETCH = """
import sys
from pimm.models.url_files import url_file
print(url_file(*sys.argv[1:]))
"""


def test_a_process_waits_for_the_one_that_downloads(hub, tmp_path):
    hub.plain["net.pth"] = LARGE
    command = FETCH.replace("*sys.argv[1:]", f"{hub.url + '/files/net.pth'!r}, {str(tmp_path)!r}")
    holder = """
import sys, time
from pimm.utils.locks import try_lock
file = open(sys.argv[1], "a")
assert try_lock(file)
print("held", flush=True)
time.sleep(60)
"""
    lock = tmp_path / ".net.pth.lock"
    holding = subprocess.Popen(
        [sys.executable, "-c", holder, lock],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holding.stdout.readline() == "held\n"
    waiting = start(command)
    time.sleep(4)
    assert waiting.poll() is None and hub.downloads("/files/") == 0
    (tmp_path / "net.pth").write_bytes(LARGE)  # what the other process does before it lets go
    holding.kill()
    holding.wait()
    assert result(waiting) == [str(tmp_path / "net.pth")] and hub.downloads("/files/") == 0
