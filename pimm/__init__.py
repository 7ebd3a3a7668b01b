"""Image models, and what it takes to train them, on PaddlePaddle: timm's names, arguments and numbers."""

import os
import warnings


def _threads_asked_for():
    """OMP_NUM_THREADS if the user has set it: Paddle does so too, to 1, on import and for the launcher's processes."""
    asked = os.environ.get("OMP_NUM_THREADS")
    return None if asked == "1" and "PADDLE_LOCAL_SIZE" in os.environ else asked


THREADS = _threads_asked_for()  # before Paddle is imported

# Paddle looks for a compiler cache on import and warns of its absence, which is no concern of anybody's here.
warnings.filterwarnings("ignore", message="No ccache found")

from pimm.models import create_model, is_model, list_models, model_entrypoint, register_model  # noqa: E402

__all__ = ["create_model", "is_model", "list_models", "model_entrypoint", "register_model"]
