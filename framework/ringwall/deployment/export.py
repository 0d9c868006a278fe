"""A journal as a file of JSON Lines: to be kept elsewhere, searched with other tools, and verified like the journal.

The first line is a header. Then come the runs in the order they began: a line that tells where the run ends, and a
line for each event, as it is in the journal, `body` and `label` as the exact texts that its hash covers. The last line
counts. Where a run stands is not told: the status is no evidence, the last event is.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from ringwall.deployment.journal import Event, Inspection, RunRecord, RunStatus, bad
from ringwall.errors import InvalidInput, UnknownRun
from ringwall.schema import JSON

_HEADER: Final[Mapping[str, JSON]] = {"ringwall_journal": 1}
_RECORD: Final = {"run": str, "owner": str, "length": int, "head": str}
_EVENT: Final = {
    "run": str, "seq": int, "kind": str, "at": float, "label": str, "body": str, "previous": str, "hash": str,
}  # fmt: skip
_END: Final = {"runs": int, "events": int}


class Export(Inspection):
    """Writes what it is handed, line by line. Whether it is all there, and unchanged, is for `verify` to say."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._runs = self._events = 0
        self._write(_HEADER)

    def run(self, record: RunRecord, events: Iterable[Event]) -> None:
        self._write(_record_line(record))
        self._runs += 1
        for event in events:
            self._write(event._asdict())
            self._events += 1

    def finish(self) -> int:
        """Write the last line; return the number of events."""
        self._write({"runs": self._runs, "events": self._events})
        return self._events

    def _write(self, value: Mapping[str, JSON]) -> None:
        self._file.write(_line(value))


class ExportedJournal:
    """An exported file, to be verified and explained from. Opening it raises `InvalidInput` if it is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if not is_exported(path):
            raise InvalidInput(f"{path} is no exported journal", expected="a file that `ringwall audit export` wrote")

    async def inspect(self, inspection: Inspection) -> None:
        """Hand every run with its events to `inspection`, in the order of the file. Raises what `inspection` does."""
        await asyncio.to_thread(self._inspect, inspection)

    async def read(self, run: str) -> list[Event]:
        """Return the run's events as they stand in the file. Raises `UnknownRun`, `ChainBroken`."""
        return (await self.find(run))[1]

    async def find(self, run: str) -> tuple[RunRecord, list[Event]]:
        """Return a run's record and events. Raises `UnknownRun`, `ChainBroken`."""
        search = _Search(run)
        await self.inspect(search)
        if search.found is None:
            raise UnknownRun(run)
        return search.found

    def _inspect(self, inspection: Inspection) -> None:
        with self._path.open("rb") as file:
            lines = _Lines(file)
            lines.take()
            runs = events = 0
            while isinstance(item := lines.take(), RunRecord):
                runs += 1
                below = lines.events(item)
                inspection.run(item, below)
                deque(below, maxlen=0)  # whoever inspects may leave events unread
                events += lines.count
            if item != {"runs": runs, "events": events} or lines.next is not None:
                inspection.lost(f"line {lines.number - 1} as it was written, or what stood before it,")


def is_exported(path: Path) -> bool:
    """Whether a file begins as an exported journal does."""
    with path.open("rb") as file:
        return file.readline(100) == _line(_HEADER)


class _Search(Inspection):
    def __init__(self, run: str) -> None:
        self._run = run
        self.found: tuple[RunRecord, list[Event]] | None = None

    def run(self, record: RunRecord, events: Iterable[Event]) -> None:
        if record.run == self._run:
            self.found = record, list(events)


_Item = RunRecord | Event | Mapping[str, Any] | bytes | None
"""A line: a run, an event, the last line, one that is not as it was written, or the end of the file."""


class _Lines:
    """The lines of a file, with one line of foresight: `next`, which is line `number`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = self.count = 0
        self.next: _Item = None
        self.take()

    def take(self) -> _Item:
        """Return the next line, and look at the one after it."""
        item = self.next
        line = self._file.readline()
        self.number += 1
        self.next = _item(line) if line else None
        return item

    def events(self, record: RunRecord) -> Iterator[Event]:
        """The events that stand below a run's line, others that came between included."""
        self.count = 0
        while isinstance(event := self.next, Event) or (isinstance(event, bytes) and self.count < record.length):
            if isinstance(event, bytes):
                raise bad(record.run, self.count, "cannot be read")
            if event.run != record.run and self.count >= record.length:
                return
            self.take()
            self.count += 1
            yield event


def _item(line: bytes) -> _Item:
    try:
        value = json.loads(line.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return line
    if not isinstance(value, dict) or _line(value) != line:
        return line
    kinds = {name: type(each) for name, each in value.items()}
    if kinds == _RECORD:
        return RunRecord(value["run"], value["owner"], RunStatus.DONE, value["length"], value["head"])
    if kinds == _EVENT:
        return Event(**value)
    return value if kinds == _END else line


def _record_line(record: RunRecord) -> Mapping[str, JSON]:
    return {"run": record.run, "owner": record.owner, "length": record.length, "head": record.head}


def _line(value: Mapping[str, JSON]) -> bytes:
    """One way to write it, so that what reads the same is the same; lone surrogates stay what they are."""
    return (json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")
