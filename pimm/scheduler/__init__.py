"""Learning-rate schedules under timm's names."""

from pimm.scheduler.callback import ScheduleCallback
from pimm.scheduler.cosine_lr import CosineLRScheduler
from pimm.scheduler.linear_lr import LinearLRScheduler
from pimm.scheduler.multistep_lr import MultiStepLRScheduler
from pimm.scheduler.plateau_lr import PlateauLRScheduler
from pimm.scheduler.poly_lr import PolyLRScheduler
from pimm.scheduler.scheduler import Scheduler
from pimm.scheduler.scheduler_factory import create_scheduler, create_scheduler_v2, scheduler_kwargs
from pimm.scheduler.step_lr import StepLRScheduler
from pimm.scheduler.tanh_lr import TanhLRScheduler
from pimm.scheduler.wsd_lr import WSDLRScheduler

__all__ = [
    "CosineLRScheduler",
    "LinearLRScheduler",
    "MultiStepLRScheduler",
    "PlateauLRScheduler",
    "PolyLRScheduler",
    "ScheduleCallback",
    "Scheduler",
    "StepLRScheduler",
    "TanhLRScheduler",
    "WSDLRScheduler",
    "create_scheduler",
    "create_scheduler_v2",
    "scheduler_kwargs",
]
