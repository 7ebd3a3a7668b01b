"""Settings: their schema, how they are read, checked and written."""

from cream.config.load import dump, load_config
from cream.config.schema import Config

__all__ = ["Config", "dump", "load_config"]
