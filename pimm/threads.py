"""The number of threads: what the user asked for, read before Paddle is imported and changes it, or the cores."""

import os


def _threads_asked_for():
    """Return OMP_NUM_THREADS if the user has set it.

    Paddle sets it to 1 on import, and for the processes of its launcher.
    """
    asked = os.environ.get("OMP_NUM_THREADS")
    return None if asked == "1" and "PADDLE_LOCAL_SIZE" in os.environ else asked


THREADS = _threads_asked_for()


def thread_count():
    """Return how many threads an operator takes on a CPU: OMP_NUM_THREADS, or else the cores of this process.

    The processes of a launch share the cores of a machine evenly.
    """
    if THREADS:
        return int(THREADS.partition(",")[0])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("PADDLE_LOCAL_SIZE", "1")))
