"""Which process carries a run on, and how it shows that it lives."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import threading
from enum import Enum, auto
from pathlib import Path
from typing import Any, Final

from ringwall.deployment.journal import Journal, RunStatus, Worker
from ringwall.deployment.runlog import CallPhase, RunLog
from ringwall.errors import JournalError
from ringwall.schema import digest

LEASE: Final = 15.0
"""Seconds after which a worker that nobody has heard of is taken to be dead."""


class Told(Enum):
    """Why a run was interrupted: it is to stop, or to be left to other processes."""

    STOP = auto()
    PUT_DOWN = auto()


class Heart:
    """Keeps this process's lease while it carries runs on, and hears which of them are to stop.

    One lease stands for all runs of an app in a process. It is renewed before a run begins, and for runs that last
    by a thread: an event loop that is kept busy is not dead. Who loses the lease all the same (a process stopped
    for longer than it) loses its runs with the next event that it writes. A lease of 0 s lets anybody take them.
    """

    def __init__(self, journal: Journal, crew: str, *, seconds: float = LEASE) -> None:
        self._journal, self._crew, self._seconds = journal, crew, seconds
        self._carried: dict[str, tuple[RunLog, asyncio.Task[Any] | None]] = {}
        self._told: dict[str, Told] = {}
        self._left_behind: set[str] = set()
        self.worker = Worker("", crew)
        """What stands for this process in the journal, once the lease was renewed."""
        self._process = 0
        self._fresh = False  # the lease holds until the timer, or the thread, sees to it
        self._timer_of: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def enter(self, log: RunLog) -> bool:
        """From here on this process carries the run on. Returns whether the lease must be renewed first."""
        self._carried[log.run] = (log, asyncio.current_task())
        return not self._fresh or self._timer_of is None or self._timer_of.is_closed()

    async def renewed(self) -> Worker:
        """Renew the lease if it is time to. Raises `JournalUnavailable`."""
        loop = asyncio.get_running_loop()
        if not self._fresh or self._timer_of is not loop:
            await self._renew()
            self._timer_of = loop
            if self._seconds:
                loop.call_later(self._seconds / 3, self._watch)
        return self.worker

    def leave(self, run: str) -> None:
        """It does no more."""
        del self._carried[run]
        if self._told:
            self._told.pop(run, None)

    def lose(self, run: str) -> None:
        """The run did not end: the journal was gone, or it is left to others."""
        self._left_behind.add(run)

    def carries(self, run: str) -> bool:
        """Whether this very process carries the run on."""
        return run in self._carried

    def stop(self, run: str) -> None:
        """Interrupt a run that this process carries on, between two calls: it is to stop."""
        self._interrupt(run, Told.STOP)

    def put_down(self, run: str) -> None:
        """Interrupt a run that this process carries on, between two calls: others may take it up."""
        self._interrupt(run, Told.PUT_DOWN)

    def spare(self, run: str) -> None:
        """Interrupt the run no more: it stops already."""
        self._told[run] = Told.STOP

    def told(self, run: str) -> Told | None:
        """Why the run was interrupted, if by `stop` or `put_down`."""
        return self._told.get(run)

    def _interrupt(self, run: str, why: Told) -> None:
        _, task = self._carried.get(run, (None, None))
        if task is not None:
            with contextlib.suppress(RuntimeError):  # its loop ended, and so did the run
                task.get_loop().call_soon_threadsafe(self._interrupt_here, run, why)

    def _interrupt_here(self, run: str, why: Told) -> None:
        """Interrupt the run, but no call: what a call came to must be written down."""
        log, task = self._carried.get(run, (None, None))
        if log is None or task is None or run in self._told:
            return
        if not any(state.phase is CallPhase.STARTED for state in log.calls.values()):
            self._told[run] = why
            task.cancel()

    def left_behind(self) -> list[str]:
        """The runs that this process did not end and carries on no more; told once."""
        runs, self._left_behind = sorted(self._left_behind), set()
        return runs

    async def bury(self) -> None:
        """End the leases of those workers on this machine whose process is gone: nobody need wait for that."""
        for worker in await self._journal.workers():
            if _is_gone(worker):
                await self._journal.keep(worker, 0)

    async def close(self) -> None:
        """Give up the lease."""
        self._closing.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self.worker.id:
            with contextlib.suppress(JournalError):
                await self._journal.keep(self.worker.id, 0)

    async def _renew(self) -> None:
        if self._process != os.getpid():  # the first time, and after a fork
            self._process = os.getpid()
            self.worker = Worker(f"{_here()}/{_process(self._process)}/{secrets.token_hex(8)}", self._crew)
        await self._journal.keep(self.worker.id, self._seconds)
        self._fresh = self._seconds > 0

    def _watch(self) -> None:
        """A while after the lease was renewed: if any run goes on, let the thread see to it from here on."""
        if self._thread is None:
            self._fresh = False
            if self._carried and not self._closing.is_set():
                self._thread = threading.Thread(target=self._beat, name="ringwall-lease", daemon=True)
                self._thread.start()

    def _beat(self) -> None:
        while self._carried:
            with contextlib.suppress(JournalError):
                asyncio.run(self._look())
            if self._closing.wait(self._seconds / 3):
                break
        self._fresh, self._thread = False, None

    async def _look(self) -> None:
        await self._renew()
        for record in await self._journal.runs(RunStatus.STOPPING):
            self.stop(record.run)


def _is_gone(worker: str) -> bool:
    here, process, _ = worker.split("/") if worker.count("/") == 2 else ("", "", "")
    return bool(here) and here == _here() and process != _process(int(process.partition(".")[0]))


def _here() -> str:
    """This boot of this machine, and the processes that see each other here; empty where that cannot be told."""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        return digest(boot + str(Path("/proc/self/ns/pid").readlink()))[:12]
    return ""


def _process(pid: int) -> str:
    """A process's number and when it began, since numbers are used again; the number alone if there is none."""
    with contextlib.suppress(OSError):
        state, *_, began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:20]
        if state not in "ZX":  # it is dead, and its parent has not looked yet
            return f"{pid}.{began}"
    return str(pid)


__all__ = ["LEASE", "Heart", "Told"]
