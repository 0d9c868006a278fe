"""`kill -9` at random points of a booking run: after resume exactly one booking, every time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sqlite3
import time
from pathlib import Path

from tests.plugins.booking_run import build, go_through

LIVES = 50


def killed_after(seconds: float, folder: Path) -> None:
    """Go through the booking in a forked process, and kill that process after `seconds`."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            asyncio.run(go_through(folder))
        os._exit(0)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


async def outcome(folder: Path) -> tuple[int, str, int]:
    await go_through(folder)
    async with build(folder) as app:
        events = await app.verify()
        status = (await app.journal.record("r")).status
    with contextlib.closing(sqlite3.connect(folder / "bookings.db")) as connection:
        (count,) = connection.execute("select count(*) from bookings").fetchone()
    return count, str(status), events


def test_a_booking_run_killed_anywhere_books_exactly_once(tmp_path: Path) -> None:
    began = time.monotonic()
    asyncio.run(outcome(_made(tmp_path / "undisturbed")))
    whole = time.monotonic() - began
    moments = random.Random(7)
    for life in range(LIVES):
        folder = _made(tmp_path / str(life))
        killed_after(moments.uniform(0, whole), folder)
        count, status, events = asyncio.run(outcome(folder))
        assert (count, status) == (1, "done")
        assert events > 0


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
