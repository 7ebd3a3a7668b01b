"""Image models, and what it takes to train them, on PaddlePaddle: timm's names, arguments and numbers."""

from pimm.models import create_model, is_model, list_models, model_entrypoint, register_model

__all__ = ["create_model", "is_model", "list_models", "model_entrypoint", "register_model"]
