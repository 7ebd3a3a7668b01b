"""The mean of checkpoints, and what it refuses."""

import numpy as np
import pytest

from pimm.errors import CheckpointError, ConfigError
from pimm.models import average_checkpoints
from pimm.utils import save_arrays, write_checkpoint


def save(folder, number, **arrays):
    path = folder / f"{number}.pdparams"
    save_arrays(path, {name: np.asarray(value) for name, value in arrays.items()})
    return path


def test_mean_in_float64_of_each_type(tmp_path):
    values = [1.0, 1e-8, 2.0]
    paths = [
        save(
            tmp_path,
            number,
            w=np.full((2, 3), value, np.float32),
            half=np.float16(value),
            double=np.float64(value),
            seen=np.int64(number),
        )
        for number, value in enumerate(values)
    ]
    mean = average_checkpoints(paths)
    assert {name: array.dtype.name for name, array in mean.items()} == {
        "w": "float32",
        "half": "float32",
        "double": "float64",
        "seen": "int64",
    }
    np.testing.assert_array_equal(mean["w"], np.full((2, 3), np.float32(np.float32(values).astype(float).mean())))
    assert mean["double"] == sum(values) / 3
    assert mean["seen"] == 2


def test_bfloat16_is_averaged_as_numbers_not_as_bits(tmp_path):
    bits = [np.array([value], np.float32).view(np.uint32) >> 16 for value in (1.0, 4.0)]
    paths = [save(tmp_path, number, w=each.astype(np.uint16)) for number, each in enumerate(bits)]
    np.testing.assert_array_equal(average_checkpoints(paths)["w"], np.float32([2.5]))


def test_the_averaged_weights_of_checkpoint_folders(tmp_path):
    for number in range(2):
        files = {"model.pdparams": {"w": np.float32([0.0])}, "ema.pdema": {"w": np.float32([number])}}
        write_checkpoint(tmp_path / f"checkpoint-{number}", files, {})
    paths = [tmp_path / "checkpoint-0", tmp_path / "checkpoint-1"]
    assert average_checkpoints(paths)["w"] == [0.0]
    assert average_checkpoints(paths, use_ema=True)["w"] == [0.5]


@pytest.mark.parametrize(
    "other, message",
    [
        ({"v": np.float32([1])}, r"1\.pdparams.*missing: w"),
        ({"w": np.float32([1, 2])}, r"1\.pdparams.*shape differs: w"),
        ({"w": np.float32([np.nan])}, r"1\.pdparams: w is not finite"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, other, message):
    paths = [save(tmp_path, 0, w=np.float32([1])), save(tmp_path, 1, **other)]
    with pytest.raises(CheckpointError, match=message):
        average_checkpoints(paths)


def test_nothing_to_average():
    with pytest.raises(ConfigError, match="no checkpoint"):
        average_checkpoints([])
