"""Step a schedule inside ``paddle.Model.fit``."""

from __future__ import annotations

import paddle


class ScheduleCallback(paddle.callbacks.Callback):
    """Step a schedule after every update and every epoch of ``paddle.Model.fit``.

    ``fit`` itself only steps Paddle's own schedules.

    Args:
        scheduler: a schedule of this package.
        metric: name of the entry of the epoch's logs that the plateau schedule follows, such as ``loss`` or ``acc``.
    """

    def __init__(self, scheduler, metric=None):
        super().__init__()
        self.scheduler = scheduler
        self.metric = metric
        self.num_updates = 0

    def on_train_batch_end(self, step, logs=None):
        self.num_updates += 1
        self.scheduler.step_update(self.num_updates)

    def on_epoch_end(self, epoch, logs=None):
        value = (logs or {}).get(self.metric)
        self.scheduler.step(epoch + 1, value[0] if isinstance(value, (list, tuple)) else value)
