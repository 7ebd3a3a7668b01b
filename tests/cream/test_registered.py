"""Cream's nets as models of pimm, and checkpoints that say which net they are of."""

import argparse
import subprocess
import sys

import golden
import numpy as np
import paddle
import pytest
from paths import ROOT

import cream
import pimm
from cream.mobile import CHILD_NETS, ChildNet, mobile_space
from cream.mobile.space import MobileSpace, SpaceSpec, Stage
from cream.shuffle import SPOS_ARCH, ShuffleNet
from pimm import model_packages
from pimm.commands import avg_checkpoints
from pimm.models import load_torch_arrays, torch_names
from pimm.optim import create_optimizer_v2
from pimm.utils import CheckpointSaver
from pimm.utils.model_record import read_record


def logits(net, size=64):
    net.eval()
    with paddle.no_grad():
        return net(paddle.to_tensor(golden.inputs((2, 3, size, size)))).numpy()


@pytest.mark.parametrize("mflops", CHILD_NETS)
def test_published_nets_by_name(mflops):
    with paddle.LazyGuard():
        net = pimm.create_model(f"cream_{mflops}", num_classes=5)
        expected = ChildNet(CHILD_NETS[mflops].arch, 5)
    assert type(net) is ChildNet and net.arch == CHILD_NETS[mflops].arch
    assert torch_names(net) == torch_names(expected)
    size = CHILD_NETS[mflops].resolution
    assert net.default_cfg["input_size"] == (3, size, size)


def test_paths_by_name():
    arch = [[0, 1, 2, 3], [1] * 4, [2] * 8, [3] * 4]
    assert pimm.create_model("spos", arch=arch).arch == tuple(map(tuple, arch))
    assert pimm.create_model("spos").arch == SPOS_ARCH
    assert pimm.create_model("cream_14", arch="[[0], [1], [1], [1], [1], [1], [0]]").arch[1] == (1,)
    net = pimm.create_model("cream_14", bn_eps=1e-3, drop_path_rate=0.2, in_chans=1, global_pool="max")
    assert net.bn1._epsilon == 1e-3 and net.in_chans == 1 and net.global_pool.pool_type == "max"
    assert net.blocks[-2][0].drop_path_rate == pytest.approx(0.2 * 7 / 9)


@pytest.mark.parametrize("code", ["import cream, pimm", "import cream.registered, pimm"])
def test_names_are_there_once_cream_is_imported(code):
    check = "; assert pimm.is_model('cream_287') and 'spos' in pimm.list_models()"
    subprocess.run([sys.executable, "-c", code + check], check=True, cwd=ROOT)


def test_entry_points_are_imported_and_one_that_fails_is_named(monkeypatch, caplog):
    monkeypatch.setattr(model_packages, "_modules", {})
    monkeypatch.setattr(
        model_packages, "_of_entry_points", lambda group: ["nets_that_are_not_there", "cream.registered"]
    )
    model_packages.import_models()
    model_packages.import_models()
    assert caplog.text.count("the models of nets_that_are_not_there are left out") == 1


def test_a_fault_of_another_package_leaves_the_other_models(monkeypatch, caplog, tmp_path):
    (tmp_path / "nets_that_fail.py").write_text("raise RuntimeError('two\\nlines')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(model_packages, "_modules", {})
    monkeypatch.setattr(model_packages, "_of_entry_points", lambda *_: ["nets_that_fail"])
    assert not pimm.is_model("no_model") and pimm.is_model("efficientnet_lite0")
    assert "the models of nets_that_fail are left out: RuntimeError: two lines" in caplog.text


def checkpoints(folder, net, **args):
    """Write two checkpoints of a net whose weights differ, and return the net with their mean."""
    optimizer = create_optimizer_v2(net, "sgd", lr=0.1)
    saver = CheckpointSaver(net, optimizer, argparse.Namespace(**args), checkpoint_dir=str(folder))
    states = [golden.state(torch_names(net), seed=seed) for seed in (0, 1)]
    for epoch, state in enumerate(states):
        load_torch_arrays(net, state)
        saver.save_checkpoint(epoch, metric=float(epoch))
    load_torch_arrays(net, {name: np.mean([state[name] for state in states], 0) for name in states[0]})
    return net


@pytest.mark.parametrize("ending", ["pdparams", "safetensors"])
def test_averaged_weights_of_a_model_by_name(tmp_path, ending):
    """Nothing but the file is needed: model, classes and size of the images are noted in it."""
    classes = ["ant", "bee", "cat"]
    net = pimm.create_model("cream_14", num_classes=3)
    net = checkpoints(tmp_path / "run", net, model="cream_14", num_classes=3, img_size=48, classes=classes)
    output = tmp_path / f"averaged.{ending}"
    avg_checkpoints.main(["--input", str(tmp_path / "run"), "--output", str(output), "--filter", "checkpoint-*"])
    assert read_record(output)["arch"] == "cream_14"
    found, images = cream.load(output)
    assert (images.model, images.input_size, images.class_names) == ("cream_14", (3, 48, 48), tuple(classes))
    np.testing.assert_allclose(logits(found), logits(net), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("net", "name"),
    [
        (lambda: ChildNet(((0,), (1, -1), (1,), (1,), (1,), (1,), (0,)), 4), "cream-[[0],[1,-1],[1],[1],[1],[1],[0]]"),
        (lambda: ShuffleNet(num_classes=4), "spos-[[2,1,0,1],[2,0,2,0],[2,0,2,3,0,0,0,0],[3,2,3,3]]"),
    ],
)
def test_averaged_weights_of_a_found_net(tmp_path, net, name):
    """The architecture is noted, with the skipped block that shapes alone would not tell."""
    net = checkpoints(tmp_path / "run", net())
    output = tmp_path / "averaged.pdparams"
    avg_checkpoints.main(["--input", str(tmp_path / "run"), "--output", str(output), "--filter", "checkpoint-*"])
    assert read_record(output)["arch"].replace(" ", "") == name
    found, images = cream.load(output)
    assert images.model.replace(" ", "") == name and found.arch == net.arch
    np.testing.assert_allclose(logits(found), logits(net), rtol=1e-4, atol=1e-6)


def test_a_net_of_another_space_has_no_name_of_creams():
    spec = mobile_space([1] * 5).spec
    other = SpaceSpec((Stage(8, operations=spec.stages[0].operations), *spec.stages[1:]), spec.operations)
    arch = ((0,),) * 7
    assert ChildNet(arch, 2, MobileSpace(other)).model_name is None
    assert ChildNet(arch, 2, MobileSpace(spec)).model_name == ChildNet(arch, 2).model_name is not None
