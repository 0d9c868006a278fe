"""What the engine tells, on its way to the event loops of those who listen."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from typing import Final

from ringwall.errors import RingwallError
from ringwall.model.base import Delta
from ringwall_llama.job import Listener

Item = Delta | RingwallError | None


_TOGETHER: Final = 0.01
"""Seconds in which pieces of replies are sent together: a hundred times a second is more than anybody reads."""


class Post:
    """Collects what is told, and sends it to each loop at once.

    Who is woken takes the interpreter's lock and a processor, so nobody is woken more often than it serves them, and
    only when the engine does not need the lock: while llama.cpp computes the next step.
    """

    def __init__(self) -> None:
        self._told: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Item], Item]]] = {}
        self._lock = threading.Lock()
        """An engine that is begun anew tells before the one that failed has told all."""
        self._is_urgent = False
        self._sent = 0.0

    def put(self, loop: asyncio.AbstractEventLoop, box: asyncio.Queue[Item], item: Item) -> None:
        with self._lock:
            self._told.setdefault(loop, []).append((box, item))
            self._is_urgent = self._is_urgent or not isinstance(item, Delta)

    def send_if_due(self) -> None:
        """Send what was told, unless the last was sent just now and nothing came to its end."""
        if self._is_urgent or time.monotonic() >= self._sent + _TOGETHER:
            self.send()

    def send(self) -> None:
        """Send what was told."""
        with self._lock:
            told, self._told = self._told, {}
            self._is_urgent, self._sent = False, time.monotonic()
        for loop, items in told.items():
            with suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(_deliver, items)


class Mailbox(Listener):
    """Where who called in an event loop finds what the engine told."""

    def __init__(self, post: Post) -> None:
        self._post, self._loop = post, asyncio.get_running_loop()
        self.items: asyncio.Queue[Item] = asyncio.Queue()

    def tell(self, item: Item) -> None:
        self._post.put(self._loop, self.items, item)


def _deliver(items: list[tuple[asyncio.Queue[Item], Item]]) -> None:
    for box, item in items:
        box.put_nowait(item)
