"""Cream of the Crop: search, retrain and test image networks.

`import cream` costs nothing: the names of this package are imported when they are first used.
"""

import lazy_loader

from pimm import __version__  # noqa: F401  (pimm before Paddle, which changes OMP_NUM_THREADS)
from pimm.model_packages import add_models_of, add_net_loader

add_models_of("cream.registered")
add_net_loader("cream.deploy.source:load")

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["cli", "config", "convert", "flops", "jobs", "mobile", "shuffle", "space", "supernet"],
    submod_attrs={
        "deploy.source": ["load"],
        "nni": [
            "CreamSupernetTrainer",
            "CreamSupernetTrainingMutator",
            "SPOSEvolution",
            "SPOSSupernetTrainer",
            "SPOSSupernetTrainingMutator",
        ],
    },
)
