"""Log to the console and to a file."""

from __future__ import annotations

import logging
import logging.handlers

_FILE_BYTES = 2 * 1024**2
_FILE_COPIES = 3
_CHATTY = ("httpx", "httpx2")  # huggingface_hub's, which log each request


class FormatterNoInfo(logging.Formatter):
    """Formats messages of level INFO as they are, and those of other levels with the level's name in front."""

    def __init__(self, fmt="%(levelname)s: %(message)s"):
        super().__init__(fmt)

    def format(self, record):
        return record.getMessage() if record.levelno == logging.INFO else super().format(record)


def setup_default_logging(default_level=logging.INFO, log_path=""):
    """Log to the console and, if ``log_path`` is given, to a rotating file with times and modules."""
    for handler in list(logging.root.handlers):
        if type(handler) is logging.StreamHandler:  # Paddle's, or an earlier call's: lines would come twice
            logging.root.removeHandler(handler)
    console = logging.StreamHandler()
    console.setFormatter(FormatterNoInfo())
    logging.root.addHandler(console)
    logging.root.setLevel(default_level)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(default_level, logging.WARNING))
    if log_path:
        file = logging.handlers.RotatingFileHandler(log_path, maxBytes=_FILE_BYTES, backupCount=_FILE_COPIES)
        file.setFormatter(logging.Formatter("%(asctime)s - %(name)20s: [%(levelname)8s] - %(message)s"))
        logging.root.addHandler(file)
