"""Leave out patches at random while a net trains (https://arxiv.org/abs/2212.00794), under timm's name."""

import paddle
from paddle import nn

from pimm.errors import ConfigError


class PatchDropout(nn.Layer):
    """Keep a random part of the tokens [N, tokens, C] of each image in training.

    Args:
        prob: share of the patches that are left out, from 0 to below 1.
        num_prefix_tokens: how many tokens before the patches always stay.
        ordered: whether the patches keep their order.

    Raises:
        ConfigError: for another share.
    """

    def __init__(self, prob=0.5, num_prefix_tokens=1, ordered=False):
        super().__init__()
        if not 0.0 <= prob < 1.0:
            raise ConfigError(f"the share of patches to leave out must be from 0 to below 1, got {prob}")
        self.prob, self.num_prefix_tokens, self.ordered = prob, num_prefix_tokens, ordered

    def forward(self, x):
        return self.drop(x)[0]

    def drop(self, x):
        """Return the tokens and the indices of the patches that were kept, which are None if all were."""
        if not self.training or self.prob == 0.0:
            return x, None
        prefix, patches = x[:, : self.num_prefix_tokens], x[:, self.num_prefix_tokens :]
        kept = max(1, int(patches.shape[1] * (1.0 - self.prob)))
        indices = paddle.rand(patches.shape[:2]).argsort(axis=1)[:, :kept]
        indices = indices.sort(axis=1) if self.ordered else indices
        patches = paddle.take_along_axis(patches, indices.unsqueeze(-1), axis=1)
        return (paddle.concat([prefix, patches], axis=1) if self.num_prefix_tokens else patches), indices


class PatchDropoutWithIndices(PatchDropout):
    """`PatchDropout` that returns the indices of the kept patches, too."""

    def forward(self, x):
        return self.drop(x)
