"""Training and evaluation of classifiers: the loop, its steps, and the run's records."""

from pimm.engine.distillation import DistillStep, Teacher
from pimm.engine.evaluation import evaluate, train_mode
from pimm.engine.inference import open_engine
from pimm.engine.loop import Trainer
from pimm.engine.metrics import MeanMetrics
from pimm.engine.run_log import RunLog
from pimm.engine.steps import ClassifyStep, Step, Update

__all__ = [
    "ClassifyStep",
    "DistillStep",
    "MeanMetrics",
    "RunLog",
    "Step",
    "Teacher",
    "Trainer",
    "Update",
    "evaluate",
    "open_engine",
    "train_mode",
]
