"""The six published nets against the official PyTorch code."""

import golden
import paddle
import pytest

from cream.counting import count_macs, count_parameters
from cream.mobile.nets import ChildNet
from cream.mobile.published import CHILD_NETS, child_spec
from pimm.errors import ConfigError
from pimm.models.torch_names import load_torch_arrays, torch_names

NETS = golden.facts("childnets")["nets"]


def build(name, gain=1.0):
    spec, facts = CHILD_NETS[int(name)], NETS[name]
    net = ChildNet(spec.arch)
    load_torch_arrays(net, golden.state(facts["names_shapes"], gain=gain))
    return net, golden.inputs((2, 3, spec.resolution, spec.resolution))


@pytest.mark.parametrize("name", NETS)
def test_names_shapes_and_costs(name):
    net, images = build(name)
    assert [[key, list(shape)] for key, shape in torch_names(net)] == NETS[name]["names_shapes"]
    assert CHILD_NETS[int(name)].resolution == NETS[name]["resolution"]
    assert count_parameters(net) == NETS[name]["num_params"]
    net.eval()
    assert count_macs(net, paddle.to_tensor(images[:1]))[0] == NETS[name]["thop_macs"]


@pytest.mark.parametrize("name", NETS)
def test_logits_in_evaluation(name):
    arrays = golden.arrays("childnets")
    for gain, key in ((1.0, "eval_logits"), (NETS[name]["gain"], "eval_logits_gain")):
        net, images = build(name, gain)
        net.eval()
        with paddle.no_grad():
            logits = net(paddle.to_tensor(images)).numpy()
        assert golden.relative_error(logits, arrays[f"{name}/{key}"]) < 1e-4


@pytest.mark.parametrize("name", NETS)
def test_logits_and_statistics_in_training(name):
    arrays = golden.arrays("childnets")
    net, images = build(name)
    with paddle.no_grad():
        logits = net(paddle.to_tensor(images)).numpy()
    assert golden.relative_error(logits, arrays[f"{name}/train_logits"]) < 1e-4
    last = net.blocks[6][0].bn1
    for layer, key in ((net.bn1, "bn1"), (last, "last_bn")):
        for statistic, paddle_name in (("mean", "_mean"), ("var", "_variance")):
            expected = arrays[f"{name}/train_{key}_running_{statistic}"]
            assert golden.relative_error(getattr(layer, paddle_name).numpy(), expected) < 1e-4


def test_a_searched_net_builds_the_operation_that_was_chosen():
    arch = child_spec(-1, ((0,), (5,), (4,), (3,), (2,), (1,), (0,)), 64).arch
    kernels = [stage[0].conv_dw.weight.shape[-1] for stage in list(ChildNet(arch).blocks)[1:6]]
    assert kernels == [7, 7, 5, 5, 3]


def test_a_skipped_block_is_left_out():
    full, skipped = ((0,), (3, 1), (0,), (0,), (0,), (0,), (0,)), ((0,), (3, -1), (0,), (0,), (0,), (0,), (0,))
    assert [len(ChildNet(arch).blocks[1]) for arch in (full, skipped)] == [2, 1]


def test_an_unknown_selection_names_the_published_ones():
    with pytest.raises(ConfigError, match=r"480.*14, 43, 114, 287, 481, 604.*INPUT_ARCH.*did you mean 481"):
        child_spec(480, None, 224)


@pytest.mark.parametrize("other, published", [(112, 114), (42, 43), (470, 481), (285, 287), (600, 604)])
def test_other_numbers_name_the_same_net(other, published, caplog):
    """NNI has one of them, the official YAML files and seeds the others."""
    assert child_spec(other, None, 224) is CHILD_NETS[published]
    assert caplog.messages == [f"NET.SELECTION={other} is taken as {published}: the published net goes by both numbers"]
    assert child_spec(published, None, 224) is CHILD_NETS[published]
    assert len(caplog.messages) == 1
