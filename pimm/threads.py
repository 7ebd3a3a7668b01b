"""The number of threads: what the user asked for, read before Paddle is imported and changes it, or the cores."""

import os


def _threads_asked_for():
    """Return OMP_NUM_THREADS if the user has set it.

    Paddle sets it to 1 on import, and for the processes of its launcher.
    """
    asked = os.environ.get("OMP_NUM_THREADS")
    return None if asked == "1" and "PADDLE_LOCAL_SIZE" in os.environ else asked


THREADS = _threads_asked_for()
_in_use = None  # what `use_threads` was told last; Paddle alone takes THREADS, or one


def thread_count():
    """Return how many threads an operator takes on a CPU: OMP_NUM_THREADS, or else the cores of this process.

    The processes of a launch share the cores of a machine evenly.
    """
    if THREADS:
        return int(THREADS.partition(",")[0])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("PADDLE_LOCAL_SIZE", "1")))


def use_threads(count):
    """Let operators on a CPU take this many threads; call after Paddle's import."""
    global _in_use
    from paddle.base import core  # late: this module is imported before Paddle

    _in_use = count
    core.set_num_threads(count)


def restore_threads():
    """Let operators on a CPU take as many threads as before Paddle Inference, which leaves them one after each run."""
    use_threads(_in_use or (thread_count() if THREADS else 1))
