"""The journal: what happened, once, in order.

Append-only, JSON only. Each run is a chain: an event's hash covers its content and the hash before it, and a
run's first event is chained to its owner and to the first event of the run before it, so that a run can
neither disappear from the middle nor change hands. `verify` finds the first event that was changed, removed
or reordered.

What nobody outside has seen can be cut off without a trace: the newest run, or the end of a run together with
its record. Whoever must prove that nothing was keeps checkpoints elsewhere (`ringwall.deployment.checkpoints`), or
records (`RunRecord`) for `verify`.
"""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import partial
from itertools import islice
from typing import Final, NamedTuple, NoReturn

from ringwall.errors import ChainBroken, InvalidInput, JournalConflict, RunHeld, UnknownRun
from ringwall.schema import digest

GENESIS: Final = "0" * 64
"""What the first event of the first run is chained to."""


class RunStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPING = "stopping"
    """It is not to go on: nothing more is begun, and what was done is being undone."""


CARRIED: Final = (RunStatus.RUNNING, RunStatus.STOPPING)
"""The runs that a worker carries on, unless it died."""


class Draft(NamedTuple):
    """An event that is not in the journal yet.

    `body` and `label` are JSON texts, `at` is Unix time in seconds (finite).
    """

    kind: str
    body: str
    label: str = ""
    at: float = 0.0


class Event(NamedTuple):
    """One thing that happened. `seq` counts from 0 in its run; `hash` covers all the fields before it."""

    run: str
    seq: int
    kind: str
    at: float
    label: str
    body: str
    previous: str
    hash: str

    def computed_hash(self) -> str:
        """SHA-256 over all fields but `hash`, lengths in front, so that no two events share a text."""
        return chain_hash(self.run, self.seq, self.kind, self.at, self.label, self.body, self.previous)


def chain_hash(run: str, seq: int, kind: str, at: float, label: str, body: str, previous: str) -> str:
    """The hash of an event with these fields."""
    head = f"{previous}{seq}|{at!r}|{len(run)}|{len(kind)}|{len(label)}|{run}{kind}{label}{body}"
    return hashlib.sha256(head.encode("utf-8", "surrogatepass")).hexdigest()


def link(last_start: str, owner: str) -> str:
    """What a run's first event is chained to: the first event of the run before it, and the run's owner."""
    return digest(last_start + owner)


def chain(run: str, drafts: Iterable[Draft], *, seq: int, previous: str) -> list[Event]:
    """Make events of `drafts`, the first with number `seq` and chained to `previous`."""
    events = []
    for number, (kind, body, label, at) in enumerate(drafts, seq):
        at += 0.0  # a database column gives 1 back as 1.0 and -0.0 as 0.0: hash what it gives back
        hash_ = chain_hash(run, number, kind, at, label, body, previous)
        events.append(Event(run, number, kind, at, label, body, previous, hash_))
        previous = hash_
    return events


def first_events(run: str, owner: str, drafts: Sequence[Draft], last_start: str) -> list[Event]:
    """The events a run begins with. Raises `InvalidInput` for none: the next run is chained to the first."""
    if not drafts:
        raise InvalidInput(f"run {run!r} begins with no event", expected="at least one draft")
    return chain(run, drafts, seq=0, previous=link(last_start, owner))


class RunRecord(NamedTuple):
    """Where a run stands: its owner's own grant, its status, and the head of its chain.

    The status is there to find runs by; evidence is in the events alone.
    """

    run: str
    owner: str
    status: RunStatus
    length: int
    head: str


class Worker(NamedTuple):
    """Who carries runs on: a process of an app. Those of one `crew` can take up each other's runs."""

    id: str
    crew: str


class Head(NamedTuple):
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
    async def start(
        self,
        run: str,
        owner: str,
        drafts: Sequence[Draft],
        *,
        status: RunStatus = RunStatus.RUNNING,
        durable: bool = False,
        worker: Worker | None = None,
    ) -> Head:
        """Begin a run with its first events, carried on by `worker`.

        Raises `JournalConflict` if it exists, `InvalidInput` without drafts.
        """

    @abstractmethod
    async def append(
        self,
        run: str,
        drafts: Sequence[Draft],
        after: Head,
        *,
        status: RunStatus | None = None,
        durable: bool = False,
        worker: Worker | None = None,
    ) -> Head:
        """Append events right after `after`, set the run's status if given, and return the new end.

        Without drafts the end stays where it is, so that nothing is claimed: two callers may both succeed.
        With a `worker` the run is its from here on; `RunHeld` if another one carries it on, and lives. A run that waits
        or is over is nobody's.
        Raises `UnknownRun`, `JournalConflict`.
        """

    @abstractmethod
    async def read(self, run: str) -> list[Event]:
        """Return the run's events in order. Raises `UnknownRun`."""

    @abstractmethod
    async def record(self, run: str) -> RunRecord:
        """Return where the run stands. Raises `UnknownRun`."""

    @abstractmethod
    async def runs(self, status: RunStatus | None = None) -> list[RunRecord]:
        """Return all runs, or those of one status, in the order they began."""

    # Who carries a run on. A run changes hands with an event, so that whoever had it before comes second from then on.

    async def keep(self, worker: str, seconds: float) -> None:
        """Take it that a worker lives for so many seconds more; 0: that it is dead.

        Called from a thread and an event loop of its own. A journal that keeps nothing between its processes need
        not tell the living from the dead.
        """

    async def workers(self) -> list[str]:
        """Return the ids of the workers that are taken to live."""
        return []

    async def take(self, worker: Worker, drafts: Sequence[Draft], *, limit: int = 1) -> list[str]:
        """Give `worker` up to `limit` runs of its crew whose worker is dead, oldest first, and append drafts to each.

        Each goes to one taker only, and who asks meanwhile gets others. Returns their ids. Raises `InvalidInput`
        without drafts.
        """
        return []

    async def inspect(self, inspection: Inspection) -> None:
        """Hand every run with its events to `inspection`, in the order they began.

        A journal that others write to meanwhile overrides this, to show one snapshot. Raises what `inspection` does.
        """
        for record in await self.runs():
            inspection.run(record, await self.read(record.run))

    async def verify(self, kept: Iterable[RunRecord] = ()) -> int:
        """Check every chain; return the number of events. Raises `ChainBroken` naming the first bad one.

        `kept` are records that somebody kept outside the journal: each run must still hold what it held then.
        """
        check = ChainCheck(kept)
        await self.inspect(check)
        return check.finish()

    async def close(self) -> None:
        """Release what the journal holds; called once, by the app that opened it."""


_COMPARE: Final = "compare with a backup or an exported copy"


class Inspection(ABC):
    """Is handed the runs of a journal one at a time, so that the journal need not fit into memory."""

    @abstractmethod
    def run(self, record: RunRecord, events: Iterable[Event]) -> None:
        """Take the next run; `events` can be read once."""

    def lost(self, what: str) -> NoReturn:
        """Told when something is plainly missing before the next run. Raises `ChainBroken`."""
        raise ChainBroken(f"{what} is missing", hint=_COMPARE)


class ChainCheck(Inspection):
    """Checks each run as it is handed in, in the order they began."""

    def __init__(self, kept: Iterable[RunRecord] = ()) -> None:
        self._kept = {record.run: record for record in kept}
        self._last_start = GENESIS
        self._count = 0

    def run(self, record: RunRecord, events: Iterable[Event]) -> None:
        """Check the next run against its record, and against what was kept of it. Raises `ChainBroken`."""
        kept = self._kept.pop(record.run, None)
        previous, length = link(self._last_start, record.owner), 0
        for event in events:
            _check_event(event, record.run, length, previous)
            previous, length = event.hash, length + 1
            if length == 1:
                self._last_start = event.hash
            if kept and length == kept.length and event.hash != kept.head:
                raise bad(record.run, event.seq, "is not the kept one")
        if length > record.length >= 0:
            raise bad(record.run, record.length, "is not in the run's record")
        if length != record.length or previous != record.head or length < (kept.length if kept else 1):
            raise missing(record.run, length, "the end of the run was removed")
        self._count += length

    def finish(self) -> int:
        """Return the number of events. Raises `ChainBroken` when a kept run did not come by."""
        for run in self._kept:
            raise missing(run, 0, "the whole run was removed")
        return self._count


def check_run(run: str, events: Sequence[Event]) -> None:
    """Check that a run's events are as they were written, before anything is done because of them.

    What was cut off at the end shows when the next event is appended. Raises `ChainBroken`.
    """
    previous = events[0].previous
    for seq, event in enumerate(events):
        _check_event(event, run, seq, previous)
        previous = event.hash


def missing(run: str, seq: int, why: str) -> ChainBroken:
    """The error about an event that is not where it was."""
    return bad(run, seq, "is missing", why)


def bad(run: str, seq: int, what: str, why: str = "") -> ChainBroken:
    """The error about one event."""
    hint = f"{why}: {_COMPARE}" if why else _COMPARE
    return ChainBroken(f"event {seq} of run {run!r} {what}", run=run, seq=seq, hint=hint)


def _check_event(event: Event, run: str, seq: int, previous: str) -> None:
    if event.seq != seq or event.run != run:
        raise missing(run, seq, "it was removed or moved")
    if event.previous != previous:
        why = "something was removed or reordered, or the run was given to another owner"
        raise bad(run, seq, "does not follow what is before it", why)
    if event.hash != event.computed_hash():
        raise bad(run, seq, "was changed after it was written")


class InMemoryJournal(Journal):
    """Keeps events in this process: for tests, tutorials, and apps whose actions need not survive it."""

    def __init__(self) -> None:
        self._events: dict[str, list[Event]] = {}
        self._records: dict[str, RunRecord] = {}
        self._last_start = GENESIS
        self._carried: dict[str, Worker] = {}
        self._alive: dict[str, float] = {}

    async def start(
        self,
        run: str,
        owner: str,
        drafts: Sequence[Draft],
        *,
        status: RunStatus = RunStatus.RUNNING,
        durable: bool = False,
        worker: Worker | None = None,
    ) -> Head:
        if run in self._events:
            raise JournalConflict(f"run {run!r} exists already", hint="resume it, or choose another id")
        events = first_events(run, owner, drafts, self._last_start)
        self._last_start = events[0].hash
        self._events[run] = events
        head = Head(len(events), events[-1].hash)
        self._records[run] = RunRecord(run, owner, status, head.length, head.hash)
        if worker is not None:
            self._carried[run] = worker
        return head

    async def append(
        self,
        run: str,
        drafts: Sequence[Draft],
        after: Head,
        *,
        status: RunStatus | None = None,
        durable: bool = False,
        worker: Worker | None = None,
    ) -> Head:
        record = self._records.get(run)
        if record is None:
            raise UnknownRun(run)
        if record[-2:] != after:
            raise JournalConflict(f"run {run!r} went on elsewhere", hint="read it again before acting")
        if worker is not None:
            holder = self._carried.get(run, worker)
            if holder.id != worker.id and record.status in CARRIED and self._lives(holder):
                raise RunHeld(run)
            self._carried[run] = worker
        events = chain(run, drafts, seq=after.length, previous=after.hash)
        self._events[run].extend(events)
        head = Head(after.length + len(events), events[-1].hash) if events else after
        self._records[run] = RunRecord(run, record.owner, status or record.status, head.length, head.hash)
        if run in self._carried and self._records[run].status not in CARRIED:
            self._carried[run] = Worker("", self._carried[run].crew)
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

    async def keep(self, worker: str, seconds: float) -> None:
        self._alive[worker] = time.monotonic() + seconds

    async def workers(self) -> list[str]:
        return [worker for worker, until in self._alive.items() if until > time.monotonic()]

    async def take(self, worker: Worker, drafts: Sequence[Draft], *, limit: int = 1) -> list[str]:
        taken = list(islice(filter(partial(self._may_take, worker), self._carried), limit))
        for run in taken:
            record = self._records[run]
            await self.append(run, drafts, Head(record.length, record.head), worker=worker)
        return taken

    def _may_take(self, worker: Worker, run: str) -> bool:
        holder = self._carried[run]
        carried = self._records[run].status in CARRIED
        return carried and holder.crew == worker.crew and not self._lives(holder)

    def _lives(self, worker: Worker) -> bool:
        return self._alive.get(worker.id, 0.0) > time.monotonic()
