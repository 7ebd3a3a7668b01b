"""The section of timm-parity.md on the interface of models: timm's methods and functions, and what is here."""

from __future__ import annotations

import ast
import inspect
import pydoc
import zipfile

# Where an interface is in the wheel, and what has it here: {file: {class, or "" for functions: owner}}.
PLACES = {
    "efficientnet": {"EfficientNet": "pimm.models.efficientnet.EfficientNet"},
    "_features": {"FeatureInfo": "pimm.models.features.FeatureInfo"},
    "_factory": {"": "pimm.models"},
    "_registry": {"": "pimm.models.registry"},
    "_manipulate": {"": "pimm.models"},
}
FUNCTIONS = {"_manipulate": ("model_parameters", "checkpoint", "checkpoint_seq", "group_with_matcher")}
REASONS = {
    "as_sequential": "a net as one `Sequential`, which nothing here takes",
    "extra_blocks": "feature maps that `feature_info` does not describe",
    "scriptable": "TorchScript",
    "exportable": "PyTorch's tracing",
    "no_jit": "TorchScript",
    "resolve_model_input_args": "`img_size` of `create_model`",
    "generate_default_cfgs": "`register_variants` takes the settings of a variant",
    "register_model_deprecations": "timm's replaced names are the table `timm_old_names.json`",
    "group_with_matcher": "in `pimm.optim.layer_groups`, with the same arguments",
    "use_reentrant": "two ways of PyTorch's to recompute",
    "every": "each block is recomputed by itself",
    "flatten": "each block is recomputed by itself",
    "skip_last": "each block is recomputed by itself",
}


def functions_of(wheel):
    """Return ``{(file, class): {name: [arguments]}}`` of timm's public functions and methods in `PLACES`."""
    found = {}
    with zipfile.ZipFile(wheel) as archive:
        for file, owners in PLACES.items():
            body = ast.parse(archive.read(f"timm/models/{file}.py")).body
            for owner in owners:
                nodes = body if not owner else next(node.body for node in body if getattr(node, "name", "") == owner)
                found[file, owner] = {
                    node.name: [arg.arg for arg in (*node.args.args, *node.args.kwonlyargs) if arg.arg != "self"]
                    for node in nodes
                    if isinstance(node, ast.FunctionDef)
                    and (not node.name.startswith("_"))
                    and node.name in FUNCTIONS.get(file, (node.name,))
                }
    return found


def interface_section(wheel):
    """Return the lines of the section.

    Raises:
        KeyError: for a name or an argument that is missing without a reason.
    """
    lines = ["", "## interface of models", "", "| timm 1.0.31 | here | missing | why |", "|---|---|---|---|"]
    same = []
    for (file, owner), functions in functions_of(wheel).items():
        place = PLACES[file][owner]
        target = pydoc.locate(place)
        for name, arguments in functions.items():
            shown = f"{owner}.{name}" if owner else name
            ours = getattr(target, name, None)
            if ours is None:
                lines.append(f"| `{shown}` | no | all | {REASONS[name]} |")
                continue
            taken = inspect.signature(ours).parameters
            lacking = [argument for argument in arguments if argument not in taken]
            if lacking:
                reasons = "; ".join(dict.fromkeys(REASONS[argument] for argument in lacking))
                lines.append(f"| `{shown}` | `{place}` | {', '.join(f'`{each}`' for each in lacking)} | {reasons} |")
            else:
                same.append(f"`{shown}`")
    note = (
        "Methods of `EfficientNet` here are those of `pimm.models.interface.ImageModel`, which all models have. As in "
        "timm, with all arguments: "
    )
    values = (
        "`tests/parity/test_timm_interface.py` compares features, head, feature maps and settings of every model "
        "with timm's. Three things differ. `features_only` keeps no stage behind the last feature map, where timm's "
        "`EfficientNetFeatures` does. The layer `bn1`, which `feature_info` names for the stem as timm does, has its "
        "activation beside it, `act1`. Recomputation (`set_grad_checkpointing`) leaves running statistics of batch "
        "norm alone, which PyTorch's moves twice."
    )
    return [*lines, "", note + ", ".join(same) + ".", "", values]
