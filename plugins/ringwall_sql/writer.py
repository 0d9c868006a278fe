"""What writes a journal: on the spot if nothing is to be waited for, else in a thread, many at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from ringwall.deployment.journal import (
    CARRIED,
    GENESIS,
    Draft,
    Event,
    Head,
    RunRecord,
    RunStatus,
    Worker,
    chain,
    first_events,
)
from ringwall.errors import ChainBroken, JournalConflict, JournalUnavailable, RingwallError, UnknownRun
from ringwall_sql.database import Database, Synchronous, restored, stored
from ringwall_sql.schema import Schema

TABLES: Final = sa.MetaData()
SCHEMA: Final = Schema("journal", "0002", TABLES)

RUNS: Final = sa.Table(
    "runs",
    TABLES,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("run", sa.Text, nullable=False, unique=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("status", sa.Text, nullable=False, index=True),
    sa.Column("length", sa.Integer, nullable=False),
    sa.Column("head", sa.Text, nullable=False),
    sa.Column("worker", sa.Text, nullable=False, server_default=""),  # who carries it on, if anybody does
    sa.Column("crew", sa.Text, nullable=False, server_default=""),
)

WORKERS: Final = sa.Table(
    "workers",
    TABLES,
    sa.Column("worker", sa.Text, primary_key=True),
    sa.Column("until", sa.Double, nullable=False),  # Unix time, by the database's clock
)

EVENTS: Final = sa.Table(
    "events",
    TABLES,
    sa.Column("run", sa.BigInteger, primary_key=True),  # the run's number
    sa.Column("seq", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("at", sa.Double, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.Text, nullable=False),
    sa.Column("hash", sa.Text, nullable=False),
)

# Written by hand, in few steps: at each the driver gives up the interpreter's lock, and has to wait for it
# when the event loop is busy.
_FIND: Final = "SELECT number, run, owner, status, length, head FROM runs WHERE run IN ({rows})"
_LOCK: Final = _FIND.replace("IN ({rows})", "= ANY(%s) ORDER BY number FOR UPDATE")
"""All runs at once, in one order for all: of two who lock the same runs, neither waits for the other in a circle."""
_LAST: Final = (
    "SELECT runs.number, events.hash FROM runs "
    "LEFT JOIN events ON events.run = runs.number AND events.seq = 0 ORDER BY runs.number DESC LIMIT 1"
)
_RUN: Final = ("number", "run", "owner", "status", "length", "head")
_NEW_RUN: Final = (*_RUN, "worker", "crew")
_PUT_RUNS: Final = "INSERT INTO runs ({columns}) VALUES {{rows}} ON CONFLICT (number) DO UPDATE SET {changed}"
_PUT_LENGTHS: Final = _PUT_RUNS.format(
    columns=", ".join(_RUN), changed="length = excluded.length, head = excluded.head"
)
_IS_CARRIED: Final = f"excluded.status IN ({', '.join(repr(status.value) for status in CARRIED)})"
_PUT_STATUSES: Final = _PUT_RUNS.format(  # apart, since a status is in an index
    columns=", ".join(_NEW_RUN),
    changed="length = excluded.length, head = excluded.head, status = excluded.status, "
    f"worker = CASE WHEN {_IS_CARRIED} THEN runs.worker ELSE '' END",  # whoever stops it next finds it free
)
_PUT_EVENTS: Final = "INSERT INTO events (run, seq, kind, at, label, body, previous, hash) VALUES {rows}"
_LOCK_STARTS: Final = "SELECT pg_advisory_xact_lock(1380535879)"

_CHECKPOINT_AFTER: Final = 500  # commits on the spot: then it is the thread's turn, which copies the log back

_SIZES: Final = (32, 16, 8, 4, 2, 1)

T = TypeVar("T")

Row = tuple[str | int | float, ...]


@dataclass(slots=True)
class Batch:
    """What one transaction knows and will write.

    `runs` are the runs asked about, by id, each with its number; `last` is the newest run's number, and the
    hash it began with; `workers` are those of the runs that begin.
    """

    runs: dict[str, tuple[int, RunRecord]]
    last: tuple[int, str]
    longer: set[str] = field(default_factory=set)
    other_status: set[str] = field(default_factory=set)
    events: list[tuple[int, Event]] = field(default_factory=list)
    workers: dict[str, Worker] = field(default_factory=dict)

    def put(self, number: int, record: RunRecord, events: Iterable[Event]) -> Head:
        """Note the run's new record and its new events."""
        known = self.runs.get(record.run)
        same_status = known is not None and known[1].status is record.status
        (self.longer if same_status else self.other_status).add(record.run)
        self.runs[record.run] = (number, record)
        self.events += [(number, event) for event in events]
        return Head(record.length, record.head)


@dataclass(slots=True, frozen=True)
class Start:
    """A run to begin."""

    run: str
    drafts: Sequence[Draft]
    durable: bool
    owner: str
    status: RunStatus
    worker: Worker | None

    def apply(self, batch: Batch) -> Head:
        """Add to the batch. Raises `JournalConflict`, `InvalidInput`, and leaves it then as it was."""
        if self.run in batch.runs:
            raise JournalConflict(f"run {self.run!r} exists already", hint="resume it, or choose another id")
        number, last_start = batch.last
        events = first_events(self.run, self.owner, self.drafts, last_start)
        batch.last = number + 1, events[0].hash
        if self.worker is not None:
            batch.workers[self.run] = self.worker
        record = RunRecord(self.run, self.owner, self.status, len(events), events[-1].hash)
        return batch.put(number + 1, record, events)


@dataclass(slots=True, frozen=True)
class Append:
    """Events to append."""

    run: str
    drafts: Sequence[Draft]
    durable: bool
    after: Head
    status: RunStatus | None

    def apply(self, batch: Batch) -> Head:
        """Add to the batch. Raises `JournalConflict`, `UnknownRun`, and leaves it then as it was."""
        if self.run not in batch.runs:
            raise UnknownRun(self.run)
        number, record = batch.runs[self.run]
        if (record.length, record.head) != (self.after.length, self.after.hash):
            raise JournalConflict(f"run {self.run!r} went on elsewhere", hint="read it again before acting")
        events = chain(self.run, self.drafts, seq=record.length, previous=record.head)
        head = events[-1].hash if events else record.head
        length = record.length + len(events)
        return batch.put(number, RunRecord(self.run, record.owner, self.status or record.status, length, head), events)


@dataclass(slots=True, frozen=True)
class _Job:
    """Something to write, and who waits for it."""

    work: Start | Append
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Head]


_Outcome = Head | Exception


class Writer:
    """Takes work from any event loop, and answers there once the work is committed.

    One thread waits for locks and for the disk, for all who write meanwhile. Work that need not wait for the disk
    is committed on the spot, in some 0.1 ms, while the thread has nothing to do and nobody holds the lock.
    """

    def __init__(self, database: Database, synchronous: Synchronous) -> None:
        self._slow = Lane(database, synchronous)
        self._quick = Lane(database, synchronous, waits=False) if database.on_sqlite and synchronous != "FULL" else None
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._queued = 0
        self._since_checkpoint = 0

    async def write(self, work: Start | Append) -> Head:
        """Do the work in some transaction, and return the run's new end."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._closed:
                raise JournalUnavailable("the journal is closed", hint="close it last")
            outcome = self._at_once(work)
            if outcome is None:
                job = _Job(work, loop, loop.create_future())
                self._enqueue(job)
        if outcome is None:
            return await job.future
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def _at_once(self, work: Start | Append) -> _Outcome | None:
        """Commit here and now if that takes no waiting; None if the thread shall do it."""
        if self._quick is None or work.durable or self._queued or self._since_checkpoint >= _CHECKPOINT_AFTER:
            return None
        try:
            (outcome,) = self._quick.commit([work])
        except Exception:  # noqa: BLE001  whatever it is: the thread tries again, and explains it
            self._quick.disconnect()
            return None
        self._since_checkpoint += 1
        return outcome

    def _enqueue(self, job: _Job) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ringwall-journal", daemon=True)
            self._thread.start()
        self._queued += 1
        self._since_checkpoint = 0
        self._queue.put(job)

    async def close(self) -> None:
        """Commit what has come in, and stop."""
        with self._lock:
            self._closed = True
            self._queue.put(None)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)
        if self._quick is not None:
            self._quick.disconnect()

    def _run(self) -> None:
        going = True
        while going:
            taken = [self._queue.get()]
            while self._queue.qsize():
                taken.append(self._queue.get())
            going = taken[-1] is not None
            jobs = [job for job in taken if job]
            outcomes = self._slow.settle([job.work for job in jobs])
            with self._lock:
                self._queued -= len(jobs)
            _answer(jobs, outcomes)
        self._slow.disconnect()


class Lane:
    """One connection that writes. With `waits=False` it neither waits for a lock nor copies the log back."""

    def __init__(self, database: Database, synchronous: Synchronous, *, waits: bool = True) -> None:
        self._database = database
        self._waits = waits
        self._always_full = synchronous == "FULL"
        value = "?" if database.on_sqlite else "%s"
        self._find = _statements(_FIND, value)
        self._put_lengths = _statements(_PUT_LENGTHS, _row(value, len(_RUN)))
        self._put_statuses = _statements(_PUT_STATUSES, _row(value, len(_NEW_RUN)))
        self._put_events = _statements(_PUT_EVENTS, _row(value, len(EVENTS.c)))
        self._connection: sa.PoolProxiedConnection | None = None
        self._cursor: Any = None  # the driver's
        self._full = self._always_full

    def settle(self, works: Sequence[Start | Append]) -> list[_Outcome]:
        """Commit the works in one transaction; if that fails for what one of them holds, each in its own."""
        if not works:
            return []
        try:
            return self.commit(works)
        except self._database.errors as error:
            self.disconnect()
            if len(works) == 1 or self._database.is_down(error):
                return [self._database.explain(error) for _ in works]
        except Exception as error:  # noqa: BLE001  the thread's outermost edge: each caller gets an answer
            self.disconnect()
            if len(works) == 1:
                return [error]
        return [outcome for work in works for outcome in self.settle([work])]

    def commit(self, works: Sequence[Start | Append]) -> list[_Outcome]:
        """Commit the works in one transaction. Raises what the database raises, and has then written nothing."""
        cursor = self._begin(durable=any(work.durable for work in works))
        batch = self._load(cursor, works)
        outcomes = [_apply(work, batch) for work in works]
        self._store(cursor, batch)
        cursor.connection.commit()
        return outcomes

    def disconnect(self) -> None:
        """Give up the connection, and with it what it had not committed, and the lock."""
        if self._connection is not None:
            with suppress(*self._database.errors):
                self._connection.rollback()
            self._connection.invalidate()
            self._connection = self._cursor = None

    def _begin(self, *, durable: bool) -> Any:
        if self._connection is None:
            self._connect()
        cursor = self._cursor
        if self._database.on_sqlite:
            full = durable or self._always_full
            if full != self._full:
                cursor.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
                self._full = full
            cursor.execute("BEGIN IMMEDIATE")
        return cursor

    def _connect(self) -> None:
        self._connection = self._database.engine.raw_connection()
        self._cursor = self._connection.cursor()
        self._full = self._always_full
        if not self._waits:
            self._cursor.execute("PRAGMA busy_timeout = 0")
            self._cursor.execute("PRAGMA wal_autocheckpoint = 0")

    def _load(self, cursor: Any, works: Sequence[Start | Append]) -> Batch:
        starting = any(isinstance(work, Start) for work in works)
        if starting and not self._database.on_sqlite:
            cursor.execute(_LOCK_STARTS)
        batch = Batch({}, (0, GENESIS))
        for number, run, owner, status, length, head in self._found(cursor, {stored(work.run) for work in works}):
            record = RunRecord(restored(run), restored(owner), RunStatus(status), length, head)
            batch.runs[record.run] = (number, record)
        if starting:
            cursor.execute(_LAST)
            batch.last = cursor.fetchone() or batch.last
            if batch.last[1] is None:
                raise ChainBroken("the newest run has lost its first event", hint="verify, and restore a backup")
        return batch

    def _found(self, cursor: Any, ids: Collection[str]) -> Iterator[Any]:
        """The records of these runs, locked."""
        if not self._database.on_sqlite:
            cursor.execute(_LOCK, [list(ids)])
            yield from cursor.fetchall()
            return
        for some in _pieces(sorted(ids)):
            cursor.execute(self._find[len(some)], some)
            yield from cursor.fetchall()

    def _store(self, cursor: Any, batch: Batch) -> None:
        longer = batch.longer - batch.other_status
        nobody = Worker("", "")
        named = [(*_run_row(*batch.runs[run]), *batch.workers.get(run, nobody)) for run in batch.other_status]
        _put(cursor, self._put_statuses, named)
        _put(cursor, self._put_lengths, [_run_row(*batch.runs[run]) for run in longer])
        _put(cursor, self._put_events, [_event_row(number, event) for number, event in batch.events])


def _put(cursor: Any, statements: Mapping[int, str], rows: Sequence[Row]) -> None:
    for piece in _pieces(rows):
        cursor.execute(statements[len(piece)], [value for row in piece for value in row])


def _statements(template: str, row: str) -> Mapping[int, str]:
    """The statement for each number of rows that `_pieces` cuts."""
    return {size: template.format(rows=", ".join([row] * size)) for size in _SIZES}


def _row(value: str, columns: int) -> str:
    return f"({', '.join([value] * columns)})"


def _apply(work: Start | Append, batch: Batch) -> _Outcome:
    try:
        return work.apply(batch)
    except RingwallError as refusal:
        return refusal


def _pieces(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut into pieces of 32, 16, ... 1, so that a handful of prepared statements serves any number."""
    at = 0
    for size in _SIZES:
        while len(rows) - at >= size:
            yield rows[at : at + size]
            at += size


def _run_row(number: int, record: RunRecord) -> Row:
    return (number, stored(record.run), stored(record.owner), record.status.value, record.length, record.head)


def _event_row(number: int, e: Event) -> Row:
    return (number, e.seq, stored(e.kind), e.at, stored(e.label), stored(e.body), e.previous, e.hash)


def _answer(jobs: Sequence[_Job], outcomes: Sequence[_Outcome]) -> None:
    answers = sorted(zip(jobs, outcomes, strict=True), key=_loop_id)
    for _, group in groupby(answers, _loop_id):
        settled = list(group)
        # The loop may be closed by now: then nobody waits.
        with suppress(RuntimeError):
            settled[0][0].loop.call_soon_threadsafe(_resolve, settled)


def _loop_id(answer: tuple[_Job, _Outcome]) -> int:
    return id(answer[0].loop)


def _resolve(settled: Iterable[tuple[_Job, _Outcome]]) -> None:
    for job, outcome in settled:
        if job.future.done():  # the caller went away
            continue
        if isinstance(outcome, Head):
            job.future.set_result(outcome)
        else:
            job.future.set_exception(outcome)
