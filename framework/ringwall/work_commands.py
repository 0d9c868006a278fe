"""What `ringwall work` does: take up runs of an app until a signal says that it is enough."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from types import FrameType
from typing import Final

from ringwall.app import App
from ringwall.deployment.journal import InMemoryJournal, Journal
from ringwall.deployment.sealing import SealedJournal
from ringwall.errors import ConfigurationError
from ringwall.named_app import app_named

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def work(name: str, *, every: float, concurrency: int) -> None:
    """Take up runs of the app `module:name` until SIGTERM or SIGINT. Raises `ConfigurationError`.

    Then runs under way are put down between two calls, and the lease is given back: others take them up at once.
    """
    app = app_named(name)
    _check_shared(app.journal)
    if sys.stderr.isatty():
        sys.stderr.write(f"taking up runs of {app.name!r}; Ctrl-C ends\n")
    with _told_to_end() as told, app:
        app.run_sync(_until(told, app, every, concurrency))


async def _until(told: Future[None], app: App, every: float, concurrency: int) -> None:
    working = asyncio.ensure_future(app.work(every=every, concurrency=concurrency))
    ended = asyncio.wrap_future(told)
    await asyncio.wait((working, ended), return_when=asyncio.FIRST_COMPLETED)
    working.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await working  # raises what it failed with, if it did


@contextlib.contextmanager
def _told_to_end() -> Iterator[Future[None]]:
    """Is done when the first signal comes; the second ends the process where it stands."""
    told: Future[None] = Future()

    def tell(_number: int, _frame: FrameType | None) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        told.set_result(None)

    before = {each: signal.signal(each, tell) for each in _SIGNALS}
    try:
        yield told
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _check_shared(journal: Journal) -> None:
    inner = journal.inner if isinstance(journal, SealedJournal) else journal
    if isinstance(inner, InMemoryJournal):
        raise ConfigurationError(
            "the app keeps its journal in its own process: there is nothing that another could take up",
            expected="a journal in a database, as `ringwall_sql.SqlJournal`",
        )


__all__ = ["work"]
