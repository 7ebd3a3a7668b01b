"""Safetensors files: the values are those that the package wrote, and damage gives one short error in little memory."""

import json
import struct
import time

import numpy as np
import paddle
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from pimm.errors import CheckpointError
from pimm.safe_pickle import Inert
from pimm.torch_file import BFLOAT16, is_bfloat16
from pimm.utils import load_arrays, save_arrays
from pimm.utils.bfloat16 import widened
from pimm.utils.safetensors_file import is_safetensors, read_safetensors

TYPES = ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8")
ARRAYS = {name: np.arange(6).reshape(2, 3).astype(name) for name in TYPES}
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def written(path, header, data=b"", length=None):
    """Write a file by hand: a header of any kind before any bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


@pytest.mark.parametrize("called", ["a.safetensors", "a.bin", "a"])
def test_what_the_package_writes_is_read(called, tmp_path):
    arrays = {**ARRAYS, "scalar": np.array(3.5), "nothing": np.zeros((0, 4), "f4")}
    save_file(arrays, tmp_path / called, {"format": "pt"})
    found = read_safetensors(tmp_path / called)
    assert found.metadata == {"format": "pt"} and set(found.arrays) == set(arrays)
    for name, array in arrays.items():
        assert (found.arrays[name].dtype, found.arrays[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found.arrays[name], array)
        assert not array.size or not found.arrays[name].flags.writeable


def test_what_we_write_is_read_by_the_package(tmp_path):
    arrays = {name: array for name, array in ARRAYS.items() if name != "u2"}
    odd = {"strided": np.arange(12, dtype="f4").reshape(3, 4).T, "big": np.arange(3, dtype=">i4"), "zero": np.array(7)}
    path = tmp_path / "a.safetensors"
    save_arrays(path, {**arrays, **odd, "tensor": paddle.to_tensor([1.5, 2.5])})
    found = load_file(path)
    for name, array in {**arrays, **odd, "tensor": np.array([1.5, 2.5], "f4")}.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    with safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pd"}
    again = load_arrays(path)
    assert list(again) == [*arrays, *odd, "tensor"]
    before = path.read_bytes()
    save_arrays(path, again)
    assert path.read_bytes() == before


def test_every_bfloat16_is_read_bit_for_bit_and_widens_exactly(tmp_path):
    bits = np.arange(1 << 16, dtype=np.uint16)
    header = {"w": {"dtype": "BF16", "shape": [1 << 16], "data_offsets": [0, 1 << 17]}}
    found = read_safetensors(written(tmp_path / "a.bin", header, bits.tobytes())).arrays["w"]
    assert is_bfloat16(found)
    np.testing.assert_array_equal(found, bits)
    np.testing.assert_array_equal(widened(found).view(np.uint32), bits.astype(np.uint32) << 16)
    for array in (bits, bits.view(BFLOAT16)):
        save_arrays(tmp_path / "b.safetensors", {"w": array})
        again = load_arrays(tmp_path / "b.safetensors")["w"]
        assert is_bfloat16(again) and again.tobytes() == bits.tobytes()
        with safe_open(tmp_path / "b.safetensors", framework="np") as file:
            assert file.get_slice("w").get_dtype() == "BF16"


def test_types_that_numpy_lacks(tmp_path):
    path = written(tmp_path / "a", {"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"ab")
    assert isinstance(read_safetensors(path).arrays["w"], Inert)
    with pytest.raises(CheckpointError, match=r"a: w is a tensor of F8_E4M3"):
        load_arrays(path)


@pytest.mark.parametrize("value", [{"a": "text"}, {1: np.ones(2)}, [np.ones(2)], {"__metadata__": np.ones(2)}])
def test_what_cannot_be_written_is_refused_and_the_old_file_stays(value, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(CheckpointError, match="safetensors file"):
        save_arrays(path, value)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


MANY = b",".join(b'"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}' % number for number in range(120_000))
HOSTILE = {
    "a hole": ({"a": F32, "b": {**F32, "data_offsets": [16, 24]}}, bytes(24)),
    "an overlap": ({"a": F32, "b": {**F32, "data_offsets": [4, 12]}}, bytes(12)),
    "data left over": ({"a": F32}, bytes(9)),
    "data missing": ({"a": F32}, bytes(7)),
    "a size that is too large": ({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}, b""),
    "sizes whose product overflows": ({"a": {"dtype": "F32", "shape": [1 << 62, 8], "data_offsets": [0, 0]}}, b""),
    "too many dimensions": ({"a": {"dtype": "U8", "shape": [1] * 200, "data_offsets": [0, 1]}}, b"a"),
    "a negative size": ({"a": {**F32, "shape": [-2]}}, bytes(8)),
    "offsets the wrong way": ({"a": {**F32, "data_offsets": [8, 0]}}, bytes(8)),
    "an unknown type": ({"a": {**F32, "dtype": "\x1b[2J\n"}}, bytes(8)),
    "no entry": ({"a": 5}, b""),
    "metadata that is no text": ({"__metadata__": {"a": [1]}}, b""),
    "half of its JSON": (b'{"a":{"dtype":', b""),
    "deep JSON": (b'{"a":' + b"[" * 100_000, b""),
    "no UTF-8": (b'{"\xff":1}', b""),
    "too many tensors": (b"{" + MANY + b"}", b""),
    "a long header": (b'{"__metadata__":{"a":"' + b"x" * (9 << 20) + b'"}}', b""),
    "more dimensions than memory": ({"a": {"dtype": "U8", "shape": [0] + [1 << 40] * 9, "data_offsets": [0, 0]}}, b""),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_harm_is_refused_soon_and_in_little_memory(name, tmp_path, bounded_memory):
    path = written(tmp_path / "a.bin", *HOSTILE[name])
    assert is_safetensors(path)
    start = time.process_time()
    with pytest.raises(CheckpointError, match=r"a\.bin") as caught:
        read_safetensors(path)
    assert time.process_time() - start < 3
    said = str(caught.value).replace(str(tmp_path), "")
    assert said.isprintable() and len(said) < 400 and "MemoryError" not in said


def test_a_length_beyond_the_formats_limit_is_no_safetensors_file(tmp_path):
    path = written(tmp_path / "a.safetensors", {"a": F32}, bytes(8), length=1 << 60)
    assert not is_safetensors(path)
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        load_arrays(path)


def test_every_cut_and_flip_gives_our_error_or_data(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"w": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(3, "f2")}, path, {"format": "pt"})
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match=r"a\.safetensors"):
            load_arrays(path)
    for position in range(len(content)):
        for bit in (0x01, 0x80):
            path.write_bytes(content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :])
            try:
                load_arrays(path)
            except CheckpointError as error:
                assert "a.safetensors" in str(error)
