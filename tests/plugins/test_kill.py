"""`kill -9` at random points of a booking run: after resume exactly one booking, every time."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import time
from functools import partial
from pathlib import Path

from tests.plugins.booking_run import build, go_through
from tests.plugins.lives import live

LIVES = 50


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
        live(partial(go_through, folder), kill_after=moments.uniform(0, whole))
        count, status, events = asyncio.run(outcome(folder))
        assert (count, status) == (1, "done")
        assert events > 0


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
