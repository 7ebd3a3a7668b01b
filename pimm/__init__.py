"""Image models, and what it takes to train them, on PaddlePaddle: timm's names, arguments and numbers."""

import warnings

import pimm.threads  # noqa: F401  (before Paddle, which changes what it reads)

# Paddle looks for a compiler cache on import and warns of its absence, which is no concern of anybody's here.
warnings.filterwarnings("ignore", message="No ccache found")

from pimm.models import create_model, is_model, list_models, model_entrypoint, register_model  # noqa: E402

__all__ = ["create_model", "is_model", "list_models", "model_entrypoint", "register_model"]
