"""The note of which model weights are of."""

import json
import logging

import numpy as np
import pytest

from pimm.errors import CheckpointError
from pimm.utils import load_arrays, save_arrays, write_checkpoint
from pimm.utils.model_record import read_record, save_with_record

ARRAYS = {"w": np.float32([[1, 2]])}
RECORD = {"arch": "cream_14", "args": {"model": "cream_14", "num_classes": 3, "classes": ["a", "b", "c"]}}


@pytest.mark.parametrize("name", ["net.pdparams", "net.safetensors"])
def test_a_file_of_weights_keeps_its_note(tmp_path, name):
    save_with_record(tmp_path / name, ARRAYS, RECORD)
    assert read_record(tmp_path / name) == RECORD
    np.testing.assert_array_equal(load_arrays(tmp_path / name)["w"], ARRAYS["w"])
    save_arrays(tmp_path / f"plain-{name}", ARRAYS)
    assert read_record(tmp_path / f"plain-{name}") == {}


def test_a_checkpoint_says_it_in_its_manifest(tmp_path):
    write_checkpoint(tmp_path / "checkpoint-0", {"model.pdparams": ARRAYS}, RECORD)
    assert read_record(tmp_path / "checkpoint-0") == RECORD


def test_a_note_counts_for_its_own_weights_alone(tmp_path, caplog):
    path = tmp_path / "net.pdparams"
    save_with_record(path, ARRAYS, RECORD)
    save_arrays(path, {"w": np.float32([[3, 4]])})
    with caplog.at_level(logging.WARNING):
        assert read_record(path) == {}
    assert "is not of the weights in" in caplog.text
    assert read_record(tmp_path / "nothing.pdparams") == {}


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_damaged_note(tmp_path, text):
    path = tmp_path / "net.pdparams"
    save_with_record(path, ARRAYS, RECORD)
    (tmp_path / "net.pdparams.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"net.pdparams.json: the note of the model is no JSON"):
        read_record(path)


def test_parts_of_the_wrong_type_do_not_count(tmp_path):
    path = tmp_path / "net.pdparams"
    save_with_record(path, ARRAYS, RECORD)
    note = json.loads((tmp_path / "net.pdparams.json").read_text())
    (tmp_path / "net.pdparams.json").write_text(json.dumps({**note, "arch": 3, "args": {}}))
    assert read_record(path) == {"args": {}}
