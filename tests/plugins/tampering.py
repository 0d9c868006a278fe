"""Who changes a journal behind its back: in the tables of SQLite and PostgreSQL, knowing how it works or not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from ringwall.deployment.journal import GENESIS, Draft, Event, RunRecord, chain, link
from ringwall_sql.database import stored
from ringwall_sql.writer import EVENTS, RUNS

_RECORD: Final = (RUNS.c.number, RUNS.c.run, RUNS.c.owner, RUNS.c.status, RUNS.c.length, RUNS.c.head)


@dataclass
class Run:
    """A run as it stands in a table or a file."""

    record: RunRecord
    events: list[Event]


def rewrite(url: str, run: str, record: RunRecord | None, events: Sequence[Event]) -> None:
    """Put these in place of what a database holds of a run; None: no record."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        number = connection.execute(sa.select(RUNS.c.number).where(RUNS.c.run == stored(run))).scalar_one()
        connection.execute(sa.delete(EVENTS).where(EVENTS.c.run == number))
        if events:
            connection.execute(sa.insert(EVENTS), [{**event._asdict(), "run": number} for event in events])
        here = RUNS.c.number == number
        if record is None:
            connection.execute(sa.delete(RUNS).where(here))
        else:
            changed = {"owner": record.owner, "length": record.length, "head": record.head}
            connection.execute(sa.update(RUNS).where(here).values(**changed))
    engine.dispose()


# One who knows how it works and writes every hash and record anew, but has not the key.


def rechained(runs: Sequence[Run]) -> list[Run]:
    """The same runs with hashes and records that fit."""
    last_start, done = GENESIS, []
    for run in runs:
        record = run.record
        each = [Draft(e.kind, e.body, e.label, e.at) for e in run.events]
        events = chain(record.run, each, seq=0, previous=link(last_start, record.owner))
        last_start = events[0].hash
        done.append(Run(record._replace(length=len(events), head=events[-1].hash), events))
    return done


def flipped(text: str, rng: random.Random) -> str:
    place = rng.randrange(len(text)) if text else 0
    return text[:place] + rng.choice([c for c in "0aZ{" if c != text[place : place + 1]]) + text[place + 1 :]


def forged(runs: list[Run], rng: random.Random) -> list[Run]:
    """One change, and everything after it made to fit."""
    run = rng.choice(runs)
    place = rng.randrange(len(run.events))
    event = run.events[place]
    match rng.choice(["body", "at", "owner", "drop", "swap", "exchange", "insert", "cut", "no run", "move", "new run"]):
        case "body":
            run.events[place] = event._replace(body=flipped(event.body, rng))
        case "at":
            run.events[place] = event._replace(at=event.at + 1)
        case "owner":
            run.record = run.record._replace(owner=flipped(run.record.owner, rng))
        case "drop" if len(run.events) > 1:
            del run.events[place]
        case "swap":
            rng.shuffle(run.events)
        case "exchange":
            other = rng.choice(runs)
            there = rng.randrange(len(other.events))
            run.events[place], other.events[there] = other.events[there], event
        case "insert":
            run.events.insert(place, event._replace(body="{}"))  # at the end it would be a run that went on
        case "cut" if place:
            del run.events[place:]
        case "no run":
            runs.remove(run)
        case "move":
            rng.shuffle(runs)
        case "new run":
            new = Run(run.record._replace(run="new"), list(run.events))
            runs.insert(rng.randrange(len(runs)), new)
    return rechained(runs)


# One who changes what is there and no more.


class Tables:
    """A journal's tables, behind its back."""

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url)
        self._records, self._events = self._rows()

    def close(self) -> None:
        self._engine.dispose()

    def _rows(self) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        with self._engine.connect() as connection:
            records = connection.execute(sa.select(*_RECORD).order_by(RUNS.c.number)).all()
            events = connection.execute(sa.select(EVENTS).order_by(EVENTS.c.run, EVENTS.c.seq)).all()
        return [tuple(row) for row in records], [tuple(row) for row in events]

    def restore(self) -> None:
        self._put(self._records, self._events)

    def _put(self, records: Sequence[tuple[Any, ...]], events: Sequence[tuple[Any, ...]]) -> None:
        with self._engine.begin() as connection:
            for table, columns, rows in ((RUNS, _RECORD, records), (EVENTS, tuple(EVENTS.c), events)):
                connection.execute(sa.delete(table))
                names = [column.name for column in columns]
                if rows:
                    connection.execute(sa.insert(table), [dict(zip(names, row, strict=True)) for row in rows])

    def write(self, runs: Sequence[Run]) -> None:
        """Put other runs in place of all that is there."""
        records = [(n, r.record.run, r.record.owner, "done", *r.record[-2:]) for n, r in enumerate(runs, 1)]
        events = [(n, *event[1:]) for n, run in enumerate(runs, 1) for event in run.events]
        self._put(records, events)

    def tamper(self, rng: random.Random) -> None:
        """Change something, and leave the rest as it is."""
        event = rng.choice(self._events)
        number, seq = event[:2]
        of_run, later = EVENTS.c.run == number, EVENTS.c.seq >= seq
        there = rng.choice(self._events)[:2]
        with self._engine.begin() as connection:
            match rng.choice(["flip", "drop", "swap", "cut", "cut well", "no run", "no record", "no events"]):
                case "flip":
                    self._flip(connection, event, rng)
                case "drop":
                    connection.execute(sa.delete(EVENTS).where(_at((number, seq))))
                case "swap":
                    for place, to in (((number, seq), (0, 0)), (there, (number, seq)), ((0, 0), there)):
                        connection.execute(sa.update(EVENTS).where(_at(place)).values(run=to[0], seq=to[1]))
                case "cut":
                    connection.execute(sa.delete(EVENTS).where(of_run, later))
                case "cut well":
                    connection.execute(sa.delete(EVENTS).where(of_run, later))
                    end = {"length": seq, "head": event[6]}  # what it was chained to
                    connection.execute(sa.update(RUNS).where(RUNS.c.number == number).values(**end))
                case "no run":
                    connection.execute(sa.delete(EVENTS).where(of_run))
                    connection.execute(sa.delete(RUNS).where(RUNS.c.number == number))
                case "no record":
                    connection.execute(sa.delete(RUNS).where(RUNS.c.number == number))
                case "no events":
                    connection.execute(sa.delete(EVENTS).where(of_run))

    def _flip(self, connection: sa.Connection, event: tuple[Any, ...], rng: random.Random) -> None:
        name, old = rng.choice(list(zip(EVENTS.c.keys(), event, strict=True)))
        new: object
        new = flipped(old, rng) if isinstance(old, str) else rng.choice([old + 100, -old - 1, *self._odd(old)])
        if self._odd(0) and rng.random() < 0.1 and name not in ("run", "seq"):
            new = b"\x00"
        # In plain SQL, which lets anything into a column that the database lets in.
        change = sa.text(f"UPDATE events SET {name} = :new WHERE run = :run AND seq = :seq")
        connection.execute(change, {"new": new, "run": event[0], "seq": event[1]})

    def _odd(self, old: float) -> list[object]:
        """What SQLite lets into a column of numbers, and PostgreSQL does not."""
        return [old + 0.5, "odd"] if self._engine.dialect.name == "sqlite" else []

    def first_difference(self) -> tuple[str, int] | None:
        """The first run and place where something else stands than before, as the tables are sorted."""
        records, events = self._rows()
        for place, was in enumerate(self._records):
            number, run, owner, *_ = was
            there = records[place] if place < len(records) else None
            if there is None or there[:3] != (number, run, owner):
                return str(run), 0
            before = [row for row in self._events if row[0] == number]
            after = [row for row in events if row[0] == number]
            for seq in range(max(len(before), len(after))):
                if before[seq : seq + 1] != after[seq : seq + 1]:
                    return str(run), seq
        return None


def _at(place: tuple[int, int]) -> sa.ColumnElement[bool]:
    return sa.and_(EVENTS.c.run == place[0], EVENTS.c.seq == place[1])
