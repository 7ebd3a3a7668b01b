"""Image models, and what it takes to train them, on PaddlePaddle: timm's names, arguments and numbers.

`import pimm` costs nothing: the names of this package are imported when they are first used.
"""

import warnings

import lazy_loader

import pimm.mkl  # before Paddle multiplies matrices
import pimm.threads  # noqa: F401  (before Paddle, which changes OMP_NUM_THREADS)

__version__ = "0.1.0"  # of the distribution too

# Paddle looks for a compiler cache on import and warns of its absence, which does not matter here.
warnings.filterwarnings("ignore", message="No ccache found")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["data", "engine", "errors", "layers", "loss", "models", "ops", "optim", "scheduler", "utils"],
    submod_attrs={
        "models": [
            *("create_model", "get_pretrained_cfg", "get_pretrained_cfg_value", "is_model", "list_models"),
            *("list_modules", "list_pretrained", "model_entrypoint", "register_model"),
        ]
    },
)
