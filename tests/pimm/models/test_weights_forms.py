"""Weights in all the forms they come in: the content of a file decides how it is read, and wrappers leave no trace."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from paddle import nn
from safetensors.numpy import load_file, save_file
from torch_bytes import FORMATS

from cream.convert import main
from pimm import create_model
from pimm.errors import CheckpointError
from pimm.models import (
    average_checkpoints,
    load_checkpoint,
    load_state_dict,
    load_state_dict_strictly,
    resume_checkpoint,
    torch_names,
)
from pimm.models.helpers import is_torch_file, weights_kind
from pimm.models.prefixes import WRAPPERS, with_own_names, wrapper_prefix
from pimm.models.torch_weights import find_weights
from pimm.utils import load_arrays, save_arrays

STATE = {
    "0.weight": np.arange(6, dtype=np.float32).reshape(3, 2),
    "0.bias": np.ones(3, np.float32),
    "1.weight": np.full(3, 2, np.float32),
    "1.bias": np.full(3, 3, np.float32),
    "1.running_mean": np.full(3, 4, np.float32),
    "1.running_var": np.full(3, 5, np.float32),
    "1.num_batches_tracked": np.array(6),
}
ENDINGS = (".safetensors", ".bin", ".pth", ".PTH", ".ckpt", ".pth.tar", ".pdparams", "")
WRITERS = {**FORMATS, "safetensors": lambda path, state: save_file(state, path, {"format": "pt"})}


def small_net():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1D(3))


def prefixed(prefix, state=STATE):
    return {prefix + name: array for name, array in state.items()}


def assert_loaded(net, state=STATE):
    np.testing.assert_array_equal(net[0].weight.numpy(), state["0.weight"].T)
    np.testing.assert_array_equal(net[1].bias.numpy(), state["1.bias"])
    np.testing.assert_array_equal(net[1]._mean.numpy(), state["1.running_mean"])
    np.testing.assert_array_equal(net[1]._variance.numpy(), state["1.running_var"])


def loaded(path, **options):
    net = small_net()
    load_checkpoint(net, path, **options)
    return net


# The content decides


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("form", WRITERS)
def test_pytorchs_weights_load_whatever_the_file_is_called(form, ending, tmp_path):
    path = tmp_path / f"net{ending}"
    WRITERS[form](path, STATE)
    assert weights_kind(path) == "torch"
    assert_loaded(loaded(path))
    net = small_net()
    assert resume_checkpoint(net, path) == ({}, None)
    assert_loaded(net)
    with pytest.raises(CheckpointError, match="is PyTorch's, with other names for a model's weights: use load_check"):
        load_state_dict(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_paddles_weights_load_whatever_the_file_is_called(ending, tmp_path):
    own = {name: tensor.numpy() for name, tensor in small_net().state_dict().items()}
    written = tmp_path / "net.pdparams"
    for form in (".pdparams", ".safetensors"):
        save_arrays(tmp_path / f"written{form}", own)
        path = (tmp_path / f"written{form}").rename(written.with_name(f"net{ending}"))
        assert weights_kind(path) == "paddle" and not is_torch_file(path)
        found = load_state_dict(path)
        assert list(found) == list(own)
        for name, tensor in loaded(path).state_dict().items():
            np.testing.assert_array_equal(tensor.numpy(), own[name])
            np.testing.assert_array_equal(found[name], own[name])


def test_the_names_tell_where_a_safetensors_file_does_not_say_whose_they_are(tmp_path):
    own = {name: tensor.numpy() for name, tensor in small_net().state_dict().items()}
    save_file(own, tmp_path / "a.safetensors")
    save_file(STATE, tmp_path / "b.safetensors")
    assert [weights_kind(tmp_path / f"{name}.safetensors") for name in "ab"] == ["paddle", "torch"]
    np.testing.assert_array_equal(loaded(tmp_path / "a.safetensors")[0].weight.numpy(), own["0.weight"])
    assert_loaded(loaded(tmp_path / "b.safetensors"))


def test_averaged_weights_are_not_looked_for_in_a_plain_file(tmp_path):
    save_file(STATE, tmp_path / "a.safetensors")
    assert_loaded(loaded(tmp_path / "a.safetensors", use_ema=None))
    with pytest.raises(CheckpointError, match="plain state dict, and does not say whether its weights are averaged"):
        loaded(tmp_path / "a.safetensors", use_ema=True)


@pytest.mark.parametrize("ending", ENDINGS)
def test_damage_is_told_in_one_line(ending, tmp_path, capsys):
    path = tmp_path / f"net{ending}"
    save_file(STATE, path, {"format": "pt"})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is no safetensors file that can be read: ") as caught:
        loaded(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert main([str(path), str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1 and path.name in said


def test_bfloat16_loads_as_the_float32_of_the_same_value(tmp_path):
    bits = np.array([0x3F80, 0xC049, 0x0001, 0x7F7F, 0x8000, 0x4000], np.uint16).reshape(3, 2)
    values = (bits.astype(np.uint32) << 16).view(np.float32)
    net = nn.Sequential(nn.Linear(2, 3, bias_attr=False))
    save_arrays(tmp_path / "own.safetensors", {"0.weight": bits.T})
    content = (tmp_path / "own.safetensors").read_bytes()
    header = content.replace(b'"pd"', b'"pt"').replace(b"[2,3]", b"[3,2]")  # the same file under PyTorch's names
    (tmp_path / "torch.bin").write_bytes(header[: -bits.nbytes] + bits.tobytes())
    for name in ("own.safetensors", "torch.bin"):
        load_checkpoint(net, tmp_path / name)
        np.testing.assert_array_equal(net[0].weight.numpy(), values.T)


# Values


def test_weights_that_are_not_finite_or_are_whole_numbers_are_refused_in_one_line(tmp_path):
    cases = {
        "1.weight": (
            np.array([1, np.nan, -np.inf], np.float32),
            "is not finite: 2 of its 3 values are NaN or infinite",
        ),
        "1.running_var": (np.array([1, 2, np.inf], np.float16), "is not finite: 1 of its 3 values"),
        "0.bias": (np.ones(3, np.int64), "of type int64; must be one of bfloat16, float16, float32, float64"),
    }
    own = {name: tensor.numpy() for name, tensor in small_net().state_dict().items()}
    for name, (value, words) in cases.items():
        save_file({**STATE, name: value}, tmp_path / "torch.safetensors", {"format": "pt"})
        own_name = name.replace("running_var", "_variance")
        save_arrays(tmp_path / "own.pdparams", {**own, own_name: value})
        for path in (tmp_path / "torch.safetensors", tmp_path / "own.pdparams"):
            net = small_net()
            before = net.state_dict()[own_name].numpy()
            with pytest.raises(CheckpointError) as caught:
                load_checkpoint(net, path)
            said = str(caught.value)
            assert str(path) in said and "\n" not in said and len(said) < 400
            assert words in said or (value.dtype == np.int64 and said.endswith(f"'{name}' is of type int64"))
            np.testing.assert_array_equal(net.state_dict()[own_name].numpy(), before)


def test_bits_of_bfloat16_that_are_not_finite_are_refused():
    bits = {
        name: (tensor.numpy().view(np.uint32) >> 16).astype(np.uint16)
        for name, tensor in small_net().state_dict().items()
    }
    bits["0.bias"][1] = 0x7FC0  # NaN
    with pytest.raises(CheckpointError, match=r"the weights: 0\.bias is not finite: 1 of its 3 values"):
        load_state_dict_strictly(small_net(), bits)


# Averages


def test_the_mean_of_safetensors_files_and_the_file_of_the_mean(tmp_path):
    own = {name: tensor.numpy() for name, tensor in small_net().state_dict().items()}
    other = {name: array + np.float32(2) for name, array in own.items()}
    save_arrays(tmp_path / "a.safetensors", own)
    save_arrays(tmp_path / "b.pdparams", other)
    mean = average_checkpoints([tmp_path / "a.safetensors", tmp_path / "b.pdparams"])
    save_arrays(tmp_path / "mean.safetensors", mean)
    found = load_file(tmp_path / "mean.safetensors")
    for name, tensor in loaded(tmp_path / "mean.safetensors").state_dict().items():
        np.testing.assert_allclose(tensor.numpy(), own[name] + 1, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(found[name], tensor.numpy())


# Wrappers


@pytest.mark.parametrize("stack", [*itertools.permutations(WRAPPERS, 2), WRAPPERS, ("module.",) * 3])
def test_any_stack_of_wrappers(stack, tmp_path):
    prefix = "".join(stack)
    save_file(prefixed(prefix), tmp_path / "a.bin")
    assert_loaded(loaded(tmp_path / "a.bin"))
    assert wrapper_prefix(prefixed(prefix)) == prefix


@pytest.mark.parametrize("outer", ["", "model.", "_orig_mod.module."])
@pytest.mark.parametrize("use_ema", [None, False, True])
def test_an_averaged_model_in_wrappers(use_ema, outer, tmp_path):
    state = {f"{outer}n_averaged": np.array(7), **prefixed(f"{outer}module.")}
    save_file(state, tmp_path / "a.safetensors")
    assert_loaded(loaded(tmp_path / "a.safetensors", use_ema=use_ema))
    weights = find_weights(state)
    assert weights.averaged and not any("n_averaged" in name for name in weights.arrays)


def test_a_counter_of_averages_inside_the_net_is_no_wrappers():
    with pytest.raises(CheckpointError, match=r"'module\.0\.n_averaged' is of type int64"):
        find_weights({"module.0.n_averaged": np.array(7), **prefixed("module.")})


@pytest.mark.parametrize("name", [wrapper[:-1] for wrapper in WRAPPERS])
def test_a_part_of_the_net_that_is_called_as_a_wrapper(name, tmp_path):
    for prefix in ("", "module.", f"{name}."):
        net = nn.Sequential((name, small_net()))
        save_file(prefixed(f"{prefix}{name}."), tmp_path / "a.bin")
        load_checkpoint(net, tmp_path / "a.bin")
        assert_loaded(net[name])


def test_a_prefix_of_any_name_comes_off_where_the_net_has_it_not(tmp_path):
    save_file(prefixed("encoder.module."), tmp_path / "a.bin")
    assert_loaded(loaded(tmp_path / "a.bin"))
    own = {f"encoder.{name}": tensor.numpy() for name, tensor in small_net().state_dict().items()}
    save_arrays(tmp_path / "b.pdparams", own)
    net = loaded(tmp_path / "b.pdparams")
    np.testing.assert_array_equal(net[0].weight.numpy(), own["encoder.0.weight"])


def test_one_name_that_fits_by_chance_takes_off_nothing():
    names = {f"layer.{number}.weight": number for number in range(9)}
    assert with_own_names(names, {"0.weight"}) == names
    assert with_own_names({"a.b": 1, "c": 2}, {"b", "c"}) == {"a.b": 1, "c": 2}


# The command agrees


@pytest.mark.parametrize("prefix", ["", "module._orig_mod.", "ema_model.model.", "encoder."])
@pytest.mark.parametrize("form", WRITERS)
def test_the_command_and_the_reader_agree(form, prefix, tmp_path, capsys):
    name = "mobilenetv3_small_075"
    model = create_model(name, num_classes=5)
    draw = np.random.default_rng(0)
    state = {
        key: draw.random(shape, np.float32) if shape else np.array(3, np.int64) for key, shape in torch_names(model)
    }
    source, target, back = tmp_path / "net.bin", tmp_path / "own.safetensors", tmp_path / "back.safetensors"
    WRITERS[form](source, prefixed(prefix, state))
    assert main([str(source), str(target), "--model", name]) == 0
    assert f"PyTorch, {form}" in capsys.readouterr().out
    load_checkpoint(model, source)
    for key, array in load_arrays(target).items():
        np.testing.assert_array_equal(model.state_dict()[key].numpy(), array, err_msg=key)
    assert main([str(target), str(back), "--to-torch", "--model", name]) == 0
    assert "Paddle, safetensors" in capsys.readouterr().out
    found = load_file(back)
    assert set(found) == set(state)
    for key, array in state.items():
        np.testing.assert_array_equal(found[key], array * 0 if key.endswith("tracked") else array, err_msg=key)
    assert main([str(back), str(tmp_path / "again.pdparams")]) == 0  # the file says which of two nets it is
    assert f"net        {name}" in capsys.readouterr().out
    assert main([str(back), str(tmp_path / "no"), "--to-torch"]) == 2
    assert "is PyTorch's file already" in capsys.readouterr().err
    assert main([str(target), str(tmp_path / "no")]) == 2
    assert "is Paddle's file already" in capsys.readouterr().err
    assert not Path(tmp_path / "no").exists()
