"""The engine: one thread that computes the next tokens of all requests at once.

Each turn of its loop lets requests in, lays out one batch (the next token of every reply that is being written, and
a piece of the prompts that are being read), has llama.cpp compute it, and tells everybody what came of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
import time
from dataclasses import dataclass
from typing import Final

from ringwall.errors import ProviderUnavailable, RingwallError
from ringwall_llama.context import Room
from ringwall_llama.core import Core, Spent
from ringwall_llama.job import Job
from ringwall_llama.loaded import Loaded
from ringwall_llama.post import Post
from ringwall_llama.shapes import Shapes
from ringwall_llama.waiting import Waiting

_log: Final = logging.getLogger("ringwall.llama")

_GRACE, _PATIENCE = 0.004, 0.05
"""Seconds that an engine at rest waits for the next of those who ask together, and for all of them."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine is busy with: requests that are computed and that wait, sequences kept, and KV cells."""

    running: int
    waiting: int
    kept: int
    cells_used: int
    cells: int


class Overloaded(ProviderUnavailable):
    """As many requests as may wait are waiting already."""


class Engine:
    """Computes jobs until it is closed. `submit`, `look` and `close` may be called from any thread.

    Its thread begins with the first job. Should it fail, every job is told so, and the next one begins anew.
    """

    def __init__(self, model: Loaded, room: Room, shapes: Shapes, post: Post) -> None:
        self._model, self._room, self._shapes, self._post = model, room, shapes, post
        self._lock = threading.Condition()
        self._waiting: Waiting[Job] = Waiting()
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._abort = ctypes.create_string_buffer(2)
        self._computing: list[Job] = []
        self._core: Core | None = None
        self._spent = Spent()

    @property
    def spent(self) -> Spent:
        return self._core.spent if self._core is not None else self._spent

    @property
    def load(self) -> Load:
        core = self._core
        if core is None:
            return Load(0, len(self._waiting), 0, 0, self._room.cells)
        used = core.cells.size - core.cells.free
        return Load(len(core.active), len(self._waiting), len(core.cells.kept), used, core.cells.size)

    def start(self) -> None:
        """Make the context now, so that a model that cannot be used is known at once. Raises `BadModelFile`."""
        self._core = self._new_core()

    def _new_core(self) -> Core:
        return Core(self._model, self._room, self._shapes, self._abort, self._spent)

    def submit(self, job: Job) -> None:
        """Let a job wait for its turn. Raises `Overloaded`, and `ProviderUnavailable` when the engine is closed."""
        with self._lock:
            if self._is_closed:
                raise _closed()
            free = self._room.slots - self.load.running  # they are let in only between two steps
            if len(self._waiting) >= self._room.queue + free:
                raise Overloaded(
                    f"{len(self._waiting)} requests wait for the model already",
                    hint="try again later, or give the model a longer `queue`",
                )
            self._waiting.put(job, job.asker)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="ringwall-llama", daemon=True)
                self._thread.start()
            self._lock.notify()

    def look(self) -> None:
        """Look again at who was stopped: what is computed for nobody any more is not computed to its end."""
        with self._lock:
            if self._computing and all(job.is_stopped for job in self._computing):
                self._abort[0] = b"\x01"
            self._lock.notify()

    def check(self) -> None:
        """Raises `ProviderUnavailable` if it is closed, or its thread ended under jobs, as in a fork of its process."""
        with self._lock:
            if self._is_closed:
                raise _closed()
            if self._thread is not None and not self._thread.is_alive():
                raise ProviderUnavailable("the engine's thread ended", hint="load the model again, in this process")

    def close(self) -> None:
        """Stop, and tell every job so."""
        with self._lock:
            self._is_closed = True
            self._abort[0] = b"\x01"
            thread = self._thread
            self._lock.notify()
        if thread is not None:
            thread.join()
        if self._core is not None:
            self._core.close()
            self._core = None

    # ---- the thread

    def _run(self) -> None:
        try:
            core = self._core = self._core or self._new_core()
            while self._next_jobs(core):
                self._step(core)
            self._fail_all(_closed())
        except RingwallError as error:
            self._fail_all(error)
        except Exception as error:  # noqa: BLE001 (the outermost edge: whoever waits must hear of it)
            _log.exception("the engine failed and is begun anew")
            self._fail_all(ProviderUnavailable(f"the engine failed ({type(error).__name__})", hint="ask again"))

    def _next_jobs(self, core: Core) -> bool:
        """Wait for work, and let in what there is room for; False when the engine is closed."""
        with self._lock:
            while True:
                if self._is_closed:
                    return False
                if not core.active:
                    self._gather()
                for over in self._waiting.remove(Job.is_over):
                    core.leave(over)
                core.sweep()
                while (job := self._waiting.first()) is not None and core.has_room_for(job):
                    core.enter(self._waiting.take())
                if core.active:
                    return True
                self._post.send()
                self._lock.wait()

    def _gather(self) -> None:
        """Let those come who ask at the same moment: read together, all of them have their first word sooner."""
        until, there = time.monotonic() + _PATIENCE, 0
        while len(self._waiting) > there and not self._is_closed and time.monotonic() < until:
            there = len(self._waiting)
            self._lock.wait(_GRACE)

    def _step(self, core: Core) -> None:
        parts = core.lay_out()
        self._post.send_if_due()
        if not parts:
            return
        with self._lock:
            self._abort[0] = b"\x01" if self._is_closed else b"\x00"
            self._computing = [part.job for part in parts]
        is_done = core.compute()
        with self._lock:
            self._computing = []
        if is_done:
            core.take_in(parts)

    def _fail_all(self, error: RingwallError) -> None:
        """Tell all jobs, and leave nothing behind that a later one could stumble over."""
        with self._lock:
            self._spent = self.spent
            core, self._core, self._thread = self._core, None, None
            jobs = [*(core.active if core is not None else ()), *self._waiting.remove(lambda _: True)]
            self._computing = []
        for job in jobs:
            with contextlib.suppress(RuntimeError):
                job.listener.tell(error)
                job.close()
        self._post.send()
        if core is not None:
            core.close()


def _closed() -> ProviderUnavailable:
    return ProviderUnavailable("the model was closed")
