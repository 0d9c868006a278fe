"""What the engine tells, on its way to the event loops of those who listen."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from ringwall.errors import RingwallError
from ringwall.model.base import Delta
from ringwall_llama.job import Listener

Item = Delta | RingwallError | None


class Post:
    """Collects what is told in one step, and sends it to each loop at once.

    Who is woken takes the interpreter's lock, so it is sent when the engine does not
    need that: while llama.cpp computes the next step.
    """

    def __init__(self) -> None:
        self._told: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Queue[Item], Item]]] = {}
        self._lock = threading.Lock()
        """An engine that is begun anew tells before the one that failed has told all."""

    def put(self, loop: asyncio.AbstractEventLoop, box: asyncio.Queue[Item], item: Item) -> None:
        with self._lock:
            self._told.setdefault(loop, []).append((box, item))

    def send(self) -> None:
        with self._lock:
            told, self._told = self._told, {}
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
