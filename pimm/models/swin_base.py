"""The stages, and the net, that both versions of Swin transformers share."""

from __future__ import annotations

import re

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import ClassifierHead, PatchEmbed, calculate_drop_path_rates, resample_patch_embed, to_pair
from pimm.models.features import feature_map
from pimm.models.headed import StagedModel
from pimm.models.recompute import checkpoint_seq
from pimm.models.swin_windows import scaled_window_sizes, stage_window_sizes, window_sizes_by_ratio


def _halved(size):
    return tuple((side + 1) // 2 for side in size)


class WindowStage(nn.Layer):
    """Merging of patches, and blocks of which every second has shifted windows.

    Args:
        dim: channels of the input.
        out_dim: channels of the output.
        input_resolution: size of the feature maps.
        depth: number of blocks.
        merging: class of the patch merging, ``merging(dim, out_dim, norm_layer)``; None for none.
        block: class of the blocks.
        window_size: size of the windows.
        drop_path: stochastic depth of each block.
        norm_layer: class of the normalisation.
        kwargs: further arguments of the blocks.
    """

    def __init__(
        self, dim, out_dim, input_resolution, depth, merging, block, window_size, drop_path, norm_layer, **kwargs
    ):
        super().__init__()
        self.grad_checkpointing = False
        self.input_resolution = input_resolution
        self.output_resolution = _halved(input_resolution) if merging else input_resolution
        self.downsample = merging(dim, out_dim, norm_layer) if merging else nn.Identity()
        shift_size = tuple(side // 2 for side in window_size)
        kwargs = {**kwargs, "window_size": window_size, "norm_layer": norm_layer}
        self.blocks = nn.Sequential(
            *(
                block(
                    out_dim,
                    self.output_resolution,
                    shift_size=shift_size if index % 2 else 0,
                    drop_path=drop_path[index],
                    **kwargs,
                )
                for index in range(depth)
            )
        )

    def set_input_size(self, feat_size, window_size, always_partition=None):
        """Make windows for feature maps of another size; arguments as those of `WindowBlock.set_input_size`."""
        self.input_resolution = feat_size
        merges = not isinstance(self.downsample, nn.Identity)
        self.output_resolution = _halved(feat_size) if merges else feat_size
        for block in self.blocks:
            block.set_input_size(self.output_resolution, window_size, always_partition)

    def forward(self, x):  # [N, H, W, dim]
        x = self.downsample(x)
        return checkpoint_seq(self.blocks, x) if self.grad_checkpointing else self.blocks(x)


class WindowTransformer(StagedModel):
    """The base of all versions of Swin transformers; feature maps are [N, H, W, C].

    A subclass calls `_build` in its constructor, with all arguments but ``strict_img_size`` as the caller gave them.
    """

    stages_name = "layers"
    axes = output_fmt = "NHWC"

    def _build(
        self,
        img_size,
        patch_size,
        in_chans,
        num_classes,
        global_pool,
        embed_dim,
        depths,
        window_size,
        strict_img_size,
        drop_rate,
        drop_path_rate,
        norm_layer,
        merging,
        embed_layer=PatchEmbed,
        stage_class=WindowStage,
        **by_stage,
    ):
        """Create all layers.

        Args:
            img_size, patch_size, in_chans, num_classes, global_pool, embed_dim, depths, window_size, drop_rate,
                drop_path_rate, norm_layer: as in the constructors.
            strict_img_size: whether all images must be of the size ``img_size``.
            merging: class of the patch merging, before all stages but the first.
            embed_layer: class of the patch embedding.
            stage_class: class of the stages.
            by_stage: further arguments of the stages, one or a list with at least one for each stage.
        """
        count = len(depths)
        by_stage.update(depth=depths, merging=[None] + [merging] * (count - 1))
        stages = stage_arguments(count, drop_path_rate, **by_stage)
        dims = list(embed_dim) if isinstance(embed_dim, (tuple, list)) else [embed_dim << i for i in range(len(stages))]
        self.in_chans, self.num_classes, self.num_features = in_chans, num_classes, dims[-1]
        self.dynamic_img_size = not strict_img_size
        self.patch_embed = embed_layer(
            img_size=img_size,
            patch_size=patch_size,
            in_chans=in_chans,
            embed_dim=dims[0],
            norm_layer=norm_layer,
            strict_img_size=strict_img_size,
            output_fmt="NHWC",
        )
        self._ref_window_sizes = stage_window_sizes(window_size, len(stages))
        self._ref_grid_size = tuple(self.patch_embed.grid_size)
        self.feature_info, layers = [], []
        for index, arguments in enumerate(stages):
            layers.append(
                stage_class(
                    dims[max(index - 1, 0)],
                    dims[index],
                    self._stage_grid(index),
                    window_size=self._ref_window_sizes[index],
                    norm_layer=norm_layer,
                    dynamic_mask=not strict_img_size,
                    **arguments,
                )
            )
            reduction = max(to_pair(patch_size)) << index
            self.feature_info.append(feature_map(f"{self.stages_name}.{index}", index + 1, dims[index], reduction))
        setattr(self, self.stages_name, nn.Sequential(*layers))
        if self.norm_name:
            self.norm = norm_layer(self.num_features)
        self.head = ClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, input_fmt=self.axes
        )
        self.head_hidden_size = self.head.num_features

    def _stage_grid(self, index):
        """Return the size of a stage's input."""
        scale = 1 << max(index - 1, 0)
        return tuple(-(-side // scale) for side in self.patch_embed.grid_size)

    def embed(self, x):
        """Return patches of images, [N, H, W, embed_dim]."""
        return self.patch_embed(x)

    def set_input_size(
        self, img_size=None, patch_size=None, window_size=None, window_ratio=None, always_partition=None
    ):
        """Make the net take images of another size.

        Args:
            img_size: the size of the images; None keeps it.
            patch_size: the size of the patches; None keeps it.
            window_size: the size of the windows, one or one for each stage; None changes them as the grid changes.
            window_ratio: in place of ``window_size``, windows along each side of the grid.
            always_partition: whether windows stay as large as they are in feature maps that are smaller; None keeps it.

        Raises:
            ConfigError: for window sizes or ratios that do not fit the net.
        """
        if img_size is not None or patch_size is not None:
            self.patch_embed.set_input_size(img_size=img_size, patch_size=patch_size)
        if patch_size is not None:
            for index, info in enumerate(self.feature_info):
                info["reduction"] = max(self.patch_embed.patch_size) << index
        stages, grid = getattr(self, self.stages_name), tuple(self.patch_embed.grid_size)
        if window_size is not None:
            sizes = stage_window_sizes(window_size, len(stages))
        elif window_ratio is not None:
            sizes = window_sizes_by_ratio(grid, window_ratio, len(stages))
        else:
            sizes = scaled_window_sizes(self._ref_window_sizes, grid, self._ref_grid_size)
        if window_size is not None or window_ratio is not None:
            self._ref_window_sizes, self._ref_grid_size = sizes, grid
        for index, stage in enumerate(stages):
            stage.set_input_size(self._stage_grid(index), sizes[index], always_partition)

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the layers that feature maps do not need; see `ImageModel.prune_intermediate_layers`."""
        taken = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        self._ref_window_sizes = self._ref_window_sizes[: len(getattr(self, self.stages_name))]
        return taken

    def group_matcher(self, coarse=False):
        """Return the patterns for ``group_with_matcher`` by block, or by stage if ``coarse``."""
        stage = rf"^{self.stages_name}\.(\d+)"
        blocks = [(rf"{stage}.downsample", (0,)), (rf"{stage}\.\w+\.(\d+)", None)]
        if self.norm_name:
            blocks.append((r"^norm", (99999,)))
        return {"stem": r"^patch_embed", "blocks": stage if coarse else blocks}


def stage_arguments(num_layers, drop_path_rate, **by_stage):
    """Return a dict of arguments for each stage.

    Args:
        num_layers: number of stages.
        drop_path_rate: stochastic depth of the last block; it grows linearly over the blocks.
        by_stage: arguments, one or a list with at least one for each stage; ``depth`` is among them.

    Raises:
        ConfigError: for a shorter list.
    """
    for name, value in by_stage.items():
        if isinstance(value, (tuple, list)) and len(value) < num_layers:
            raise ConfigError(f"{name} is {value!r:.80}; must be one value, or one for each of {num_layers} stages")
    rates = calculate_drop_path_rates(drop_path_rate, by_stage["depth"], stagewise=True)
    return [
        {
            "drop_path": rates[index],
            **{key: value[index] if isinstance(value, (tuple, list)) else value for key, value in by_stage.items()},
        }
        for index in range(num_layers)
    ]


SIZES = {  # size: arguments of nets of all versions
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
    "large": {"embed_dim": 192, "depths": (2, 2, 18, 2), "num_heads": (6, 12, 24, 48)},
}
_COMPUTED = ("relative_position_index", "relative_coords_table", "attn_mask")


def filter_checkpoint(state_dict, model, filter_value=None):
    """Return the arrays of a checkpoint, also of the papers' code, under this net's names.

    Args:
        state_dict: arrays by PyTorch's names.
        model: the net that takes them.
        filter_value: a function of a name and an array that returns the array to load; None for no change.
    """
    of_paper = "layers.0.downsample.reduction.weight" in state_dict
    patch_size, renamed = tuple(model.patch_embed.proj.weight.shape[2:]), {}
    for name, value in state_dict.items():
        if any(word in name for word in _COMPUTED):
            continue
        if name.endswith("patch_embed.proj.weight") and tuple(value.shape[2:]) != patch_size:
            value = resample_patch_embed(value, patch_size)
        if filter_value:
            value = filter_value(name, value)
        if of_paper:  # which merged patches at the end of a stage
            name = re.sub(r"layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", name)
            name = name.replace("head.", "head.fc.")
        renamed[name] = value
    return renamed
