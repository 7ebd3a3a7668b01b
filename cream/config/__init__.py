"""Settings: schema, keys, and how they are read, checked and written."""

from cream.config.dump import dump
from cream.config.load import load_config
from cream.config.schema import Config

__all__ = ["Config", "dump", "load_config"]
