"""Converting checkpoints: the net computes the same under our names, and the way back gives the same bits."""

import json
import re
import subprocess
import sys

import golden
import numpy as np
import paddle
import pytest
from paddle import nn
from paths import ROOT
from PIL import Image
from torch_bytes import FORMATS, Call, Name, Tensor, ordered_dict, save_legacy, save_zip

from cream.convert import main
from cream.mobile.nets import ChildNet, MobileSuperNet
from cream.mobile.published import CHILD_NETS
from cream.mobile.space import mobile_space
from pimm import create_model, list_models
from pimm.data.imagenet import imagenet_classes
from pimm.models import load_checkpoint, model_entrypoint
from pimm.models.fingerprints import TABLE, fingerprint
from pimm.models.torch_names import torch_names
from pimm.torch_file import BFLOAT16, load_torch, save_torch
from pimm.utils import load_arrays, save_arrays

NETS = golden.facts("childnets")["nets"]


def training_checkpoint(state, averaged=None, **others):
    """Return a checkpoint as timm's saver writes it for the official code: weights, and objects of classes."""
    cfg = Call(Name("yacs.config", "CfgNode"), (), items={"LR": 0.064}, state={"__immutable__": True}, new=True)
    score = Call(
        Name("numpy.core.multiarray", "scalar"),
        (
            Call(Name("numpy", "dtype"), ("f8", 0, 1), state=(3, "<", None, None, None, -1, -1, 0)),
            Call(Name("_codecs", "encode"), ("\0" * 8, "latin1")),
        ),
    )
    averages = {"square_avg": next(iter(state.values())), "momentum_buffer": next(iter(state.values())), "step": 7}
    content = {
        "epoch": 41,
        "arch": "Childnet_Training",
        "state_dict": ordered_dict(state),
        "optimizer": {"state": {0: averages}, "param_groups": [{"lr": 0.01, "params": [0]}]},
        "args": cfg,
        "version": 2,
        **({"state_dict_ema": ordered_dict(averaged)} if averaged else {}),
        "metric": score,
        **others,
    }
    return content


def converted(capsys, *args):
    """Run the command, which must succeed, and return what it prints by the first word of each line."""
    assert main([str(arg) for arg in args]) == 0
    return dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())


def error_of(capsys, *args):
    """Run the command, which must fail with exit code 2, and return what it prints to stderr."""
    assert main([str(arg) for arg in args]) == 2
    return capsys.readouterr().err


def net_state(model, seed=0):
    return golden.state(torch_names(model), seed)


# The published nets


@pytest.mark.parametrize("name", NETS)
def test_published_net_gives_the_official_logits(name, tmp_path, capsys):
    facts, spec = NETS[name], CHILD_NETS[int(name)]
    state = golden.state(facts["names_shapes"], gain=facts["gain"])
    checkpoint = training_checkpoint(golden.state(facts["names_shapes"], seed=1), averaged=state)
    for form, save in FORMATS.items():
        save(tmp_path / f"{form}.pth.tar", checkpoint)
        summary = converted(capsys, tmp_path / f"{form}.pth.tar")
        assert (summary["net"], summary["format"]) == (f"cream-{name}", f"PyTorch, {form}")
        assert summary["weights"] == "averaged, state_dict_ema"
        assert summary["parameters"] == f"{facts['num_params']:,}"
    net = ChildNet(spec.arch)
    load_checkpoint(net, tmp_path / "zip.pdparams")
    net.eval()
    images = golden.inputs((2, 3, spec.resolution, spec.resolution))
    with paddle.no_grad():
        logits = net(paddle.to_tensor(images)).numpy()
    assert golden.relative_error(logits, golden.arrays("childnets")[f"{name}/eval_logits_gain"]) < 1e-4
    first, second = (load_arrays(tmp_path / f"{form}.pdparams") for form in FORMATS)
    assert list(first) == list(second)
    assert all(np.array_equal(first[key], second[key]) for key in first)


CHILD = NETS["14"]
ARCH = ((0,), (5, 1), (4,), (3, 0), (2,), (1,), (0,))


def child_state(seed=0):
    return golden.state(CHILD["names_shapes"], seed)


def test_a_searched_net_with_other_classes_is_recognised(tmp_path, capsys):
    net = ChildNet(ARCH, num_classes=7)
    save_zip(tmp_path / "a.pth.tar", training_checkpoint(net_state(net)))
    summary = converted(capsys, tmp_path / "a.pth.tar")
    assert summary["net"] == "cream-[[0], [5, 1], [4], [3, 0], [2], [1], [0]]"
    load_checkpoint(net, tmp_path / "a.pdparams")
    np.testing.assert_array_equal(net.classifier.weight.numpy(), net_state(net)["classifier.weight"].T)
    assert converted(capsys, tmp_path / "a.pth.tar", "--model", summary["net"])["net"] == summary["net"]


@pytest.mark.parametrize(
    ("content", "option", "seed", "says"),
    [
        ({"state_dict": 0, "state_dict_ema": 1}, None, 1, "averaged, state_dict_ema"),
        ({"state_dict": 0, "state_dict_ema": 1}, "--no-ema", 0, "plain, state_dict"),
        ({"model": 0, "model_ema": 1}, "--ema", 1, "averaged, model_ema"),
        ({"model": 0}, None, 0, "plain, model"),
        (0, None, 0, "plain, the file is a state dict"),
    ],
)
def test_averaged_and_plain_weights(content, option, seed, says, tmp_path, capsys):
    if isinstance(content, dict):
        content = {
            key: {f"module.{name}": value for name, value in child_state(s).items()} for key, s in content.items()
        }
    else:
        content = child_state(content)
    save_zip(tmp_path / "a.pth", content)
    summary = converted(capsys, tmp_path / "a.pth", *([option] if option else []))
    assert summary["weights"] == says
    found = load_arrays(tmp_path / "a.pdparams")
    np.testing.assert_array_equal(found["conv_stem.weight"], child_state(seed)["conv_stem.weight"])


def official_supernet():
    """Return the state of a supernet whose stage of 80 channels has four blocks, and the official code's fifth one."""
    with paddle.LazyGuard():
        names = torch_names(MobileSuperNet(mobile_space((1, 1, 4, 1, 1)), num_classes=10))
    state = {name: np.zeros(shape, np.float32) for name, shape in names}
    drawn = [(name, shape) for name, shape in names if name in ("blocks.3.3.5.conv_dw.weight", "meta_layer.weight")]
    state.update(golden.state(drawn))
    return {**state, **{name.replace(".3.3.", ".3.4."): state[name] for name in state if ".3.3." in name}}


def test_the_official_supernet_loses_its_dead_block(tmp_path, capsys):
    state = official_supernet()
    save_zip(tmp_path / "a.pth.tar", training_checkpoint(state))
    message = error_of(capsys, tmp_path / "a.pth.tar")
    assert "fit cream-supernet-1-1-4-1-1 and cream-supernet-1-1-5-1-1" in message
    options = ("--model", "cream-supernet-1-1-4-1-1", "--report", tmp_path / "report.json")
    summary = converted(capsys, tmp_path / "a.pth.tar", *options)
    dropped = json.loads((tmp_path / "report.json").read_text())["dropped"]
    assert {name for name in state if name.startswith("blocks.3.4.")} < set(dropped)
    assert all(name.startswith("blocks.3.4.") or name.endswith("num_batches_tracked") for name in dropped)
    found = load_arrays(tmp_path / "a.pdparams")
    assert len(found) == len(state) - len(dropped)
    np.testing.assert_array_equal(found["meta_layer.weight"], state["meta_layer.weight"].T)
    np.testing.assert_array_equal(found["blocks.3.3.5.conv_dw.weight"], state["blocks.3.3.5.conv_dw.weight"])
    save_zip(tmp_path / "a.pth.tar", training_checkpoint(state, arch=summary["net"]))
    assert converted(capsys, tmp_path / "a.pth.tar")["net"] == summary["net"]


# pimm's nets


def test_fingerprints_are_those_of_the_models():
    models = golden.facts("timm_models")["models"]
    own = [name for name in list_models() if model_entrypoint(name).__module__.startswith("pimm.")]
    expected = {name: fingerprint(dict(models[name]["names_shapes"])) for name in own if name in models}
    found = dict(line.split() for line in TABLE.read_text().splitlines())
    assert list(found) == own, "python -m pimm.models.fingerprints writes the table anew"
    assert len(expected) > 20
    assert {name: found[name] for name in expected} == expected
    assert fingerprint({"a": (3, 2), "_fc.bias": (5,), "b.num_batches_tracked": ()}) == fingerprint({"x": (2, 3)})


def save_model(path, name, **others):
    with paddle.LazyGuard():
        names = torch_names(create_model(name))
    save_zip(path, {"state_dict": golden.state(names), **others})


def test_timm_checkpoint_with_its_name(tmp_path, capsys):
    save_model(tmp_path / "a.pth.tar", "mobilenetv3_small_075", arch="mobilenetv3_small_075")
    summary = converted(capsys, tmp_path / "a.pth.tar")
    assert summary["net"] == "mobilenetv3_small_075"
    net = create_model("mobilenetv3_small_075", checkpoint_path=str(tmp_path / "a.pdparams"))
    state = net_state(net)
    np.testing.assert_array_equal(net.bn1._variance.numpy(), state["bn1.running_var"])
    np.testing.assert_array_equal(net.classifier.weight.numpy(), state["classifier.weight"].T)


def test_nets_of_the_same_shapes_are_not_guessed(tmp_path, capsys):
    save_model(tmp_path / "a.pth.tar", "mobilenetv3_small_075")
    message = error_of(capsys, tmp_path / "a.pth.tar")
    assert "fit mobilenetv3_small_075 and tf_mobilenetv3_small_075" in message and "--model" in message
    summary = converted(capsys, tmp_path / "a.pth.tar", "--model", "tf_mobilenetv3_small_075")
    assert summary["net"] == "tf_mobilenetv3_small_075"


def foreign_names(model):
    """Map our names of modules to those of efficientnet_pytorch, as that package's constructor gives them."""
    expanded = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_reduce", "_se_expand", "_project_conv", "_bn2"]
    own = ["conv_pw", "bn1", "conv_dw", "bn2", "se.conv_reduce", "se.conv_expand", "conv_pwl", "bn3"]
    own_plain = [None, None, "conv_dw", "bn1", "se.conv_reduce", "se.conv_expand", "conv_pw", "bn2"]
    pairs = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    number = 0
    for i, stage in enumerate(model.blocks):
        for j, _ in enumerate(stage):
            names = own if hasattr(stage[j], "conv_pwl") else own_plain
            pairs.update({f"blocks.{i}.{j}.{o}": f"_blocks.{number}.{f}" for o, f in zip(names, expanded) if o})
            number += 1
    return pairs


@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0"])
def test_names_of_efficientnet_pytorch(name, tmp_path, capsys):
    with paddle.LazyGuard():
        model = create_model(name)
    state, foreign = net_state(model), foreign_names(model)
    renamed = {}
    for key, value in state.items():
        module, _, leaf = key.rpartition(".")
        renamed[f"{foreign[module]}.{leaf}"] = value
    assert "_blocks.15._project_conv.weight" in renamed
    save_legacy(tmp_path / "a.pth", renamed)
    summary = converted(capsys, tmp_path / "a.pth")
    assert summary["net"] == f"tf_{name}"
    found = load_arrays(tmp_path / "a.pdparams")
    for key in ("blocks.0.0.conv_pw.weight", "blocks.0.0.bn2.bias", "blocks.5.3.conv_dw.weight", "bn2.weight"):
        np.testing.assert_array_equal(found[key], state[key])
    np.testing.assert_array_equal(found["blocks.6.0.bn3._mean"], state["blocks.6.0.bn3.running_mean"])
    np.testing.assert_array_equal(found["classifier.weight"], state["classifier.weight"].T)


def test_square_linear_weights_are_transposed_by_type(tmp_path):
    weight = np.arange(9, dtype=np.float32).reshape(3, 3)
    layer = nn.Sequential(nn.Linear(3, 3))
    save_zip(tmp_path / "a.pth", {"0.weight": weight, "0.bias": weight[0]})
    load_checkpoint(layer, tmp_path / "a.pth")
    np.testing.assert_array_equal(layer[0].weight.numpy(), weight.T)


# Mistakes


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (
            {"epoch": 3},
            [],
            "model_ema, params_ema, ema_state_dict, state_dict, model, model_state_dict, net, params; it",
        ),
        ({"state_dict": {}}, [], "state_dict is no state dict of a net: it is empty"),
        (
            {"state_dict": {"w": np.zeros(3, np.float32)}},
            ["--ema"],
            "no weights in it under state_dict_ema, model_ema, params_ema, ema_state_dict;",
        ),
        ({"w": np.zeros(3, np.float32)}, ["--ema"], "does not say whether its weights are averaged"),
        ({"w": np.zeros(3, np.float32)}, [], "of no net that is known here; name the net with --model"),
        ({"w": np.zeros(3, np.float32)}, ["--model", "creme-287"], "unknown net 'creme-287'; did you mean cream-287"),
        ({"w\x1b[2J": np.zeros(3, np.float32)}, [], r"'w\x1b[2J' is"),
        ({"arch": np.zeros(3), "state_dict": {"w": np.zeros(3, np.float32)}}, [], "of no net that is known here"),
        ([1, 2], [], "holds a list and not a dict"),
    ],
)
def test_what_cannot_be_converted(content, options, says, tmp_path, capsys):
    save_zip(tmp_path / "a.pth", content)
    assert says in error_of(capsys, tmp_path / "a.pth", *options)


# And back


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_there_and_back_gives_identical_bytes(dtype, tmp_path, capsys):
    def stored(name, array):
        if array.dtype != np.float32 or dtype == "float32":
            return array
        return (
            array.astype(np.float16)
            if dtype == "float16"
            else Tensor((array.view(np.uint32) >> 16).astype("u2"), dtype=dtype)
        )

    save_zip(tmp_path / "a.pth.tar", {name: stored(name, array) for name, array in child_state().items()})
    assert converted(capsys, tmp_path / "a.pth.tar")["dtype"] == dtype
    summary = converted(capsys, tmp_path / "a.pdparams", tmp_path / "b.pth.tar", "--to-torch")
    assert (summary["net"], summary["dtype"]) == ("cream-14", dtype)
    before, after = load_torch(tmp_path / "a.pth.tar"), load_torch(tmp_path / "b.pth.tar")
    assert after["arch"] == "cream-14" and list(after["state_dict"]) == [name for name, _ in CHILD["names_shapes"]]
    for name, array in before.items():
        found = after["state_dict"][name]
        assert (found.dtype, found.dtype.metadata, found.shape) == (array.dtype, array.dtype.metadata, array.shape)
        assert found.tobytes() == array.tobytes()
    assert converted(capsys, tmp_path / "b.pth.tar", tmp_path / "c.pdparams")["net"] == "cream-14"
    assert (tmp_path / "c.pdparams").read_bytes() == (tmp_path / "a.pdparams").read_bytes()


def test_back_keeps_the_name_that_shapes_do_not_tell(tmp_path, capsys):
    save_model(tmp_path / "a.pth.tar", "mobilenetv3_small_075", arch="tf_mobilenetv3_small_075")
    converted(capsys, tmp_path / "a.pth.tar")
    assert "fit mobilenetv3_small_075 and" in error_of(capsys, tmp_path / "a.pdparams", "--to-torch")
    converted(
        capsys, tmp_path / "a.pdparams", tmp_path / "b.pth.tar", "--to-torch", "--model", "tf_mobilenetv3_small_075"
    )
    assert converted(capsys, tmp_path / "b.pth.tar")["net"] == "tf_mobilenetv3_small_075"


def test_half_precision_weights_load_into_a_net(tmp_path):
    weight = np.array([[1.5, -2.25]], np.float32)
    bits = (weight.view(np.uint32) >> 16).astype(np.uint16)
    layer = nn.Linear(2, 1, bias_attr=False)
    for array in (weight.astype(np.float16), bits.view(BFLOAT16)):
        save_torch(tmp_path / "a.pth", {"weight": array})
        load_checkpoint(layer, tmp_path / "a.pth")
        np.testing.assert_array_equal(layer.weight.numpy(), weight.T)


# Reports and verification


def test_report_and_verification(tmp_path, capsys):
    save_zip(tmp_path / "a.pth.tar", training_checkpoint(golden.state(CHILD["names_shapes"], gain=CHILD["gain"])))
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    report, out = tmp_path / "report.json", tmp_path / "out.pdparams"
    assert (
        main([str(arg) for arg in (tmp_path / "a.pth.tar", out, "--report", report, "--verify", tmp_path / "a.png")])
        == 0
    )
    printed = capsys.readouterr().out.splitlines()
    found = json.loads(report.read_text())
    digest = subprocess.run(["sha256sum", tmp_path / "a.pth.tar"], capture_output=True, text=True, check=True).stdout
    assert found["sha256"] == digest.split()[0]
    assert (found["net"], found["target"], found["dtype"]) == ("cream-14", str(out), "float32")
    assert found["arrays"] == len(load_arrays(out))
    assert sorted(found["dropped"]) == sorted(name for name, _ in CHILD["names_shapes"] if name.endswith("tracked"))
    likeliest = [re.fullmatch(r" +(0\.\d{4})  (n\d{8} .*)", line).groups() for line in printed[-5:]]
    probabilities = [float(probability) for probability, _ in likeliest]
    assert probabilities == sorted(probabilities, reverse=True)

    net = ChildNet(CHILD_NETS[14].arch)
    load_checkpoint(net, out)
    net.eval()
    scaled = Image.fromarray(pixels).resize((82, 73), Image.Resampling.BICUBIC)  # the short side is 64 / 0.875
    cut = np.asarray(scaled.crop((9, 4, 73, 68)), np.float32) / 255
    normal = (cut - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    logits = net(paddle.to_tensor(normal.transpose(2, 0, 1)[None].astype(np.float32)))[0].numpy()
    assert [name for _, name in likeliest] == [imagenet_classes()[i] for i in np.argsort(-logits)[:5]]


def test_names_of_classes():
    names = imagenet_classes()
    assert len(names) == len(set(names)) == 1000
    synsets = [name.split()[0] for name in names]
    assert synsets == sorted(synsets)
    assert [names[i] for i in (0, 207, 999)] == [
        "n01440764 tench, Tinca tinca",
        "n02099601 golden retriever",
        "n15075141 toilet tissue, toilet paper, bathroom tissue",
    ]


def test_the_command_runs_from_anywhere(tmp_path):
    command = [sys.executable, ROOT / "convert_weights.py", "missing.pth"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "error: cannot read missing.pth: No such file or directory"


def test_a_net_for_images_of_one_channel(tmp_path, capsys):
    """A net that tools/pimm_train.py --in-chans 1 trained is found by its shapes too, in both directions."""
    model = create_model("mobilenetv3_small_075", num_classes=10, in_chans=1)
    weights, torch_file, back = (str(tmp_path / name) for name in ("net.pdparams", "net.pth.tar", "back.pdparams"))
    save_arrays(weights, model.state_dict())
    image = tmp_path / "grey.png"
    Image.fromarray(np.arange(64 * 64, dtype=np.uint32).reshape(64, 64).astype(np.uint8)).save(image)
    assert main([weights, torch_file, "--to-torch", "--model", "mobilenetv3_small_075", "--verify", str(image)]) == 0
    assert main([torch_file, back]) == 0
    summary = capsys.readouterr().out
    assert summary.count("mobilenetv3_small_075") == 2 and "  class " in summary
    found = load_arrays(back)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(found[name], value.numpy(), err_msg=name)


@pytest.mark.parametrize("shape", [(), (16,), (0, 0, 0, 0), (16, 3, 3)])
def test_a_stem_of_any_shape_is_no_surprise(shape, tmp_path, capsys):
    path = tmp_path / "net.pdparams"
    save_arrays(path, {"conv_stem.weight": np.zeros(shape, "float32")})
    assert main([str(path), str(tmp_path / "net.pth.tar"), "--to-torch"]) == 2
    assert "its weights are of no net that is known here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("net.pdparams", [], "net.pdparams is Paddle's file already: with --to-torch it becomes PyTorch's"),
        ("ema.pdema", [], "ema.pdema is Paddle's file already"),
        ("net.pth.tar", ["--to-torch"], "net.pth.tar is PyTorch's file already: without --to-torch"),
        ("", [], "is a folder; name one of its files: model.pdparams, or ema.pdema"),
    ],
)
def test_the_wrong_way_round_is_told(source, options, says, tmp_path, capsys):
    path = tmp_path / source
    if source:
        path.write_bytes(b"what it holds does not matter")
    assert main([str(path), str(tmp_path / "out"), *options]) == 2
    assert says in capsys.readouterr().err
