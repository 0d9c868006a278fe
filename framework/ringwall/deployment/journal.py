"""The journal: what happened, once, in order.

Append-only, JSON only. Each run is a chain: an event's hash covers its content and the hash before it, and a
run's first event is chained to the first event of the run before it, so that a whole run cannot disappear
either. `verify` finds the first event that was changed, removed or reordered.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ringwall.errors import ChainBroken, JournalConflict, UnknownRun

GENESIS: Final = "0" * 64
"""What the first event of the first run is chained to."""


class RunStatus(StrEnum):
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that is not in the journal yet: `body` and `label` are JSON texts, `at` is Unix time in seconds."""

    kind: str
    body: str
    label: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `seq` counts from 0 in its run; `hash` covers everything before it in this class."""

    run: str
    seq: int
    kind: str
    at: float
    label: str
    body: str
    previous: str
    hash: str

    def computed_hash(self) -> str:
        """SHA-256 over all fields but `hash`, each preceded by its length, so that no two events share a text."""
        return chain_hash(self.run, self.seq, self.kind, self.at, self.label, self.body, self.previous)


def chain_hash(run: str, seq: int, kind: str, at: float, label: str, body: str, previous: str) -> str:
    """The hash of an event with these fields."""
    head = f"{previous}{seq}|{at!r}|{len(run)}|{len(kind)}|{len(label)}|{run}{kind}{label}{body}"
    return hashlib.sha256(head.encode("utf-8", "surrogatepass")).hexdigest()


def chain(run: str, drafts: Iterable[Draft], *, seq: int, previous: str) -> list[Event]:
    """Make events of `drafts`, the first with number `seq` and chained to `previous`."""
    events = []
    for number, draft in enumerate(drafts, seq):
        hash_ = chain_hash(run, number, draft.kind, draft.at, draft.label, draft.body, previous)
        events.append(Event(run, number, draft.kind, draft.at, draft.label, draft.body, previous, hash_))
        previous = hash_
    return events


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Where a run stands: its owner's own grant, its status, and the head of its chain."""

    run: str
    owner: str
    status: RunStatus
    length: int
    head: str


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a run's chain: the number the next event gets, and the hash it is chained to."""

    length: int
    hash: str


class Journal(ABC):
    """Keeps the events of all runs.

    The caller relies on this:

    - what `append` returned is there after a crash of the process (and, if `durable`, of the machine);
    - events are appended whole or not at all, and only right after `after`: whoever comes second gets
      `JournalConflict` and must not act;
    - nothing is ever changed or removed.

    Methods raise `JournalUnavailable` when the database is locked, read-only, full or gone.
    """

    @abstractmethod
    async def start(self, run: str, owner: str, drafts: Sequence[Draft]) -> Head:
        """Begin a run with its first events, status `RUNNING`. Raises `JournalConflict` if it exists."""

    @abstractmethod
    async def append(
        self, run: str, drafts: Sequence[Draft], after: Head, *, status: RunStatus | None = None, durable: bool = False
    ) -> Head:
        """Append events right after `after`, set the run's status if given, and return the new end."""

    @abstractmethod
    async def read(self, run: str) -> list[Event]:
        """Return the run's events in order. Raises `UnknownRun`."""

    @abstractmethod
    async def record(self, run: str) -> RunRecord:
        """Return where the run stands. Raises `UnknownRun`."""

    @abstractmethod
    async def runs(self, status: RunStatus | None = None) -> list[RunRecord]:
        """Return all runs, or those of one status, in the order they began."""

    async def verify(self) -> int:
        """Check every chain; return the number of events. Raises `ChainBroken` naming the first bad one."""
        previous_start, count = GENESIS, 0
        for record in await self.runs():
            events = await self.read(record.run)
            check_chain(record, events, previous_start)
            previous_start, count = events[0].hash, count + len(events)
        return count

    async def close(self) -> None:
        """Release what the journal holds; called once, by the app that opened it."""


def check_chain(record: RunRecord, events: Sequence[Event], previous: str) -> None:
    """Check one run's chain against its record. Raises `ChainBroken`."""
    for expected, event in enumerate(events):
        where = f"event {expected} of run {record.run!r}"
        if event.seq != expected or event.run != record.run:
            raise ChainBroken(f"{where} is missing", hint="compare with a backup or an exported copy")
        if event.previous != previous:
            raise ChainBroken(f"{where} does not follow the event before it", hint="something was removed or reordered")
        if event.hash != event.computed_hash():
            raise ChainBroken(f"{where} was changed after it was written", hint="compare with a backup or a copy")
        previous = event.hash
    if len(events) != record.length or not events or events[-1].hash != record.head:
        raise ChainBroken(
            f"event {len(events)} of run {record.run!r} is missing", hint="the end of the run was removed"
        )


class InMemoryJournal(Journal):
    """Keeps events in this process: for tests, tutorials, and apps whose actions need not survive it."""

    def __init__(self) -> None:
        self._events: dict[str, list[Event]] = {}
        self._records: dict[str, RunRecord] = {}
        self._last_start = GENESIS

    async def start(self, run: str, owner: str, drafts: Sequence[Draft]) -> Head:
        if run in self._events:
            raise JournalConflict(f"run {run!r} exists already", hint="resume it, or choose another id")
        events = chain(run, drafts, seq=0, previous=self._last_start)
        self._last_start = events[0].hash
        self._events[run] = events
        head = Head(len(events), events[-1].hash)
        self._records[run] = RunRecord(run, owner, RunStatus.RUNNING, head.length, head.hash)
        return head

    async def append(
        self, run: str, drafts: Sequence[Draft], after: Head, *, status: RunStatus | None = None, durable: bool = False
    ) -> Head:
        record = await self.record(run)
        if record.head != after.hash:
            raise JournalConflict(f"run {run!r} went on elsewhere", hint="read it again before acting")
        events = chain(run, drafts, seq=after.length, previous=after.hash)
        self._events[run].extend(events)
        head = Head(after.length + len(events), events[-1].hash) if events else after
        self._records[run] = RunRecord(run, record.owner, status or record.status, head.length, head.hash)
        return head

    async def read(self, run: str) -> list[Event]:
        if run not in self._events:
            raise UnknownRun(run)
        return list(self._events[run])

    async def record(self, run: str) -> RunRecord:
        if run not in self._records:
            raise UnknownRun(run)
        return self._records[run]

    async def runs(self, status: RunStatus | None = None) -> list[RunRecord]:
        return [r for r in self._records.values() if status is None or r.status is status]


def now() -> float:
    """Unix time in seconds, to the microsecond: what a JSON number and a database column keep exactly."""
    return round(time.time(), 6)
