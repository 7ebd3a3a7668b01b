"""The errors that are meant for people: a message says what is wrong, where, and what would be valid."""

import numbers


class PimmError(Exception):
    """A mistake that the user can mend; command-line tools print its message alone and exit with 2."""


class ConfigError(PimmError, ValueError):
    """A setting, name or architecture that cannot be used."""


class DataError(PimmError, RuntimeError):
    """A data set, image or archive that cannot be read."""


class CheckpointError(PimmError, RuntimeError):
    """A checkpoint that is damaged, unreadable or belongs to another net."""


class TrainingError(PimmError, RuntimeError):
    """A training that cannot go on, such as one whose loss is no longer finite."""


def check_whole(name: str, value: object, least: int) -> None:
    """Raise ConfigError for an argument that is not a whole number of at least ``least``."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} is {value!r:.80}; must be a whole number of at least {least}")
