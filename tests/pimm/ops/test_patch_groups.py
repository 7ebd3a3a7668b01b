"""Convolutions with groups, which patches of all channels would compute as if there were none."""

import numpy as np
import paddle
import pytest
from ops_cases import draw
from paddle.nn import functional as F

from pimm.layers.conv import conv2d


@pytest.mark.parametrize("groups", [0, 2, 3])
def test_filters_of_all_channels_do_not_fit_groups(groups):
    x, weight = paddle.ones([1, 4, 5, 5]), paddle.ones([6, 4, 2, 2])
    with pytest.raises(ValueError, match="groups"):
        conv2d(x, weight, groups=groups)


def test_groups_of_few_channels_do_not_mix():
    x, weight = draw(2, 4, 5, 5).detach(), draw(6, 2, 2, 2)
    np.testing.assert_allclose(conv2d(x, weight, groups=2), F.conv2d(x, weight, groups=2), rtol=1e-6, atol=1e-6)
    alone = conv2d(x[:, :2], weight[:3])
    np.testing.assert_allclose(conv2d(x, weight, groups=2)[:, :3], alone, rtol=1e-5, atol=1e-5)
