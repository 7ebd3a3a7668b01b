"""Fixtures of the tests of models."""

import hub_server
import pytest


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Return the `hub_server.Hub` that the library asks, with empty caches."""
    pytest.importorskip("huggingface_hub")
    with hub_server.serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
        yield hub
