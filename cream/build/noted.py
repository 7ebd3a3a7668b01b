"""The settings of a retraining, as they are noted with its weights."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import yaml

from cream.config import Config
from cream.config.keys import KEYS
from cream.config.load import load_config
from pimm.errors import CheckpointError, ConfigError


def recorded_settings(path: Path, noted: Mapping[str, object]) -> Config:
    """Return the settings of a retraining that are noted with its weights.

    Args:
        path: the weights, for messages.
        noted: the settings, ``{"SECTION.KEY": value}``.

    Raises:
        CheckpointError: the note is damaged, or names a file that is gone.
    """
    sections: dict = {}
    for name, value in noted.items():
        if name in KEYS and value is not None:
            *above, leaf = name.split(".")
            place = sections
            for section in above:
                place = place.setdefault(section, {})
            place[leaf] = value
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.yaml"
        file.write_text(yaml.safe_dump(sections), encoding="utf-8")
        try:
            return load_config(file, beside=False)
        except ConfigError as error:
            reason = str(error).replace(str(file), "the settings")
            raise CheckpointError(f"{path}: the note of its retraining cannot be used: {reason:.250}") from None


def with_spos_preprocessing(cfg: Config, asked: bool) -> Config:
    """Return the settings; if ``asked``, the net sees images as those of SPOS's authors do."""
    return replace(cfg, DATASET=replace(cfg.DATASET, SPOS_PREPROCESSING=True)) if asked else cfg
