"""The number of threads that the user asked for, read before Paddle is imported and changes it."""

import os


def _threads_asked_for():
    """Return OMP_NUM_THREADS if the user has set it.

    Paddle sets it to 1 on import, and for the processes of its launcher.
    """
    asked = os.environ.get("OMP_NUM_THREADS")
    return None if asked == "1" and "PADDLE_LOCAL_SIZE" in os.environ else asked


THREADS = _threads_asked_for()
