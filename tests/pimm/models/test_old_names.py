"""Names of models that timm has replaced."""

import logging

import paddle
import pytest

import pimm
from pimm.errors import ConfigError
from pimm.models import get_deprecated_models, model_entrypoint
from pimm.models.registry import split_model_name_tag
from pimm.models.timm_table import families, timm_cfgs, timm_module

OLD = get_deprecated_models()
LOST = ("vit_base_patch16_224_sam", "vit_base_patch32_224_sam")  # timm has an error for them, too: the tag is sam_in1k


def test_every_old_name_stands_for_a_model_and_a_tag_that_exist():
    assert len(OLD) == 202 and get_deprecated_models("regnet") == {"regnetz_040h": "regnetz_040_h"}
    for module in families():
        for old, current in get_deprecated_models(module).items():
            name, tag = split_model_name_tag(current)
            assert timm_module(old) is None and timm_module(name) == module
            assert not tag or tag in timm_cfgs(name) or old in LOST, current


@pytest.mark.parametrize(
    "old, current, name",
    [
        ("tv_resnet34", "resnet34.tv_in1k", "resnet34"),
        ("efficientnet_b2a", "efficientnet_b2", "efficientnet_b2"),
        ("tv_resnet34.a1_in1k", "resnet34.a1_in1k", "resnet34"),
    ],
)
def test_an_old_name_gives_the_model_of_today_with_a_warning(old, current, name, caplog):
    with caplog.at_level(logging.WARNING), paddle.LazyGuard():
        net = pimm.create_model(old, num_classes=3)
        expected = pimm.create_model(current, num_classes=3)
    assert [record.getMessage() for record in caplog.records] == [
        f"{old} is an old name: the model is called {current} now"
    ]
    shapes = [(key, value.shape) for key, value in net.state_dict().items()]
    assert shapes == [(key, value.shape) for key, value in expected.state_dict().items()]
    assert net.default_cfg == expected.default_cfg and net.default_cfg["architecture"] == name


def test_old_names_are_found_but_not_listed():
    assert pimm.is_model("tv_resnet34") and pimm.models.is_model_in_modules("tv_resnet34", "resnet")
    assert pimm.get_pretrained_cfg("deit3_small_patch16_384_in21ft1k").fixed_input_size
    assert not set(OLD) & set(pimm.list_models())
    assert not pimm.is_model("jx_nest_base")  # its module is not here
    with pytest.raises(ConfigError, match="unknown model 'jx_nest_base'"):
        pimm.create_model("jx_nest_base")
    with pytest.raises(ConfigError, match="the model resnet34 has no tag 'zz'"):
        pimm.create_model("tv_resnet34.zz")


def test_the_function_of_an_old_name_keeps_its_set_of_weights():
    create = model_entrypoint("tv_resnet34")
    assert (create.__name__, create.__module__) == ("tv_resnet34", "pimm.models.resnet")
    with paddle.LazyGuard():
        assert create(num_classes=2).default_cfg["tag"] == "tv_in1k"
    assert pimm.models.tv_resnet34.__name__ == "tv_resnet34"
