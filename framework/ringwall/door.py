"""The one synchronous door: from plain code, on any thread, into the async inside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from ringwall.errors import InvalidInput

T = TypeVar("T")


class Door:
    """Runs coroutines to their end on an event loop of its own, in a thread that starts when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event | None = None

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
            if self._thread is not None and self._loop is not None and self._closing is not None:
                self._loop.call_soon_threadsafe(self._closing.set)
                self._thread.join()
            self._thread = self._loop = self._closing = None

    def _open(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                ready: Future[asyncio.AbstractEventLoop] = Future()
                self._thread = threading.Thread(target=self._serve, args=(ready,), name="ringwall", daemon=True)
                self._thread.start()
                self._loop = ready.result()
            return self._loop

    def _serve(self, ready: Future[asyncio.AbstractEventLoop]) -> None:
        async def serve() -> None:
            self._closing = closing = asyncio.Event()
            ready.set_result(asyncio.get_running_loop())
            await closing.wait()

        asyncio.run(serve())


def _result(future: Future[T]) -> T:
    try:
        return future.result()
    except BaseException:  # an interrupt of the waiting thread must stop the work too
        future.cancel()
        raise
