"""Who carries runs on, and how a run changes hands: rare, and so in transactions of their own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from ringwall.deployment.journal import CARRIED, Draft, Head, Worker, chain
from ringwall.errors import InvalidInput, JournalConflict, RunHeld, UnknownRun
from ringwall_sql.database import Database, restored, stored
from ringwall_sql.tables import among
from ringwall_sql.writer import EVENTS, RUNS, WORKERS, Append

_FORGOTTEN_AFTER: Final = 3600.0  # seconds: the dead are kept for a while for whoever looks, and then swept away

_PUT: Final = sa.text(
    "INSERT INTO workers (worker, until) VALUES (:worker, :until) "
    "ON CONFLICT (worker) DO UPDATE SET until = excluded.until"
)
"""Also if somebody else has put it there a moment ago."""

_CARRIED: Final = RUNS.c.status.in_([status.value for status in CARRIED])


def keep(database: Database, worker: str, seconds: float) -> None:
    """Let a worker live for so many seconds more, by the database's clock, which all its users share."""
    with database.writing() as connection:
        now = _now(connection)
        there = connection.execute(
            sa.update(WORKERS).where(WORKERS.c.worker == stored(worker)).values(until=now + seconds)
        )
        if not there.rowcount:
            connection.execute(sa.delete(WORKERS).where(WORKERS.c.until < now - _FORGOTTEN_AFTER))
            connection.execute(_PUT, {"worker": stored(worker), "until": now + seconds})


def alive(database: Database) -> list[str]:
    """The workers that live."""
    with database.reading() as connection:
        rows = connection.execute(sa.select(WORKERS.c.worker).where(WORKERS.c.until > _now(connection)))
        return [restored(worker) for worker in rows.scalars()]


def hold(database: Database, work: Append, worker: Worker) -> Head:
    """Append as `work` says, and give the run to `worker`. Raises `UnknownRun`, `JournalConflict`, `RunHeld`."""
    query = sa.select(RUNS, (_CARRIED & _lives(other_than=worker)).label("held"))
    with database.writing() as connection:
        lives = {"now": _now(connection)}
        run = connection.execute(query.where(RUNS.c.run == stored(work.run)).with_for_update(of=RUNS), lives).first()
        if run is None:
            raise UnknownRun(work.run)
        if (run.length, run.head) != work.after:
            raise JournalConflict(f"run {work.run!r} went on elsewhere", hint="read it again before acting")
        if run.held:
            raise RunHeld(work.run)
        status = run.status if work.status is None else work.status.value
        return _append(connection, run, work.drafts, worker, status)


def take(database: Database, worker: Worker, drafts: Sequence[Draft], limit: int) -> list[str]:
    """Give `worker` up to `limit` runs of its crew that nobody carries on; who takes meanwhile gets others."""
    if not drafts:
        raise InvalidInput("a run is taken with no event", expected="at least one draft")
    with database.writing() as connection:
        runs = _free(connection, worker.crew, limit)
        for run in runs:
            _append(connection, run, drafts, worker, run.status)
    return [restored(run.run) for run in runs]


def _free(connection: sa.Connection, crew: str, limit: int) -> Sequence[sa.Row[Any]]:
    """Runs of a crew that nobody carries on, locked.

    They are read again once they are locked: PostgreSQL judges a row that somebody else took a moment before by who
    lived when the query began, and would let it pass
    (https://www.postgresql.org/docs/current/transaction-iso.html#XACT-READ-COMMITTED).
    """
    free = (_CARRIED, RUNS.c.crew == stored(crew), ~_lives())
    lock = sa.select(RUNS.c.number).where(*free).order_by(RUNS.c.number).limit(limit).with_for_update(skip_locked=True)
    while locked := connection.execute(lock, {"now": _now(connection)}).scalars().all():
        these = sa.select(RUNS).where(among(RUNS.c.number, locked, connection), *free).order_by(RUNS.c.number)
        if runs := connection.execute(these, {"now": _now(connection)}).all():
            return runs
    return []


def _lives(other_than: Worker | None = None) -> sa.ColumnElement[bool]:
    """Whether the worker of a run lives."""
    lives = (WORKERS.c.worker == RUNS.c.worker) & (WORKERS.c.until > sa.bindparam("now"))
    if other_than is not None:
        lives &= WORKERS.c.worker != stored(other_than.id)
    return sa.exists().where(lives)


def _append(connection: sa.Connection, run: sa.Row[Any], drafts: Sequence[Draft], worker: Worker, status: str) -> Head:
    events = chain(restored(run.run), drafts, seq=run.length, previous=run.head)
    length, head = run.length + len(events), events[-1].hash if events else run.head
    carried = {"worker": stored(worker.id), "crew": stored(worker.crew)}
    there = sa.update(RUNS).where(RUNS.c.number == run.number)
    connection.execute(there.values(status=status, length=length, head=head, **carried))
    rows = [
        {
            **event._asdict(),
            "run": run.number,
            "kind": stored(event.kind),
            "label": stored(event.label),
            "body": stored(event.body),
        }
        for event in events
    ]
    if rows:
        connection.execute(sa.insert(EVENTS), rows)
    return Head(length, head)


def _now(connection: sa.Connection) -> float:
    if connection.dialect.name == "sqlite":  # whose users are all on this machine
        return time.time()
    return float(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp())").scalar_one())
