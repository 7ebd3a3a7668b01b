"""The commands ``cream-export`` and ``cream-predict``: their arguments, and what they write and print."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cream import typed
from pimm.cli import Parser, at_least, run, use_cores
from pimm.errors import ConfigError
from pimm.options import add_engine_options
from pimm.output_paths import check_output_paths
from pimm.parse_kwargs import add_model_kwargs


def export(argv: Sequence[str] | None = None) -> int:
    """Export a trained net (``cream-export``, ``tools/export.py``)."""

    def job() -> None:
        parser = _source_parser(
            "Export a trained net to Paddle Inference, and to ONNX; the export is compared with the net.",
            f"example: {typed.command('export')} output/search_retrain --output exported --onnx",
        )
        parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder of the exported net")
        parser.add_argument(
            "--onnx", action="store_true", help="write model.onnx too; needs paddle2onnx and onnxruntime"
        )
        lower = parser.add_mutually_exclusive_group()
        lower.add_argument(
            "--precision",
            choices=("fp32", "bf16", "fp16"),
            default="fp32",
            help="bf16 runs in Paddle Inference on a CPU that has it, fp16 is model.onnx alone (default: fp32)",
        )
        lower.add_argument(
            "--quantize", metavar="IMAGES", help="write model.onnx alone, in INT8 calibrated on a folder or tar file"
        )
        parser.add_argument(
            "--quantize-images", type=at_least(1), default=100, metavar="N", help="to calibrate on (default: 100)"
        )
        args = parser.parse_args(argv)
        use_cores()
        _export(args)

    return run(job)


def _export(args: argparse.Namespace) -> None:
    """Export a net as the arguments say, and print how much it differs."""
    from cream.deploy import export as exporting  # late: imports Paddle
    from cream.deploy.backends import EagerNet, OnnxNet
    from cream.deploy.photographs import Photographs, draw_photographs, measure_accuracy
    from cream.deploy.source import load

    if args.quantize == "":
        raise ConfigError("--quantize is empty; must be a folder of images or a tar file")
    exporting.check_folder(args.output)
    precision = "int8" if args.quantize is not None else args.precision
    exporting.check_precision(precision, args.onnx)
    net, settings = load(args.source, args.model, args.spos_preprocessing, args.model_kwargs, untrained=True)
    settings = replace(settings, precision=precision)
    shown = others = Photographs([], [])
    if args.quantize:
        shown, others = draw_photographs(args.quantize, settings, args.quantize_images)
    differences = exporting.export(net, settings, args.output, args.onnx, shown.images)
    if args.quantize:
        accuracy = measure_accuracy(EagerNet(net), OnnxNet(args.output), others if others.images else shown)
        where = "other images" if others.images else "the images of the calibration, for there are no others"
        print(f"{args.output / 'model.onnx'}: INT8, calibrated on {len(shown.images)} images; on {where}: {accuracy}")
        return
    for name, difference in differences.items():
        print(f"{args.output / name}: logits differ by at most {difference:.1e} from the net's")


def predict(argv: Sequence[str] | None = None) -> int:
    """Print the likeliest classes of images (``cream-predict``, ``tools/predict.py``)."""

    def job() -> None:
        parser = _source_parser(
            "Tell the likeliest classes of images.",
            f"example: {typed.command('predict')} output/search_retrain photographs/ --output classes.csv",
            ", or of an exported net",
        )
        parser.add_argument("images", nargs="+", metavar="IMAGES", help="image, folder of images or tar file")
        parser.add_argument("--output", type=Path, metavar="FILE", help="write the classes, as .csv or .json")
        parser.add_argument("--topk", type=at_least(1), default=5, metavar="N", help="classes an image (default: 5)")
        parser.add_argument("--batch-size", "-b", type=at_least(1), default=32, metavar="N", help="(default: 32)")
        parser.add_argument("--onnx", action="store_true", help="run an exported net's model.onnx, by onnxruntime")
        parser.add_argument(
            "--workers", "-j", type=at_least(0), default=4, metavar="N", help="processes that read images (default: 4)"
        )
        add_engine_options(parser, precision=None)
        args = parser.parse_args(argv)
        use_cores()
        from cream.deploy import predict as predicting  # late: imports Paddle
        from cream.deploy.source import open_source

        if args.output is not None:
            predicting.check_results_file(args.output)
            files = {f"IMAGES {path}": path for path in args.images if Path(path).is_file()}
            files.update({f"--model {args.model}": args.model, f"SOURCE {args.source}": args.source})
            check_output_paths({"--output": args.output}, files)
        images = predicting.ImageFiles(args.images)
        named = (args.source, args.model, args.spos_preprocessing, args.model_kwargs)
        engine = {"engine": args.engine, "precision": args.precision, "images": images}
        backend, settings = open_source(*named, onnx=args.onnx, **engine)
        found = []
        for guesses in predicting.predict(backend, settings, images, args.topk, args.batch_size, args.workers):
            print(f"{guesses[0].image}: " + "; ".join(f"{guess.name} {guess.probability:.4f}" for guess in guesses))
            found += [guesses] if args.output else []
        if args.output is not None:
            predicting.write_guesses(args.output, found)

    return run(job)


def _source_parser(description: str, example: str, also: str = "") -> Parser:
    """Return a parser of the arguments that name a trained net."""
    parser = Parser(config_file=False, description=description, epilog=example)
    parser.add_argument(
        "source",
        type=Path,
        metavar="SOURCE",
        help=f"folder of a search or another training{also}, a checkpoint's folder, or a file of weights, PyTorch's "
        "included",
    )
    parser.add_argument(
        "--model", default="auto", metavar="NAME", help="net of a file of weights (default: told by the weights)"
    )
    add_model_kwargs(parser)
    parser.add_argument(
        "--spos-preprocessing", action="store_true", help="show images to a file's net as SPOS's authors do"
    )
    return parser
