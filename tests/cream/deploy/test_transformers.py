"""Programs of nets that are made for one size of image: they take any number of images."""

import numpy as np
import paddle
import pytest

import pimm
from cream.deploy.backends import EagerNet
from cream.deploy.export import save_paddle
from pimm.engine.program import PaddleNet

SMALL = {"img_size": 32, "embed_dim": 24, "num_heads": 2, "depth": 1, "num_classes": 5}
NETS = {
    "test_vit": {"img_size": 32},
    "beit_base_patch16_224": SMALL,
    "cait_xxs24_224": SMALL,
    "xcit_nano_12_p8_224": SMALL,
}


@pytest.mark.parametrize("name", NETS)
def test_a_program_takes_any_number_of_images(name, tmp_path):
    net = pimm.create_model(name, **NETS[name])
    net.eval()
    images = paddle.randn([3, 3, 32, 32]).numpy()
    expected = EagerNet(net)(images)
    save_paddle(net, (3, 32, 32), tmp_path)
    program = PaddleNet(tmp_path)
    for count in (1, 3):
        np.testing.assert_allclose(program(images[:count]), expected[:count], rtol=1e-3, atol=1e-4)


def test_a_net_that_computes_with_the_size_of_images_takes_one_size(tmp_path, caplog):
    net = pimm.create_model("mobilevit_xxs", num_classes=5)
    net.eval()
    images = paddle.randn([2, 3, 128, 128]).numpy()
    expected = EagerNet(net)(images)
    save_paddle(net, (3, 128, 128), tmp_path)
    assert "the program takes images of 128 x 128 alone" in caplog.text
    np.testing.assert_allclose(PaddleNet(tmp_path)(images), expected, rtol=1e-3, atol=1e-4)
