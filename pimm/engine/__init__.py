"""Training and evaluation of classifiers: the loop, its steps, and the run's records."""

from pimm.engine.evaluation import evaluate, train_mode

__all__ = ["evaluate", "train_mode"]
