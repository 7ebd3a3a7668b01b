"""Image models, and what it takes to train them, on PaddlePaddle: timm's names, arguments and numbers."""

import os
import warnings

THREADS_ARE_SET = "OMP_NUM_THREADS" in os.environ  # asked before Paddle is imported, which sets it to 1

# Paddle looks for a compiler cache on import and warns of its absence, which is no concern of anybody's here.
warnings.filterwarnings("ignore", message="No ccache found")

from pimm.models import create_model, is_model, list_models, model_entrypoint, register_model  # noqa: E402

__all__ = ["create_model", "is_model", "list_models", "model_entrypoint", "register_model"]
