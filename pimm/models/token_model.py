"""The interface of nets whose blocks keep the number and the channels of tokens, such as vision transformers.

A family derives its net from `TokenModel` and defines `TokenModel.embed`; the names and arguments are timm's.
"""

from __future__ import annotations

from paddle import nn

from pimm.errors import ConfigError
from pimm.layers import Linear
from pimm.models.features import feature_map, feature_take_indices
from pimm.models.recompute import checkpoint

_POOLS = {
    "avg": lambda x: x.mean(1),
    "max": lambda x: x.max(1),
    "avgmax": lambda x: 0.5 * (x.max(1) + x.mean(1)),
}


def global_pool_nlc(x, pool_type="token", num_prefix_tokens=1, reduce_include_prefix=False):
    """Pool tokens [N, L, C] to [N, C].

    Args:
        x: the tokens.
        pool_type: ``token`` for the first token; ``avg``, ``max`` or ``avgmax``, half the sum of both, of the tokens;
            "" returns all tokens.
        num_prefix_tokens: tokens before the patches.
        reduce_include_prefix: whether the tokens before the patches are pooled too.

    Raises:
        ConfigError: for another pooling.
    """
    if pool_type == "token":
        return x[:, 0]
    if not pool_type:
        return x
    if pool_type not in _POOLS:
        raise ConfigError(f"global_pool is {pool_type!r:.80}; valid are token, {', '.join(_POOLS)} and ''")
    return _POOLS[pool_type](x if reduce_include_prefix else x[:, num_prefix_tokens:])


class TokenModel(nn.Layer):
    """A net of an embedding, blocks, a normalisation, pooling, another normalisation, dropout and a classifier.

    Class attributes name the layers and the values of ``global_pool``. A family sets the other attributes in
    ``__init__``, and creates ``patch_embed`` (`pimm.layers.PatchEmbed`, or a layer with ``dynamic_feat_size``), the
    blocks, ``norm``, ``fc_norm``, ``head_drop`` and ``head``, and if it has one, ``attn_pool``, a layer that pools
    tokens in place of ``global_pool``. Layers that it lacks are `paddle.nn.Identity`.

    Attributes:
        num_classes: classes; 0 for a net that returns the input of the classifier.
        embed_dim, num_features, head_hidden_size: channels of the tokens.
        num_prefix_tokens: tokens before the patches.
        global_pool: the pooling, as ``pool_type`` of `global_pool_nlc`.
        pool_include_prefix: whether the tokens before the patches are pooled too.
        feature_info: description of the feature maps, as `block_features` makes it.
        has_class_token: whether there is a token that ``token`` pooling takes.
    """

    blocks_name = "blocks"
    pools = ("", "avg", "avgmax", "max", "token")
    default_out_indices = 3  # of ``features_only``: the last three blocks
    num_prefix_tokens = 0
    pool_include_prefix = False
    has_class_token = False
    grad_checkpointing = False

    def embed(self, x):
        """Return the tokens [N, L, C] of images, and a tuple of the further arguments that each block takes."""
        raise NotImplementedError

    def block_arguments(self, arguments, number):
        """Return the further arguments of a block, as a tuple, from those that `embed` returns.

        Args:
            arguments: the tuple that `embed` returns.
            number: the block, from 0.
        """
        return arguments

    def run_blocks(self, x, arguments, count=None, taken=()):
        """Apply the blocks one after another, and return the tokens and a list of the outputs that are asked for.

        Args:
            x: tokens, [N, L, C].
            arguments: the tuple that `embed` returns.
            count: how many blocks; None for all.
            taken: numbers of the blocks whose outputs are wanted.
        """
        found = []
        for number, block in enumerate(list(getattr(self, self.blocks_name))[:count]):
            further = self.block_arguments(arguments, number)
            x = checkpoint(block, x, *further) if self.grad_checkpointing else block(x, *further)
            if number in taken:
                found.append(x)
        return x, found

    def forward_features(self, x, **masks):
        """Return the normalised tokens [N, L, C] of images [N, in_chans, H, W].

        Args:
            x: the images.
            masks: further arguments of `embed`, in nets that take any.
        """
        return self.finish(self.run_blocks(*self.embed(x, **masks))[0])

    def finish(self, x):
        """Return the output of `forward_features` for tokens that have gone through the blocks."""
        return self.norm(x)

    def pool(self, x, pool_type=None):
        """Return one vector [N, C] of tokens [N, L, C]; ``pool_type`` stands for the net's own pooling."""
        attn_pool = getattr(self, "attn_pool", None)
        if attn_pool is not None:
            return attn_pool(x if self.pool_include_prefix else x[:, self.num_prefix_tokens :])
        pool_type = self.global_pool if pool_type is None else pool_type
        return global_pool_nlc(x, pool_type, self.num_prefix_tokens, self.pool_include_prefix)

    def forward_head(self, x, pre_logits=False):
        """Return the logits of tokens, or with ``pre_logits`` the input of the classifier.

        Args:
            x: tokens of `forward_features`, [N, L, C].
            pre_logits: whether to stop before the classifier.
        """
        x = self.head_drop(self.fc_norm(self.pool(x)))
        return x if pre_logits else self.head(x)

    def forward(self, x):  # [N, in_chans, H, W]
        return self.forward_head(self.forward_features(x))  # [N, num_classes]

    def forward_intermediates(
        self,
        x,
        indices=None,
        return_prefix_tokens=False,
        norm=False,
        stop_early=False,
        output_fmt="NCHW",
        intermediates_only=False,
        output_dict=False,
        **masks,
    ):
        """Return the output of `forward_features` and a list of the outputs of blocks, in forward order.

        Args:
            x: images, [N, in_chans, H, W].
            indices: which blocks: None for all, a number n for the last n, or a list, in which -1 is the last.
            return_prefix_tokens: whether each element of the list becomes a pair of the patches and the tokens before
                them, [N, num_prefix_tokens, C].
            norm: whether the last normalisation is applied to each element.
            stop_early: whether to stop after the last of these blocks, whose normalised output is then the first of
                the results.
            output_fmt: order of the axes of the patches: ``NCHW`` or ``NLC``.
            intermediates_only: whether to return the list alone.
            output_dict: whether to return a dict of ``image_intermediates``, ``image_intermediates_prefix`` if wanted,
                and ``image_features``.
            masks: further arguments of `embed`, in nets that take any.

        Raises:
            ConfigError: if there is no such block, and for another ``output_fmt``.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ConfigError(f"output_fmt is {output_fmt!r:.80}; valid are NCHW and NLC, for this net")
        taken, last = feature_take_indices(len(getattr(self, self.blocks_name)), indices)
        size = x.shape[2:]
        tokens, arguments = self.embed(x, **masks)
        tokens, found = self.run_blocks(tokens, arguments, last + 1 if stop_early else None, set(taken))
        found = [self.norm(each) for each in found] if norm else found
        prefix = [each[:, : self.num_prefix_tokens] for each in found] if self.num_prefix_tokens else None
        found = [each[:, self.num_prefix_tokens :] if prefix else each for each in found]
        if output_fmt == "NCHW":
            found = [_maps(each, self.patch_embed.dynamic_feat_size(size)) for each in found]
        if output_dict:
            results = {"image_intermediates": found}
            if prefix and return_prefix_tokens:
                results["image_intermediates_prefix"] = prefix
            return results if intermediates_only else {**results, "image_features": self.finish(tokens)}
        if prefix and return_prefix_tokens:
            found = list(zip(found, prefix))
        return found if intermediates_only else (self.finish(tokens), found)

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Take out the blocks after those whose outputs are wanted, and return the numbers of these.

        Args:
            indices: which blocks, as in `forward_intermediates`.
            prune_norm: whether to take out the last normalisation.
            prune_head: whether to take out pooling, head and classifier.

        Raises:
            ConfigError: if there is no such block.
        """
        blocks = getattr(self, self.blocks_name)
        taken, last = feature_take_indices(len(blocks), indices)
        kept = list(blocks)[: last + 1]
        kept = nn.LayerList(kept) if isinstance(blocks, nn.LayerList) else nn.Sequential(*kept)
        setattr(self, self.blocks_name, kept)
        if prune_norm:
            self.norm = nn.Identity()
        if prune_head:
            self.fc_norm = nn.Identity()
            self.reset_classifier(0, "")
        return taken

    def get_intermediate_layers(self, x, n=1, reshape=False, return_prefix_tokens=False, norm=False, **masks):
        """Return the outputs of the last ``n`` blocks, or of a list of them, as DINO's nets do.

        Args:
            x: images, [N, in_chans, H, W].
            n: which blocks, as ``indices`` of `forward_intermediates`.
            reshape: whether patches are [N, C, rows, columns], instead of [N, L, C].
            return_prefix_tokens, norm, masks: as in `forward_intermediates`.
        """
        fmt = "NCHW" if reshape else "NLC"
        return self.forward_intermediates(x, n, return_prefix_tokens, norm, False, fmt, True, **masks)

    def set_grad_checkpointing(self, enable=True):
        """Compute the activations of blocks again in the backward pass, or keep them; the gradients are the same."""
        self.grad_checkpointing = enable
        if hasattr(self.patch_embed, "set_grad_checkpointing"):
            self.patch_embed.set_grad_checkpointing(enable)

    def no_weight_decay(self):
        """Return the names of parameters that weight decay leaves alone, beside biases and those of normalisation."""
        return set()

    def get_classifier(self):
        """Return the last layer."""
        return self.head

    def check_pool(self, global_pool):
        """Raise `ConfigError` if the net has no such pooling."""
        if global_pool not in self.pools:
            valid = ", ".join(name or '""' for name in self.pools)
            raise ConfigError(f"global_pool is {global_pool!r:.80}; valid are {valid}, for this net")
        if global_pool == "token" and not self.has_class_token:
            raise ConfigError("global_pool is token: the net has no class token; give class_token=True")

    def reset_classifier(self, num_classes, global_pool=None):
        """Replace the classifier, and the pooling.

        Args:
            num_classes: classes; 0 for a net that returns the input of the classifier.
            global_pool: one of ``pools``; None keeps it.

        Raises:
            ConfigError: for another pooling.
        """
        if global_pool is not None:
            self.check_pool(global_pool)
            self.global_pool = global_pool
        self.create_classifier(num_classes)
        self.head.train() if self.training else self.head.eval()

    def create_classifier(self, num_classes):
        """Set the classifier, which for 0 classes is the identity."""
        self.num_classes = num_classes
        self.head = Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()


def _maps(x, size):
    """Return patches [N, rows * columns, C] as feature maps [N, C, rows, columns]."""
    return x.reshape([-1, *size, x.shape[-1]]).transpose([0, 3, 1, 2])


def remember_input_size(model, **arguments):
    """Let a model that was made for another size of images be saved with that size.

    Args:
        model: the model; `pimm.create_model` left its arguments in ``model_args``.
        arguments: the arguments that make such a model, of which None means no change.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    model.model_args = {**getattr(model, "model_args", {}), **given}


def block_features(depth, channels, reduction, name="blocks"):
    """Describe the outputs of blocks for ``feature_info``.

    Args:
        depth: how many blocks.
        channels: channels of the tokens.
        reduction: by how much an image is larger than the grid of patches.
        name: name of the blocks.
    """
    return [feature_map(f"{name}.{number}", number + 1, channels, reduction) for number in range(depth)]
