"""Checkpoints, and every way of tampering with what they tell of."""

from __future__ import annotations

import io
import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from ringwall.deployment.checkpoints import Checkpoint, checkpoint, verify
from ringwall.deployment.export import Export, ExportedJournal
from ringwall.deployment.journal import GENESIS, Draft, Event, Head, Journal, RunRecord, chain, link
from ringwall.errors import ChainBroken
from ringwall_audit import SecretKey
from ringwall_sql import SqlJournal

pytestmark = pytest.mark.asyncio

KEY: Final = SecretKey.generate()


@dataclass
class Run:
    """A run as it stands in a table or a file."""

    record: RunRecord
    events: list[Event]


async def filled(path: Path) -> tuple[SqlJournal, list[Checkpoint]]:
    """A journal of several runs that went on at the same time, with three checkpoints between."""
    journal, kept, heads = SqlJournal(path), [], dict[str, Head]()
    for round_ in range(3):
        for number in range(2 * round_, 2 * round_ + 2):
            heads[f"r{number}"] = await journal.start(f"r{number}", f"user:{number}", drafts(number, 3))
        for run in list(heads)[round_:]:
            heads[run] = await journal.append(run, drafts(round_, 2), heads[run])
        made = await checkpoint(journal, KEY)
        assert made is not None
        kept.append(made)
    return journal, kept


def drafts(first: int, count: int) -> list[Draft]:
    return [Draft("noted", f'{{"n":{number},"é":"\\""}}', "", 1.5e9 + number) for number in range(first, first + count)]


# Two who tamper: one who changes what is there and no more, and one who knows how it works and writes every hash and
# record anew, but has not the key.


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


class Tables:
    """A journal in SQLite, behind its back."""

    def __init__(self, path: Path) -> None:
        self.database = sqlite3.connect(path, isolation_level=None)
        self._records = self._rows("runs")
        self._events = self._rows("events")

    def _rows(self, table: str) -> list[tuple[object, ...]]:
        order = "number" if table == "runs" else "run, seq"
        return self.database.execute(f"SELECT * FROM {table} ORDER BY {order}").fetchall()

    def restore(self) -> None:
        self._put(self._records, self._events)

    def _put(self, records: Sequence[tuple[object, ...]], events: Sequence[tuple[object, ...]]) -> None:
        with self.transaction() as database:
            database.execute("DELETE FROM runs")
            database.execute("DELETE FROM events")
            database.executemany("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)", records)
            database.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?)", events)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        self.database.execute("BEGIN")
        yield self.database
        self.database.execute("COMMIT")

    def write(self, runs: Sequence[Run]) -> None:
        """Put other runs in place of all that is there."""
        records = [(n, r.record.run, r.record.owner, "done", *r.record[-2:]) for n, r in enumerate(runs, 1)]
        events = [(n, *event[1:]) for n, run in enumerate(runs, 1) for event in run.events]
        self._put(records, events)

    def tamper(self, rng: random.Random) -> None:
        """Change something, and leave the rest as it is."""
        number, seq, *_ = event = rng.choice(self._events)
        here = (number, seq)
        with self.transaction() as database:
            match rng.choice(["flip", "drop", "swap", "cut", "cut well", "no run", "no record", "no events"]):
                case "flip":
                    self._flip(database, event, rng)
                case "drop":
                    database.execute("DELETE FROM events WHERE run = ? AND seq = ?", here)
                case "swap":
                    there = rng.choice(self._events)[:2]
                    move = "UPDATE events SET run = ?, seq = ? WHERE run = ? AND seq = ?"
                    for change in ((0, 0, *here), (*here, *there), (*there, 0, 0)):
                        database.execute(move, change)
                case "cut":
                    database.execute("DELETE FROM events WHERE run = ? AND seq >= ?", here)
                case "cut well":
                    database.execute("DELETE FROM events WHERE run = ? AND seq >= ?", here)
                    head = event[6]  # what it was chained to
                    database.execute("UPDATE runs SET length = ?, head = ? WHERE number = ?", (seq, head, number))
                case "no run":
                    database.execute("DELETE FROM events WHERE run = ?", (number,))
                    database.execute("DELETE FROM runs WHERE number = ?", (number,))
                case "no record":
                    database.execute("DELETE FROM runs WHERE number = ?", (number,))
                case "no events":
                    database.execute("DELETE FROM events WHERE run = ?", (number,))

    def _flip(self, database: sqlite3.Connection, event: tuple[object, ...], rng: random.Random) -> None:
        column = rng.randrange(8)
        name = ("run", "seq", "kind", "at", "label", "body", "previous", "hash")[column]
        old = event[column]
        new: object = flipped(old, rng) if isinstance(old, str) else None
        if new is None:
            new = rng.choice([old + 100, -old - 1, old + 0.5, "odd"])  # type: ignore[operator]
        if rng.random() < 0.1 and name not in ("run", "seq"):
            new = b"\x00"
        database.execute(f"UPDATE events SET {name} = ? WHERE run = ? AND seq = ?", (new, *event[:2]))

    def first_difference(self) -> tuple[str, int] | None:
        """The first run and place where something else stands than before, as the tables are sorted."""
        records, events = self._rows("runs"), self._rows("events")
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


async def named(tampered: SqlJournal | ExportedJournal, kept: Sequence[Checkpoint]) -> tuple[str, int | None] | None:
    """The event that `verify` calls the first bad one, if any."""
    try:
        await verify(tampered, [KEY.verifier], kept)
    except ChainBroken as broken:
        return broken.run, broken.seq
    return None


async def test_of_1000_tamperings_in_the_tables_the_first_bad_event_is_named_in_each(tmp_path: Path) -> None:
    journal, kept = await filled(tmp_path / "journal.db")
    runs = [Run(record, await journal.read(record.run)) for record in await journal.runs()]
    tables, rng, seen = Tables(tmp_path / "journal.db"), random.Random(5), 0
    with closing(tables.database):
        while seen < 1000:
            if rng.random() < 0.5:
                tables.tamper(rng)
            else:
                tables.write(forged([Run(run.record, list(run.events)) for run in runs], rng))
            first = tables.first_difference()
            assert await named(journal, kept) == first
            seen += first is not None  # an event that is swapped with itself is no tampering
            tables.restore()
    assert await named(journal, kept) is None
    await journal.close()


async def exported(journal: Journal, path: Path) -> Path:
    with path.open("wb") as file:
        export = Export(file)
        await journal.inspect(export)
        export.finish()
    return path


def tampered_lines(lines: list[bytes], rng: random.Random) -> list[bytes]:
    """An exported file, header aside, with one line or two changed, moved or gone."""
    place, other = sorted(rng.sample(range(len(lines) - 1), 2))
    match rng.choice(["flip", "drop", "swap", "cut", "cut within a line"]):
        case "flip" if b'"seq"' in lines[place]:
            at = rng.randrange(len(lines[place]))
            lines[place] = (
                lines[place][:at] + bytes([lines[place][at] ^ rng.randrange(1, 256)]) + lines[place][at + 1 :]
            )
        case "drop":
            del lines[place]
        case "swap":
            lines[place], lines[other] = lines[other], lines[place]
        case "cut":
            del lines[place:]
        case "cut within a line":
            lines[place:] = [lines[place][: rng.randrange(len(lines[place]))]]
    return lines


def first_different_line(before: Sequence[bytes], after: Sequence[bytes]) -> tuple[str, int] | None:
    """The run and number of the first event that differs, or that stands first below a run's line that does."""
    for place, line in enumerate(before[:-1]):
        if place >= len(after) or without_end(after[place]) != without_end(line):
            value = json.loads(line)
            return value["run"], value.get("seq", 0)
    return None


def without_end(line: bytes) -> bytes:
    """The line of a run without what it says of its end: where events are changed, that fits or it does not."""
    return line.partition(b',"length":')[0]


async def test_of_1000_tamperings_in_an_exported_file_the_first_bad_event_is_named_in_each(tmp_path: Path) -> None:
    journal, kept = await filled(tmp_path / "journal.db")
    runs = [Run(record, await journal.read(record.run)) for record in await journal.runs()]
    path = await exported(journal, tmp_path / "journal.jsonl")
    await journal.close()
    header, *lines = path.read_bytes().splitlines(keepends=True)
    rng, seen = random.Random(6), 0
    while seen < 1000:
        if rng.random() < 0.5:
            after = tampered_lines(list(lines), rng)
        else:
            after = written([*forged([Run(run.record, list(run.events)) for run in runs], rng)])
        path.write_bytes(header + b"".join(after))
        first = first_different_line(lines, after)
        assert await named(ExportedJournal(path), kept) == first
        seen += first is not None
    path.write_bytes(header + b"".join(lines))
    assert await named(ExportedJournal(path), kept) is None


def written(runs: Sequence[Run]) -> list[bytes]:
    """The lines of a file that holds these runs."""
    file = io.BytesIO()
    export = Export(file)
    for run in runs:
        export.run(run.record, run.events)
    export.finish()
    return file.getvalue().splitlines(keepends=True)[1:]
