"""NNI 2.5's names for the two searches: supernet, loss, optimizer and loaders are the user's own.

``docs/api.md`` has a supernet in 25 lines and a search in ten; nothing is written where no folder is named.
"""

from cream.nni.evolution import SPOSEvolution
from cream.nni.mutator import CreamSupernetTrainingMutator, SPOSSupernetTrainingMutator
from cream.nni.trainer import CreamSupernetTrainer, SPOSSupernetTrainer

__all__ = [
    "CreamSupernetTrainer",
    "CreamSupernetTrainingMutator",
    "SPOSEvolution",
    "SPOSSupernetTrainer",
    "SPOSSupernetTrainingMutator",
]
