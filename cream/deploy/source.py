"""A trained net by where it is: the folder of a run, a checkpoint, or a file of weights."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sized
from dataclasses import replace
from pathlib import Path

from paddle import nn

from cream import build, typed
from cream.build.families import child_net
from cream.build.noted import recorded_settings, with_spos_preprocessing
from cream.build.retraining import check_named_net
from cream.config.load import load_config
from cream.convert.convert import net_of_file
from cream.convert.names import Net, find_net
from cream.convert.verify import SPOS_PREPROCESSING
from cream.deploy.backends import ONNX_ALONE, ONNX_FILE, Backend, EngineNet, OnnxNet, require_files
from cream.deploy.onnx_file import require
from cream.deploy.settings import SETTINGS, InferenceSettings, read_settings
from cream.space import Arch, format_arch, parse_arch
from cream.supernet import SuperNet
from pimm.data import resolve_data_config
from pimm.data.imagenet import describe_classes, imagenet_classes
from pimm.engine.inference import open_engine
from pimm.engine.program import PADDLE_FILES, PaddleNet
from pimm.errors import ConfigError
from pimm.models import is_model, load_checkpoint
from pimm.options import make_inference_parser
from pimm.scripts import IMAGE_MODES, answer_from_checkpoint, build_model, find_checkpoint
from pimm.utils import file_sha256
from pimm.utils.checkpoint import EMA, MANIFEST, MODEL, recorded_classes
from pimm.utils.checkpoint_saver import BEST
from pimm.utils.model_record import read_record

_logger = logging.getLogger(__name__)

_NOTED = re.compile(r"(cream|spos)-")  # begins the name that a checkpoint has of a net of cream
_FOUND, _RECIPE, _CONFIG = "architecture.pdparams", "retrain.yaml", "config.yaml"
_RECIPES = (".yaml", ".yml")
_NAMING = (".json", *_RECIPES)  # files that name a net
_RETRAINED = "NET.SELECTION"  # a setting that each retraining has
_NOTHING = "{}: nothing is there; must be the folder of a run, a checkpoint or a file of weights"
_NO_WEIGHTS = "random weights"


def load(
    source: str | Path,
    model: str = "auto",
    spos_preprocessing: bool = False,
    model_kwargs: dict | None = None,
    untrained: bool = False,
) -> tuple[nn.Layer, InferenceSettings]:
    """Return a trained net in evaluation mode, and how it sees images.

    Args:
        source: the folder of a search (the net that it found, with the supernet's weights) or of another training
            (its best checkpoint, averaged weights if it has them), a checkpoint's folder, or a file of weights,
            PyTorch's included.
        model: the net of a file of weights, as ``convert-weights --model`` takes it, or an architecture's ``.json``;
            ``auto`` tells it by the weights.
        spos_preprocessing: whether the net of a file of weights sees images as those of SPOS's authors do.
        model_kwargs: further arguments of a model of pimm, in place of those that are noted with the weights.
        untrained: whether ``source`` may be the name of a net, as ``model`` names it, which has random weights then.

    Raises:
        ConfigError: ``source`` is none of these, or its net is not known, or takes no further arguments.
        CheckpointError: the weights are damaged, or do not fit the net.
    """
    path = Path(source)
    if untrained and (not path.exists() or path.suffix in _NAMING):
        return _untrained(str(source), spos_preprocessing, model_kwargs)
    if not path.exists():
        raise ConfigError(_NOTHING.format(path))
    if (path / SETTINGS).is_file():
        raise ConfigError(
            f"{path} is an exported net, which {typed.script('predict')} runs; must be a run or its weights"
        )
    net, settings = _trained(path, model, spos_preprocessing, model_kwargs)
    if model_kwargs and _NOTED.match(settings.model):
        raise ConfigError(f"{path} holds {settings.model:.80}: --model-kwargs are for models of pimm, and this is none")
    return net, settings


def _trained(
    path: Path, model: str, spos_preprocessing: bool, model_kwargs: dict | None
) -> tuple[nn.Layer, InferenceSettings]:
    """Load the net of a run, a checkpoint or a file of weights; arguments as of `load`."""
    if path.is_dir() and (path / _FOUND).is_file() and (path / _RECIPE).is_file():
        path = path / _FOUND
    found = path.name == _FOUND and (path.parent / _RECIPE).is_file()
    if model != "auto" and (found or path.is_dir()):
        raise ConfigError(f"{path} names its net itself: --model {model:.80} is for a file of weights")
    if found:
        classes = recorded_classes(path.parent) or recorded_classes(path.parent.parent)
        return _of_settings(path.parent / _RECIPE, path, False, classes)
    if path.is_file():
        return _of_weights(path, model, spos_preprocessing, model_kwargs)
    config = next((folder / _CONFIG for folder in (path, path.parent) if (folder / _CONFIG).is_file()), None)
    if config is None:
        return _of_training(path, None, model_kwargs)
    weights, use_ema = build.weights_to_test(replace(load_config(config), RESUME_PATH=str(path)))
    return _of_settings(config, weights, use_ema, recorded_classes(weights))


def _of_weights(path, model, spos_preprocessing, model_kwargs):
    """Load the net that ``model`` names for a file of weights, or the net that the file itself notes."""
    arch, noted = _noted_model(path)
    classes = noted.get("classes")
    if model.endswith(_RECIPES):
        return _of_config(with_spos_preprocessing(load_config(model), spos_preprocessing), path, None, classes)
    if is_model(noted.get("model") or "") and (model == "auto" or is_model(model)):
        return _of_training(path, None if model == "auto" else model, model_kwargs)
    if model == "auto" and _RETRAINED in noted:
        settings = with_spos_preprocessing(recorded_settings(path, noted), spos_preprocessing)
        return _of_config(settings, path, None, classes)
    return _of_file(path, arch if model == "auto" else model, spos_preprocessing, model_kwargs, classes)


def open_source(
    source: str | Path,
    model: str = "auto",
    spos_preprocessing: bool = False,
    model_kwargs: dict | None = None,
    onnx: bool = False,
    engine: str = "auto",
    precision: str | None = None,
    images: Sized = (),
) -> tuple[Backend, InferenceSettings]:
    """Return what computes logits, and how it sees images, for an exported net or any ``source`` of `load`.

    Args:
        source, model, spos_preprocessing, model_kwargs: as of `load`.
        onnx: whether to run the ONNX file of an exported net.
        engine: as of `pimm.engine.open_engine`; an exported net has no eager one.
        precision: as of `pimm.engine.open_engine`; None for fp32, or the precision of an exported net.
        images: the images to come; their number is asked for once the net is loaded.

    Raises:
        ConfigError: as of `load` and `pimm.engine.open_engine`; with ``onnx``, ``source`` is no exported net, or
            onnxruntime is not installed.
    """
    path = Path(source)
    if (path / SETTINGS).is_file():
        return _open_export(path, onnx, engine, precision)
    if onnx:
        raise ConfigError(
            f"--onnx runs {ONNX_FILE} of an exported net, and {path} is none: {typed.script('export')} makes one"
        )
    net, settings = load(path, model, spos_preprocessing, model_kwargs)
    return EngineNet(open_engine(net, settings.input_size, engine, precision or "fp32", len(images))), settings


def _open_export(folder: Path, onnx: bool, engine: str, precision: str | None) -> tuple[Backend, InferenceSettings]:
    """Return what computes logits with an exported net, and how the net sees images."""
    settings = read_settings(folder)
    if engine == "eager":
        raise ConfigError(f"{folder} is an exported net, which has no layers for --engine eager; must be a run")
    if onnx or settings.precision in ONNX_ALONE:
        if precision is not None:
            raise ConfigError(f"--precision {precision} is of Paddle Inference, and {ONNX_FILE} has its own precision")
        require("onnxruntime")
        return OnnxNet(folder), settings
    require_files(folder, *PADDLE_FILES)
    return PaddleNet(folder, (precision or settings.precision) == "bf16"), settings


def _of_settings(config: Path, weights: Path, use_ema: bool, classes) -> tuple[nn.Layer, InferenceSettings]:
    """Load the net that a file of cream's settings names."""
    return _of_config(load_config(config), weights, use_ema, classes)


def _of_config(cfg, weights: Path, use_ema: bool | None, classes) -> tuple[nn.Layer, InferenceSettings]:
    """Load the net that cream's settings name."""
    check_named_net(cfg)
    spec, net = child_net(cfg)
    load_checkpoint(net, weights, use_ema)
    images = build.image_settings(cfg, spec.resolution)
    name = f"{'spos' if cfg.SUPERNET.FAMILY == 'shuffle' else 'cream'}-{format_arch(spec.arch)}"
    return _finished(net, name, images, classes, _file_of(weights, use_ema))


def _of_training(path: Path, model: str | None, model_kwargs: dict | None) -> tuple[nn.Layer, InferenceSettings]:
    """Load the net of a training by tools/pimm_train.py; arguments that are not None replace those that are noted."""
    if (path / BEST).is_dir():
        path = path / BEST
    checkpoint = find_checkpoint(path)
    args = make_inference_parser().parse_args([])
    args.model, args.model_kwargs = model, model_kwargs
    answer_from_checkpoint(args, checkpoint)
    net = build_model(args)
    if args.input_img_mode not in (None, "", IMAGE_MODES.get(args.in_chans)):
        raise ConfigError(
            f"{path} was trained on images of mode {args.input_img_mode}; must be RGB, or L for 1 channel"
        )
    use_ema = (checkpoint / EMA).is_file() if checkpoint.is_dir() else None
    load_checkpoint(net, checkpoint, use_ema)
    images = {**resolve_data_config(vars(args), model=net, use_test_size=True), "channel_order": "rgb"}
    return _finished(net, args.model, images, args.classes, _file_of(checkpoint, use_ema))


def _noted_model(path: Path) -> tuple[str, dict]:
    """Return the name of the net that is noted with a file of weights, ``auto`` if none is, and its settings."""
    record = read_record(path)
    arch = record.get("arch", "")
    return arch if _NOTED.match(arch) or is_model(arch) else "auto", record.get("args", {})


def _of_file(
    path: Path, model: str, spos_preprocessing: bool, model_kwargs: dict | None, classes=None
) -> tuple[nn.Layer, InferenceSettings]:
    """Load the net whose weights are in a file."""
    found = net_of_file(path, _named(model), model_kwargs)
    net = found.build()
    if isinstance(net, SuperNet):
        raise ConfigError(f"{path} holds {found.name}, a supernet of many paths; must be the weights of one net")
    load_checkpoint(net, path, None)
    return _finished(net, found.name, _images(found, net, spos_preprocessing), classes, path)


def _untrained(name: str, spos_preprocessing: bool, model_kwargs: dict | None) -> tuple[nn.Layer, InferenceSettings]:
    """Build the net of a name, for the classes of ImageNet, with random weights."""
    try:
        shapes = {"classifier.bias": (len(imagenet_classes()),)}
        found = find_net(_named(name), shapes, model_kwargs=model_kwargs)
    except ConfigError as error:
        raise ConfigError(f"{_NOTHING.format(name)}, or a net's name: {error}") from None
    net = found.build()
    if isinstance(net, SuperNet):
        raise ConfigError(f"{name} is a supernet of many paths; must be one net")
    _logger.warning("%s has random weights: give a file of weights as SOURCE, and --model %s", name, name)
    return _finished(net, found.name, _images(found, net, spos_preprocessing), None, None)


def _named(model: str) -> str:
    """Return the name of a net; that of an architecture's file is the ``retrain.yaml`` beside it, or Cream's net."""
    if not model.endswith(".json"):
        return model
    recipe = Path(model).with_name(_RECIPE)
    return str(recipe) if recipe.is_file() else f"cream-{format_arch(_arch_in(Path(model)))}"


def _arch_in(path: Path) -> Arch:
    """Read the architecture of one of Cream's nets from JSON: lists of lists, or an object that holds them."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return parse_arch(content["arch"] if isinstance(content, dict) else content)
    except (ValueError, KeyError, RecursionError) as error:
        raise ConfigError(f"{path} is no architecture in JSON: {error}") from None


def _images(found: Net, net: nn.Layer, spos_preprocessing: bool) -> dict:
    """Return how images become the input of the net of a name."""
    given = {"img_size": found.resolution, "in_chans": found.in_chans}
    images = resolve_data_config({**given, **(SPOS_PREPROCESSING if spos_preprocessing else {})}, model=net)
    images["channel_order"] = "bgr" if spos_preprocessing else "rgb"
    return images


def _finished(net: nn.Layer, name: str, images: dict, classes, file: Path | None) -> tuple[nn.Layer, InferenceSettings]:
    """Return the net in evaluation mode, and its settings."""
    net.eval()
    if not net.num_classes:
        raise ConfigError(f"{file or name}: the net has no classifier, so that it tells no classes")
    names = describe_classes(classes, net.num_classes)
    source, checksum = (str(file), file_sha256(file)) if file else (_NO_WEIGHTS, "")
    return net, InferenceSettings(model=name, **images, class_names=names, source=source, sha256=checksum)


def _file_of(weights: Path, use_ema: bool | None) -> Path:
    """Return the file with the weights of a checkpoint, which may be a file itself."""
    return weights / (EMA if use_ema else MODEL) if (weights / MANIFEST).is_file() else weights
