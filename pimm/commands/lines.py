"""Command lines of pimm's commands: ``--help`` and mistakes are answered before Paddle is imported."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from pimm import cli, options

RESUME_HINT = "--resume with the folder of the training resumes from its latest checkpoint"


def train(argv: Sequence[str] | None = None) -> int:
    """Train a model (``pimm-train``, ``tools/pimm_train.py``)."""
    return _run("train", options.make_train_parser, argv, RESUME_HINT)


def validate(argv: Sequence[str] | None = None) -> int:
    """Evaluate models (``pimm-validate``, ``tools/pimm_validate.py``)."""
    return _run("validate", options.make_validate_parser, argv)


def inference(argv: Sequence[str] | None = None) -> int:
    """Classify images (``pimm-inference``, ``tools/pimm_inference.py``)."""
    return _run("inference", options.make_inference_parser, argv)


def avg_checkpoints(argv: Sequence[str] | None = None) -> int:
    """Average the weights of checkpoints (``pimm-avg-checkpoints``, ``tools/avg_checkpoints.py``)."""
    return _run("avg_checkpoints", options.make_average_parser, argv)


def _run(name, make_parser, argv, resume_hint=""):
    def job():
        make_parser().parse_args(argv)
        importlib.import_module(f"pimm.commands.{name}").main(argv)  # late: imports Paddle

    return cli.run(job, resume_hint)
