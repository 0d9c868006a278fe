"""Work in a forked process, which may be killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable, Coroutine


def live(work: Callable[[], Coroutine[object, object, object]], *, kill_after: float | None = None) -> bool:
    """Do `work` in a forked process; kill -9 it after so many seconds. Returns whether it came to its end."""
    child = os.fork()
    if child == 0:
        failed = 1
        with contextlib.suppress(BaseException):
            asyncio.run(work())
            failed = 0
        os._exit(failed)
    until = time.monotonic() + (3600.0 if kill_after is None else kill_after)
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG if kill_after is not None else 0)
        if ended:
            return status == 0
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
