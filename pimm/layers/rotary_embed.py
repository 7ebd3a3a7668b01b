"""Layers of rotary position embeddings, with timm's names and arguments.

An embedding is a tensor [N, 2 * dim] of N patches in the order of rows: ``dim`` sines, then ``dim`` cosines. Angles are
float32 whatever the type of the weights is.
"""

import math

import numpy as np
import paddle
from paddle import nn

from pimm.errors import ConfigError
from pimm.layers.pos_embed_sincos import check_word, freq_bands, patch_grid, pixel_freq_bands, sin_cos


class _CoordinateNoise:
    """Move and scale all coordinates of a training step at random, as DINOv3 does (https://arxiv.org/abs/2508.10104).

    Args:
        shift: the largest distance, in the units of the coordinates.
        jitter: the largest factor of each axis, at least 1; the smallest is one divided by it.
        rescale: the same for a factor of both axes.

    Raises:
        ConfigError: if a number is out of its range.
    """

    def __init__(self, shift, jitter, rescale):
        lowest = {"shift_coords": (shift, 0), "jitter_coords": (jitter, 1), "rescale_coords": (rescale, 1)}
        for name, (value, low) in lowest.items():
            if value is not None and not low <= value < math.inf:
                raise ConfigError(f"{name} is {value!r:.80}; it must be a number of at least {low}")
        self.shift, self.jitter, self.rescale = shift, jitter, rescale

    def __bool__(self):
        return any(value is not None for value in (self.shift, self.jitter, self.rescale))

    def __call__(self, grid):
        if self.shift is not None:
            grid = grid + paddle.uniform([2], grid.dtype, -self.shift, self.shift)
        for factor, axes in ((self.jitter, 2), (self.rescale, 1)):
            if factor is not None:
                grid = grid * paddle.uniform([axes], grid.dtype, -math.log(factor), math.log(factor)).exp()
        return grid


class _RotaryEmbedding(nn.Layer):
    """Keep the coordinates of the patches of one size of images, if it is known, and make embeddings of coordinates.

    Subclasses define `embed`, and set the arguments of `patch_grid` in ``grid_settings``.

    Args:
        feat_shape: rows and columns of patches; None if each call of `get_embed` tells them.
        noise: the `_CoordinateNoise` of trainings.
        grid_settings: arguments of `patch_grid`.
    """

    def __init__(self, feat_shape, noise, grid_settings):
        super().__init__()
        self.feat_shape = None if feat_shape is None else tuple(feat_shape)
        self.noise, self.grid_settings = noise, grid_settings

    def embed(self, grid):
        """Return the embeddings of coordinates [N, 2]."""
        raise NotImplementedError

    def _keep(self):
        """Compute what is the same in every call: the embeddings of the patches of ``feat_shape``."""
        if self.feat_shape is not None:
            self.register_buffer("pos_embed", self.embed(self._grid(self.feat_shape)), persistable=False)

    def _grid(self, shape):
        return patch_grid(shape, **self.grid_settings)

    def update_feat_shape(self, feat_shape):
        """Compute the kept embeddings for other rows and columns, unless none are kept."""
        if self.feat_shape is not None and tuple(feat_shape) != self.feat_shape:
            self.feat_shape = tuple(feat_shape)
            self._keep()

    def get_embed(self, shape=None):
        """Return the embeddings of patches.

        Args:
            shape: rows and columns of patches; None for those that the layer was created with.

        Raises:
            ConfigError: if neither is given.
        """
        if shape is None and self.feat_shape is None:
            raise ConfigError("a rotary embedding created without feat_shape needs the shape in each call")
        if self.training and self.noise:
            return self.embed(self.noise(self._grid(shape or self.feat_shape)))
        return self._kept() if shape is None else self.embed(self._grid(shape))

    def _kept(self):
        return self.pos_embed


class RotaryEmbeddingCat(_RotaryEmbedding):
    """Rotary embeddings of rows and columns, a quarter of the channels' sines for each.

    `get_embed` returns [N, 2 * dim]. See https://arxiv.org/abs/2303.11331 for their use in images.

    Args:
        dim: channels of a head.
        max_res: resolution in pixels that the last of the frequencies ``in_pixels`` resolves.
        temperature: ratio of the frequencies that are not ``in_pixels``.
        in_pixels: whether frequencies and coordinates are those of `pixel_freq_bands`, or those of `freq_bands`.
        linear_bands: as in `pixel_freq_bands`.
        feat_shape: rows and columns of patches; None if each call of `get_embed` tells them.
        ref_feat_shape: as in `patch_grid`.
        grid_offset: as in `patch_grid`.
        grid_indexing: as in `patch_grid`.
        rotate_half: order of channels, as ``half`` of `apply_rot_embed_cat`.
        shift_coords: largest random shift of the coordinates in training, None for none.
        jitter_coords: largest random factor of each axis in training.
        rescale_coords: largest random factor of both axes in training.
    """

    def __init__(
        self,
        dim,
        max_res=224,
        temperature=10000.0,
        in_pixels=True,
        linear_bands=False,
        feat_shape=None,
        ref_feat_shape=None,
        grid_offset=0.0,
        grid_indexing="ij",
        rotate_half=False,
        shift_coords=None,
        jitter_coords=None,
        rescale_coords=None,
    ):
        settings = {
            "grid_type": "pixel" if in_pixels else "index",
            "ref_feat_shape": ref_feat_shape,
            "grid_offset": grid_offset,
            "grid_indexing": grid_indexing,
        }
        super().__init__(feat_shape, _CoordinateNoise(shift_coords, jitter_coords, rescale_coords), settings)
        self.rotate_half = rotate_half
        bands = pixel_freq_bands(dim // 4, max_res, linear_bands) if in_pixels else freq_bands(dim // 4, temperature, 1)
        self.register_buffer("bands", bands, persistable=False)
        self._keep()

    def embed(self, grid):
        """Return the embeddings of coordinates [N, 2]."""
        return sin_cos((grid.unsqueeze(-1) * self.bands).flatten(1), self.rotate_half)


class RotaryEmbeddingDinoV3(_RotaryEmbedding):
    """Rotary embeddings of the middles of patches, in an image from -1 to 1, as in DINOv3.

    See https://arxiv.org/abs/2508.10104. `get_embed` returns [N, 2 * dim].

    Args:
        dim: channels of a head.
        temperature: ratio of the longest period to the shortest.
        feat_shape: rows and columns of patches; None if each call of `get_embed` tells them.
        normalize_coords: as in `patch_grid`.
        grid_offset: as in `patch_grid`.
        grid_indexing: as in `patch_grid`.
        rotate_half: order of channels, as ``half`` of `apply_rot_embed_cat`.
        shift_coords: largest random shift of the coordinates in training, None for none.
        jitter_coords: largest random factor of each axis in training.
        rescale_coords: largest random factor of both axes in training.
    """

    def __init__(
        self,
        dim,
        temperature=100.0,
        feat_shape=None,
        normalize_coords="separate",
        grid_offset=0.0,
        grid_indexing="ij",
        rotate_half=True,
        shift_coords=None,
        jitter_coords=None,
        rescale_coords=None,
    ):
        settings = {
            "grid_type": "centered",
            "grid_offset": grid_offset,
            "grid_indexing": grid_indexing,
            "normalize_coords": normalize_coords,
        }
        super().__init__(feat_shape, _CoordinateNoise(shift_coords, jitter_coords, rescale_coords), settings)
        self.rotate_half = rotate_half
        exponents = 2.0 * paddle.arange(dim // 4, dtype="float32") / (dim // 2)
        self.register_buffer("periods", temperature**exponents, persistable=False)
        self._keep()

    def embed(self, grid):
        """Return the embeddings of coordinates [N, 2]."""
        return sin_cos((2 * math.pi * grid.unsqueeze(-1) / self.periods).flatten(1), self.rotate_half)


class RotaryEmbeddingMRope(_RotaryEmbedding):
    """Rotary embeddings whose angles belong to time, rows and columns in turns, of which an image has no time.

    `get_embed` returns [N, 2 * dim], for `apply_rot_embed_cat` with ``half``. See https://arxiv.org/abs/2409.12191.

    Args:
        dim: channels of a head.
        mrope_section: how many angles belong to time, rows and columns; those of no axis belong to time.
        temperature: ratio of the frequencies.
        shift_coords: largest random shift of the coordinates in training, None for none.
        jitter_coords: largest random factor of each axis in training.
        rescale_coords: largest random factor of both axes in training.
    """

    def __init__(
        self,
        dim,
        mrope_section=(8, 12, 12),
        temperature=10000.0,
        shift_coords=None,
        jitter_coords=None,
        rescale_coords=None,
    ):
        super().__init__(None, _CoordinateNoise(shift_coords, jitter_coords, rescale_coords), {})
        _, rows, columns = mrope_section
        bands = np.zeros([2, dim // 2], np.float32)
        bands[0, 1 : rows * 3 : 3] = bands[1, 2 : columns * 3 : 3] = 1.0
        self.register_buffer("bands", paddle.to_tensor(bands) * freq_bands(dim, temperature), persistable=False)

    def embed(self, grid):
        """Return the embeddings of coordinates [N, 2]."""
        rows, columns = grid.unsqueeze(-1).unbind(1)
        return sin_cos(rows * self.bands[0] + columns * self.bands[1], rotate_half=True)


class RotaryEmbeddingMixed(_RotaryEmbedding):
    """Rotary embeddings with learnt frequencies of rows and columns for each head of each block.

    `get_embed` returns [depth, num_heads, N, 2 * dim / num_heads]. See https://arxiv.org/abs/2403.13298.

    Args:
        dim: channels of all heads.
        depth: number of blocks.
        num_heads: heads of a block.
        temperature: ratio of the initial frequencies.
        feat_shape: rows and columns of patches; None if each call of `get_embed` tells them.
        grid_indexing: as in `patch_grid`.
        shift_coords: largest random shift of the coordinates in training, None for none.
        jitter_coords: largest random factor of each axis in training.
        rescale_coords: largest random factor of both axes in training.

    Raises:
        ConfigError: if the channels of a head are not a multiple of four.
    """

    def __init__(
        self,
        dim,
        depth,
        num_heads,
        temperature=10.0,
        feat_shape=None,
        grid_indexing="xy",
        shift_coords=None,
        jitter_coords=None,
        rescale_coords=None,
    ):
        noise = _CoordinateNoise(shift_coords, jitter_coords, rescale_coords)
        super().__init__(feat_shape, noise, {"grid_indexing": grid_indexing})
        head_dim = dim // num_heads
        if head_dim % 4:
            raise ConfigError(f"mixed rotary embeddings need heads of a multiple of 4 channels, got {head_dim}")
        self.freqs = self.create_parameter(
            [2, depth, num_heads, head_dim // 2], default_initializer=_RotatedFrequencies(temperature)
        )
        self._keep()

    def _keep(self):
        """Keep the coordinates alone, for the frequencies change."""
        if self.feat_shape is not None:
            self.register_buffer("grid", self._grid(self.feat_shape), persistable=False)

    def _kept(self):
        return self.embed(self.grid)

    def embed(self, grid):
        """Return the embeddings of coordinates [N, 2]."""
        freqs = self.freqs.astype("float32").unsqueeze(-2)  # [2, depth, num_heads, 1, head_dim / 2]
        first, second = grid.unsqueeze(-1).unbind(1)  # [N, 1]
        return sin_cos(first * freqs[0] + second * freqs[1])

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone."""
        return {"freqs"}


class _RotatedFrequencies(nn.initializer.Initializer):
    """Fill frequencies with those of `freq_bands` in two orthogonal directions, turned at random for each head."""

    def __init__(self, temperature):
        super().__init__()
        self.temperature = temperature

    def forward(self, param, block=None):
        """Fill a parameter [2, depth, num_heads, 2 * n]."""
        _, depth, heads, width = param.shape
        sizes = freq_bands(2 * width, self.temperature, 4).tile([2])
        angles = paddle.rand([depth, heads, 1]) * (2 * math.pi)
        angles = paddle.concat([angles, angles + math.pi / 2], axis=-1).repeat_interleave(width // 2, axis=-1)
        with paddle.no_grad():
            param.set_value(paddle.stack([sizes * angles.cos(), sizes * angles.sin()]).astype(param.dtype))


_EMBEDDINGS = {  # name: (class, whether it takes the channels of one head, the settings that it lacks)
    "cat": (RotaryEmbeddingCat, True, ()),
    "mixed": (RotaryEmbeddingMixed, False, ("rotate_half",)),
    "dinov3": (RotaryEmbeddingDinoV3, True, ()),
    "mrope": (RotaryEmbeddingMRope, True, ("rotate_half", "feat_shape", "grid_indexing")),
}


def create_rope_embed(rope_type="cat", dim=768, num_heads=12, **kwargs):
    """Return the layer of rotary embeddings of this name.

    Args:
        rope_type: ``cat``, ``mixed``, ``dinov3`` or ``mrope``.
        dim: channels of all heads.
        num_heads: heads of a block.
        kwargs: further arguments of the class; ``rotate_half``, ``feat_shape`` and ``grid_indexing`` are left out for
            a class without them.

    Raises:
        ConfigError: for another name.
    """
    check_word("rope_type", rope_type, _EMBEDDINGS)
    embedding, of_one_head, lacking = _EMBEDDINGS[rope_type]
    kwargs = {name: value for name, value in kwargs.items() if name not in lacking}
    return embedding(dim // num_heads, **kwargs) if of_one_head else embedding(dim, num_heads=num_heads, **kwargs)
