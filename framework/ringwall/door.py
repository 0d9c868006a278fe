"""The one synchronous door: from plain code, on any thread, into the async inside."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from ringwall.errors import InvalidInput

T = TypeVar("T")


class Door:
    """Runs coroutines to their end on an event loop of its own, in a thread that starts when first needed.

    The thread ends when the door is closed, or nobody holds it any more.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: Callable[[], object] | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return what `work` returns. Raises what it raises, and `InvalidInput` when called from async code."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            future = asyncio.run_coroutine_threadsafe(work, self._open())
            return _result(future)
        work.close()
        raise InvalidInput("the synchronous door was opened from async code", hint="`await` the call itself")

    def close(self) -> None:
        """End the thread and its loop; closing twice, or before anything ran, is fine."""
        with self._lock:
            if self._thread is not None and self._end is not None:
                self._end()
                self._thread.join()
            self._thread = self._loop = self._end = None

    def _open(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
                self._thread = threading.Thread(target=_serve, args=(ready,), name="ringwall", daemon=True)
                self._thread.start()
                self._loop, closing = ready.result()
                self._end = weakref.finalize(self, _end, self._loop, closing)
            return self._loop


def _serve(ready: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]) -> None:
    async def serve() -> None:
        closing = asyncio.Event()
        ready.set_result((asyncio.get_running_loop(), closing))
        await closing.wait()

    asyncio.run(serve())


def _end(loop: asyncio.AbstractEventLoop, closing: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop ended already
        loop.call_soon_threadsafe(closing.set)


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except BaseException:  # an interrupt of the waiting thread must stop the work too
        future.cancel()
        raise
