"""Save models in the form that timm loads, and push them to the Hugging Face Hub; names and arguments are timm's."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pimm
from pimm.errors import CheckpointError, ConfigError
from pimm.messages import did_you_mean
from pimm.models.hub_files import CONFIG, SAFE_WEIGHTS, WEIGHTS, hub_endpoint, hub_library
from pimm.models.torch_names import to_torch_arrays
from pimm.torch_file import save_torch
from pimm.utils.safetensors_file import dump_safetensors
from pimm.utils.serialization import atomic_file, write_text

_SOURCES = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "label_offset"}
_OF_WEIGHTS = ("label_names", "label_descriptions")  # settings that are of the weights' own classes
_SERIALIZATIONS = {True: (SAFE_WEIGHTS,), False: (WEIGHTS,), "both": (SAFE_WEIGHTS, WEIGHTS)}
_HEADINGS = {  # of a model card
    "description": "",
    "details": "## Model Details\n",
    "usage": "## Model Usage\n",
    "comparison": "## Model Comparison\n",
    "citation": "## Citation\n",
}
_OF_FRONT = {"tags", "license", "license_name", "license_link", "library_name"}


def save_for_hf(model, save_directory, model_config=None, model_args=None, safe_serialization=True):
    """Write a model's weights and ``config.json`` into a folder that timm and pimm load by the name ``local-dir:PATH``.

    Args:
        model: a net that `create_model` created.
        save_directory: the folder; it is created if need be, and files of the same names are replaced.
        model_config: further entries of ``config.json``, such as ``label_names``; a dict ``pretrained_cfg`` in it
            replaces settings.
        model_args: arguments of the net beside those, or in place of those, that it was created with.
        safe_serialization: True for ``model.safetensors``, False for ``pytorch_model.bin``, ``"both"`` for both. Names,
            shapes and orientation of the weights are PyTorch's.

    Raises:
        ConfigError: for a net without settings, an argument that JSON cannot hold, and other classes than the net's.
        CheckpointError: if a file cannot be written.
    """
    if safe_serialization not in _SERIALIZATIONS:
        raise ConfigError(f"safe_serialization is {safe_serialization!r:.80}; valid are True, False and 'both'")
    config = model_config_for_hf(model, model_config, model_args)
    try:
        text = json.dumps(config, indent=2)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{CONFIG} cannot hold the settings or arguments of the model: {error!s:.200}") from error
    folder = Path(save_directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"cannot create {folder}: {error.strerror}") from error
    arrays = to_torch_arrays(model, {name: value.numpy() for name, value in model.state_dict().items()})
    for name in _SERIALIZATIONS[safe_serialization]:
        if name == WEIGHTS:
            save_torch(folder / name, arrays)
            continue
        with atomic_file(folder / name) as file:
            dump_safetensors(arrays, file, {"format": "pt"})
    write_text(folder / CONFIG, f"{text}\n")


save_for_hub = save_for_hf


def model_config_for_hf(model, model_config=None, model_args=None):
    """Return the content of ``config.json``; arguments and errors as `save_for_hf`."""
    given = dict(model_config or {})
    cfg = {**_settings(model), **given.pop("pretrained_cfg", {})}
    arguments = {**_arguments(model), **given.pop("model_args", {}), **(model_args or {})}
    for name in ("num_classes", "in_chans"):
        current = _current(model)[name]
        if arguments.get(name) != current or given.get(name, current) != current:
            raise ConfigError(f"{name} must be that of the model, {current}")
    config = {
        "architecture": cfg.pop("architecture"),
        "num_classes": model.num_classes,
        "num_features": model.num_features,
    }
    if arguments.get("global_pool"):
        config["global_pool"] = arguments["global_pool"]
    return {**config, **given, "model_args": arguments, "pretrained_cfg": cfg}


def _settings(model):
    """Return the settings of a model's weights as they are now, without where the first ones came from."""
    source = getattr(model, "pretrained_cfg", None) or {}
    if not source.get("architecture") or not hasattr(model, "num_classes"):
        raise ConfigError(f"{type(model).__name__} has no settings to save: only whole nets of create_model have")
    cfg = {name: value for name, value in source.items() if name not in _SOURCES}
    current, arguments = _current(model), _arguments(model)
    if current["num_classes"] != source.get("num_classes"):
        cfg = {name: value for name, value in cfg.items() if name not in _OF_WEIGHTS}
    for name in ("input_size", "test_input_size", "min_input_size"):
        if cfg.get(name):
            cfg[name] = (current["in_chans"], *cfg[name][1:])
    if cfg.get("fixed_input_size"):
        cfg.pop("test_input_size", None)
        size = tuple(arguments.get("img_size") or cfg["input_size"][1:])
        if size != tuple(cfg["input_size"][1:]):
            cfg.update(input_size=(current["in_chans"], *size), pool_size=None)
    return {**cfg, "num_classes": current["num_classes"], "custom_load": False}


def _current(model):
    arguments = getattr(model, "model_args", {})
    return {"num_classes": model.num_classes, "in_chans": getattr(model, "in_chans", arguments.get("in_chans", 3))}


def _arguments(model):
    """Return the arguments that create such a net again; rates of dropout are those of a training, not of the net."""
    created = getattr(model, "model_args", {})
    arguments = {
        name: value
        for name, value in created.items()
        if name not in ("drop_rate", "drop_path_rate", "drop_block_rate") and not name.endswith("_drop_rate")
    }
    if isinstance(arguments.get("img_size"), int):
        arguments["img_size"] = (arguments["img_size"],) * 2
    pool = _pooling(model)
    return {**arguments, **_current(model), **({} if pool is None else {"global_pool": pool})}


def _pooling(model):
    """Return the kind of a model's pooling, which the head may hold, or None."""
    head = getattr(model, "head", None)
    found = (getattr(head, "global_pool", None), getattr(head, "pool_type", None), getattr(model, "global_pool", None))
    names = (getattr(each, "pool_type", each) for each in found)
    return next((name for name in names if isinstance(name, str)), None)


def push_to_hf_hub(
    model,
    repo_id,
    commit_message="Add model",
    token=None,
    revision=None,
    private=False,
    create_pr=False,
    model_config=None,
    model_card=None,
    model_args=None,
    task_name="image-classification",
    safe_serialization="both",
):
    """Upload a model to the Hugging Face Hub, where timm and `create_model` load it by ``hf-hub:REPO_ID``.

    Args:
        model: a net that `create_model` created.
        repo_id: ``ORG/NAME``; the repository is created if need be.
        commit_message: title of the commit.
        token: access token in place of ``HF_TOKEN`` and of the one that was stored by a login.
        revision: branch, None for the main one.
        private: whether a new repository is private.
        create_pr: whether to open a pull request in place of a commit.
        model_config, model_args, safe_serialization: as in `save_for_hf`.
        model_card: a dict for a new ``README.md``: ``tags``, ``license``, ``description``, ``details`` (a dict),
            ``usage``, ``comparison``, ``citation`` (a text or several).
        task_name: the hub's name of what the model does.

    Returns:
        huggingface_hub's description of the commit.

    Raises:
        ConfigError: as `save_for_hf`, and for a model card with other entries.
        CheckpointError: if the hub refuses the upload, or cannot be reached.
    """
    hub = hub_library()
    card = make_model_card(model_card or {}, str(repo_id).rpartition("/")[2], task_name, _license(model))
    api = hub.HfApi(hub_endpoint(), token=token, library_name="pimm", library_version=pimm.__version__)
    with TemporaryDirectory() as folder:
        save_for_hf(model, folder, model_config, model_args, safe_serialization)
        try:
            repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id  # with the owner
            if not api.file_exists(repo_id, "README.md", revision=revision):
                write_text(Path(folder, "README.md"), card)
            return api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                create_pr=create_pr,
                commit_message=commit_message,
            )
        except hub.utils.HFValidationError as error:
            raise ConfigError(f"{str(repo_id)[:120]!r} names no model of the hub; valid is ORG/NAME") from error
        except CheckpointError:
            raise
        except Exception as error:  # of the packages that speak HTTP, too
            reason = (str(error).strip().splitlines() or [""])[0]
            raise CheckpointError(f"cannot upload to {repo_id}: {type(error).__name__}: {reason:.200}") from error


def _license(model):
    return (getattr(model, "pretrained_cfg", None) or {}).get("license") or "apache-2.0"


def make_model_card(card, name, task_name, license):
    """Return the text of a model's ``README.md``.

    Args:
        card: the entries, as `push_to_hf_hub` takes them.
        name: the model's name.
        task_name: the hub's name of what the model does.
        license: the license if the card has none.

    Raises:
        ConfigError: for an unknown entry.
    """
    known = {*_HEADINGS, *_OF_FRONT}
    for entry in card:
        if entry not in known:
            hint = did_you_mean(entry, known) or f"; valid are {', '.join(sorted(known))}"
            raise ConfigError(f"model_card has no entry {str(entry)[:80]!r}{hint}")
    front = {
        "tags": [f"\n- {tag}" for tag in card.get("tags") or (task_name, "timm")],
        "pipeline_tag": task_name,
        "library_name": card.get("library_name", "timm"),
        "license": card.get("license", license),
        **{key: card[key] for key in ("license_name", "license_link") if key in card},
    }
    lines = [f"{key}:{''.join(value) if isinstance(value, list) else f' {value}'}" for key, value in front.items()]
    parts = [f"{heading}{_as_text(card[entry])}" for entry, heading in _HEADINGS.items() if card.get(entry)]
    return "\n".join(["---", *lines, "---", f"# Model card for {name}", *(f"\n{part}" for part in parts)]) + "\n"


def _as_text(value):
    """Return an entry of a model card as Markdown: lists and dicts become lists of points."""
    if isinstance(value, dict):
        return "\n".join(f"- **{key}:** {each}" for key, each in value.items())
    return "\n".join(value) if isinstance(value, (list, tuple)) else str(value)
