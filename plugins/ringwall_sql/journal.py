"""The journal in an SQL database."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from ringwall.deployment.journal import Draft, Event, Head, Inspection, Journal, RunRecord, RunStatus, Worker, bad
from ringwall.errors import ChainBroken, JournalUnavailable, UnknownRun
from ringwall_sql import leases
from ringwall_sql.database import BUSY_TIMEOUT, Database, Synchronous, restored, stored
from ringwall_sql.writer import EVENTS, RUNS, SCHEMA, Append, Start, Writer

_RECORD: Final = (RUNS.c.run, RUNS.c.owner, RUNS.c.status, RUNS.c.length, RUNS.c.head)
_EVENT: Final = tuple(column for column in EVENTS.c if column is not EVENTS.c.run)
_STATUSES: Final = frozenset(RunStatus)
_NO_MORE: Final[tuple[None, Iterator[Any]]] = (None, iter(()))
_ROWS_AT_A_TIME: Final = 32  # few: a body may have megabytes


class SqlJournal(Journal):
    """Keeps events in SQLite (a path) or in any database that SQLAlchemy reaches by a URL.

    One thread writes. Appends that come in while it commits are committed together by its next transaction:
    each is still whole or not at all, and a conflict of one is no other's. Any number of processes may use
    the same database.

    `synchronous` says which commits wait for the disk on SQLite: with `NORMAL` those of `durable` appends,
    with `FULL` all. `busy_timeout` is how long, in seconds, to wait for another's lock before
    `JournalUnavailable`. Tables of an older version of Ringwall are brought up to date; without `migrate` they
    are refused. Where there is no journal one is made; without `create` that is refused, too.
    """

    def __init__(
        self,
        url_or_path: str | Path,
        *,
        synchronous: Synchronous = "NORMAL",
        busy_timeout: float = BUSY_TIMEOUT,
        migrate: bool = True,
        create: bool = True,
    ) -> None:
        self._database = Database(
            url_or_path,
            SCHEMA,
            failure=JournalUnavailable,
            migrate=migrate,
            create=create,
            synchronous=synchronous,
            busy_timeout=busy_timeout,
        )
        if self._database.found is None and not create:
            self._database.engine.dispose()
            raise JournalUnavailable(
                f"there is no journal in the database {self._database.name!r}", hint="name the one that the app uses"
            )
        self._writer = Writer(self._database, synchronous)

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
        return await self._writer.write(Start(run, drafts, durable, owner, status, worker))

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
        work = Append(run, drafts, durable, after, status)
        if worker is not None:
            return await self._database.run(lambda: leases.hold(self._database, work, worker))
        return await self._writer.write(work)

    async def read(self, run: str) -> list[Event]:
        query = sa.select(*_EVENT).join(RUNS, RUNS.c.number == EVENTS.c.run)
        query = query.where(RUNS.c.run == stored(run)).order_by(EVENTS.c.seq)
        rows = await self._all(query)
        if not rows:
            raise UnknownRun(run)
        return list(_events(run, rows))

    async def record(self, run: str) -> RunRecord:
        rows = await self._all(sa.select(*_RECORD).where(RUNS.c.run == stored(run)))
        if not rows:
            raise UnknownRun(run)
        return _record(rows[0])

    async def runs(self, status: RunStatus | None = None) -> list[RunRecord]:
        query = sa.select(*_RECORD).order_by(RUNS.c.number)
        if status is not None:
            query = query.where(RUNS.c.status == status.value)
        return [_record(row) for row in await self._all(query)]

    async def keep(self, worker: str, seconds: float) -> None:
        await self._database.run(lambda: leases.keep(self._database, worker, seconds))

    async def workers(self) -> list[str]:
        return await self._database.run(lambda: leases.alive(self._database))

    async def take(self, worker: Worker, drafts: Sequence[Draft], *, limit: int = 1) -> list[str]:
        return await self._database.run(lambda: leases.take(self._database, worker, drafts, limit))

    async def inspect(self, inspection: Inspection) -> None:
        await self._database.run(lambda: self._inspect(inspection))

    async def close(self) -> None:
        await self._writer.close()
        await self._database.close()

    async def _all(self, query: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        def read() -> Sequence[Sequence[Any]]:
            with self._database.reading() as connection:
                return connection.execute(query).all()

        return await self._database.run(read)

    def _inspect(self, inspection: Inspection) -> None:
        with self._database.reading() as connection:
            connection = connection.execution_options(yield_per=_ROWS_AT_A_TIME)
            records = connection.execute(sa.select(RUNS.c.number, *_RECORD).order_by(RUNS.c.number))
            events = connection.execute(sa.select(EVENTS).order_by(EVENTS.c.run, EVENTS.c.seq))
            with closing(records), closing(events):  # also when the inspection stops in the middle
                for record, rows in _side_by_side(records, events, inspection):
                    inspection.run(record, _events(record.run, rows))


def _side_by_side(
    records: Iterable[Sequence[Any]], events: Iterable[Sequence[Any]], inspection: Inspection
) -> Iterator[tuple[RunRecord, Iterable[Sequence[Any]]]]:
    """Each run with its events, both given in order of the run's number, which counts from 1."""
    groups = itertools.groupby(events, key=itemgetter(0))
    number, rows = next(groups, _NO_MORE)
    stray = None
    for place, record in enumerate(records, 1):
        while isinstance(number, int | float) and number < record[0]:
            if number >= place:  # where a record is missing, too
                inspection.lost(f"the record of run number {number}")
            stray = number
            number, rows = next(groups, _NO_MORE)
        if number == record[0]:
            yield _record(record[1:]), (row[1:] for row in rows)
            number, rows = next(groups, _NO_MORE)
        else:
            yield _record(record[1:]), ()
    if stray is not None or number is not None:
        inspection.lost(f"the record of run number {number if stray is None else stray}")


# SQLite keeps whatever somebody wrote into a column: what is no text or number there was not written by us.


def _record(row: Sequence[Any]) -> RunRecord:
    run, owner, status, length, head = row
    if status not in _STATUSES or not isinstance(length, int) or bytes in map(type, (run, owner, head)):
        raise ChainBroken(f"the record of run {run!r} cannot be read", run=str(run), seq=0, hint="restore a backup")
    return RunRecord(restored(run), restored(owner), RunStatus(status), length, head)


def _events(run: str, rows: Iterable[Sequence[Any]]) -> Iterator[Event]:
    for place, row in enumerate(rows):
        if bytes in map(type, row):
            raise bad(run, place, "cannot be read")
        seq, kind, at, label, body, previous, hash_ = row
        yield Event(run, seq, restored(kind), at, restored(label), restored(body), previous, hash_)
