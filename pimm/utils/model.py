"""Unwrap nets, freeze parts of them, and collect statistics of their activations."""

from __future__ import annotations

import fnmatch
import logging

import paddle
import paddle.nn.functional as F
from paddle import nn

from pimm.errors import ConfigError
from pimm.messages import did_you_mean

_logger = logging.getLogger(__name__)

_BATCH_NORMS = (nn.BatchNorm2D, nn.SyncBatchNorm)


def unwrap_model(model):
    """Return the net inside an averaged or a data-parallel model, or the net itself.

    A layer is taken for a wrapper by its class, as a net may well have a part called ``module`` or ``ema``. The class
    attribute ``wrapped_as`` of a wrapper names the attribute that is the net; Paddle's wrappers call it ``_layers``.
    What is no layer can be no net, and is a wrapper if it has one of the usual attributes.
    """
    if not isinstance(model, nn.Layer):
        names = ("ema", "module", "_layers")
    elif type(model).__module__.startswith("paddle.distributed.") or isinstance(model, paddle.DataParallel):
        names = ("_layers",)
    else:
        names = (getattr(type(model), "wrapped_as", ""),)
    inner = next((getattr(model, name) for name in names if isinstance(getattr(model, name, None), nn.Layer)), None)
    return model if inner is None else unwrap_model(inner)


def get_state_dict(model, unwrap_fn=unwrap_model):
    """Return weights and running statistics of the net inside ``model``, by name."""
    return unwrap_fn(model).state_dict()


class FrozenBatchNorm2d(nn.Layer):
    """Normalises by running statistics in training too, and changes nothing of its state.

    This layer shares the state and the activation of ``thawed``, the batch norm that it stands for, under the same
    names.
    """

    def __init__(self, thawed):
        super().__init__()
        _set_parameters_frozen(thawed, True)
        for name, value in {**thawed._parameters, **thawed._sub_layers}.items():
            setattr(self, name, value)
        self.__dict__["thawed"] = thawed  # not as a sublayer: its state would be there twice

    def forward(self, x):
        own = self.thawed
        x = F.batch_norm(x, own._mean, own._variance, own.weight, own.bias, epsilon=own._epsilon)
        return own.finish(x) if hasattr(own, "finish") else x  # Paddle's own batch norm has none

    def thaw(self):
        """Return the layer that this one stands for, learning again."""
        _set_parameters_frozen(self.thawed, False)
        self.thawed.training = self.training
        return self.thawed


def freeze_batch_norm_2d(module):
    """Replace every batch norm in ``module`` by a `FrozenBatchNorm2d`; return the module or its successor."""
    return _replace(module, _BATCH_NORMS, FrozenBatchNorm2d)


def unfreeze_batch_norm_2d(module):
    """Put back each batch norm that `freeze_batch_norm_2d` replaced; return the module or its successor."""
    return _replace(module, FrozenBatchNorm2d, FrozenBatchNorm2d.thaw)


def _replace(module, kinds, replacement):
    if isinstance(module, kinds):
        return replacement(module)
    for name, child in module.named_children():
        replaced = _replace(child, kinds, replacement)
        if replaced is not child:
            module.add_sublayer(name, replaced)
    return module


def freeze(root_module, submodules=(), include_bn_running_stats=True):
    """Let parameters of ``root_module`` stay as they are; make the optimizer afterwards, which leaves them out.

    Args:
        root_module: the net.
        submodules: names of the parts to freeze; none freezes the whole net.
        include_bn_running_stats: freeze the running statistics of batch norms too, by replacing the layers in the net.

    Raises:
        ConfigError: for a name that is not there, and for a batch norm as ``root_module``, which cannot be replaced in
            place.
    """
    _set_frozen(root_module, submodules, freeze_batch_norm_2d if include_bn_running_stats else None, frozen=True)


def freeze_matching(root_module, patterns):
    """Freeze the layers and parameters whose names fit patterns, such as ``blocks.[0-3]`` or ``conv_stem.*``.

    A batch norm that a pattern names, inside a layer that it names, or whose running statistics it names keeps its
    statistics too, as with `freeze`. Make the optimizer afterwards, which leaves frozen parameters out.

    Args:
        root_module: the net.
        patterns: patterns (``*``, ``?`` and ``[...]``) of names of layers, which stand for all below, or parameters.

    Raises:
        ConfigError: for a pattern that fits no name.
    """
    layers = [name for name, _ in root_module.named_sublayers()]
    parameters = dict(root_module.named_parameters())
    names = [*layers, *parameters]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"no layer or parameter of {type(root_module).__name__} has a name like {pattern!r:.80}"
                f"{did_you_mean(pattern, names, count=3, cutoff=0.5)}"
            )
    fitting = {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    whole = fitting.intersection(layers) | {name[: -len("._mean")] for name in fitting if name.endswith("._mean")}
    outermost = [name for name in whole if not any(name.startswith(f"{other}.") for other in whole)]
    if outermost:
        freeze(root_module, outermost)
    for name in fitting.intersection(parameters):
        parameters[name].stop_gradient = True
    sizes = [parameter.size for parameter in parameters.values() if not parameter.stop_gradient]
    _logger.info("after freezing %s, %d parameters learn", ", ".join(patterns), sum(sizes))


def unfreeze(root_module, submodules=(), include_bn_running_stats=True):
    """Undo `freeze`, with the same arguments."""
    _set_frozen(root_module, submodules, unfreeze_batch_norm_2d if include_bn_running_stats else None, frozen=False)


def _set_frozen(root, names, replace_norms, frozen):
    if isinstance(root, (*_BATCH_NORMS, FrozenBatchNorm2d)):
        raise ConfigError("a batch norm cannot be replaced in place: use freeze_batch_norm_2d's result")
    layers = dict(root.named_sublayers(include_self=True))
    for name in [names] if isinstance(names, str) else names or [""]:
        if name not in layers:
            raise ConfigError(f"{type(root).__name__} has no part {name!r:.80}{did_you_mean(name, layers)}")
        for layer in layers[name].sublayers(include_self=True):
            _set_parameters_frozen(layer, frozen)
        replaced = replace_norms(layers[name]) if replace_norms else layers[name]
        if replaced is not layers[name]:
            parent, _, leaf = name.rpartition(".")
            layers[parent].add_sublayer(leaf, replaced)


def _set_parameters_frozen(layer, frozen):
    """Freeze or thaw a layer's own parameters; running statistics, parameters too in Paddle, never learn."""
    for name, parameter in layer.named_parameters(include_sublayers=False):
        if name not in ("_mean", "_variance"):
            parameter.stop_gradient = frozen


def avg_sq_ch_mean(model, input, output):
    """Return the mean over channels of the squared channel mean of ``output`` [N, C, H, W], as a hook function."""
    return (output.mean(axis=[0, 2, 3]) ** 2).mean().item()


def avg_ch_var(model, input, output):
    """Return the mean over channels of the channel variance of ``output`` [N, C, H, W], as a hook function."""
    return output.var(axis=[0, 2, 3]).mean().item()


class ActivationStatsHook:
    """Collects numbers from the outputs of layers, in ``stats`` under the names of the functions that return them.

    ``hook_fns[i](layer, inputs, output)`` is called at every forward pass for the layers whose names fit the pattern
    ``hook_fn_locs[i]``, as ``blocks.*.conv``. Raises `ConfigError` if the two lists differ in length, and for a pattern
    that no name fits.
    """

    def __init__(self, model, hook_fn_locs, hook_fns):
        if len(hook_fn_locs) != len(hook_fns):
            raise ConfigError(f"{len(hook_fn_locs)} patterns need as many functions, got {len(hook_fns)}")
        self.model = model
        self.stats = {hook_fn.__name__: [] for hook_fn in hook_fns}
        for hook_fn_loc, hook_fn in zip(hook_fn_locs, hook_fns):
            self.register_hook(hook_fn_loc, hook_fn)

    def register_hook(self, hook_fn_loc, hook_fn):
        """Collect what ``hook_fn`` returns for the layers whose names fit ``hook_fn_loc``."""
        layers = [layer for name, layer in self.model.named_sublayers() if fnmatch.fnmatch(name, hook_fn_loc)]
        if not layers:
            raise ConfigError(f"no layer of {type(self.model).__name__} has a name like {hook_fn_loc!r:.80}")
        collected = self.stats[hook_fn.__name__]
        for layer in layers:
            layer.register_forward_post_hook(lambda *call: collected.append(hook_fn(*call)))


@paddle.no_grad()
def extract_spp_stats(model, hook_fn_locs, hook_fns, input_shape=(8, 3, 224, 224)):
    """Return what `ActivationStatsHook` collects for a batch of normal noise: signal propagation (arXiv 2101.08692)."""
    hook = ActivationStatsHook(model, hook_fn_locs, hook_fns)
    model(paddle.randn(list(input_shape)))
    return hook.stats
