"""Learning-rate schedules under timm's names."""

from pimm.scheduler.cycles import CosineLRScheduler, TanhLRScheduler
from pimm.scheduler.decays import LinearLRScheduler, PlateauLRScheduler, StepLRScheduler
from pimm.scheduler.scheduler import Scheduler
from pimm.scheduler.scheduler_factory import create_scheduler

__all__ = [
    "CosineLRScheduler",
    "LinearLRScheduler",
    "PlateauLRScheduler",
    "Scheduler",
    "StepLRScheduler",
    "TanhLRScheduler",
    "create_scheduler",
]
