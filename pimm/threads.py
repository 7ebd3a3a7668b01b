"""The number of threads that the user asked for, read before Paddle is imported and changes it."""

import os


def _threads_asked_for():
    """OMP_NUM_THREADS if the user has set it: Paddle does so too, to 1, on import and for the launcher's processes."""
    asked = os.environ.get("OMP_NUM_THREADS")
    return None if asked == "1" and "PADDLE_LOCAL_SIZE" in os.environ else asked


THREADS = _threads_asked_for()
