"""Where the keys are kept that a journal is sealed with: in this process, or in a file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from ringwall.errors import StoreError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A key of a subject for one day (since 1970, in UTC), known by its alias."""

    alias: str
    subject: str
    day: int
    secret: bytes

    def __repr__(self) -> str:
        return f"SubjectKey({self.alias!r})"


class Keys(ABC):
    """Keeps keys until they are destroyed, and then neither them nor whose they were.

    Methods raise `StoreError`. What `put` or `destroy` acknowledged is so after a crash, too.
    """

    @abstractmethod
    async def put(self, key: SubjectKey) -> SubjectKey:
        """Keep a key, and return it; or the one that the subject has for that day already."""

    @abstractmethod
    async def of(self, subject: str, day: int) -> SubjectKey | None:
        """The subject's key for that day."""

    @abstractmethod
    async def get(self, aliases: Collection[str]) -> list[SubjectKey]:
        """The keys of these aliases, as far as they are there."""

    @abstractmethod
    async def aliases(self, *, subject: str | None = None, before: int | None = None) -> list[str]:
        """The aliases of a subject's keys, of the keys for days before this one, or of both alike."""

    @abstractmethod
    async def destroy(self, aliases: Collection[str]) -> None:
        """Destroy these keys; those that are not there are fine."""

    async def close(self) -> None:
        """Release what the store holds."""


class InMemoryKeys(Keys):
    """Keeps keys in this process: with it goes whatever was sealed."""

    def __init__(self) -> None:
        self._keys: dict[str, SubjectKey] = {}

    async def put(self, key: SubjectKey) -> SubjectKey:
        return await self.of(key.subject, key.day) or self._keys.setdefault(key.alias, key)

    async def of(self, subject: str, day: int) -> SubjectKey | None:
        return next((k for k in self._keys.values() if (k.subject, k.day) == (subject, day)), None)

    async def get(self, aliases: Collection[str]) -> list[SubjectKey]:
        return [self._keys[alias] for alias in aliases if alias in self._keys]

    async def aliases(self, *, subject: str | None = None, before: int | None = None) -> list[str]:
        return [
            key.alias
            for key in self._keys.values()
            if (subject is None or key.subject == subject) and (before is None or key.day < before)
        ]

    async def destroy(self, aliases: Collection[str]) -> None:
        for alias in aliases:
            self._keys.pop(alias, None)


_SCHEMA: Final = """
    CREATE TABLE IF NOT EXISTS keys (
        alias TEXT PRIMARY KEY, subject BLOB NOT NULL, day INTEGER NOT NULL, secret BLOB NOT NULL, UNIQUE (subject, day)
    ) WITHOUT ROWID
"""


class SqliteKeys(Keys):
    """Keeps keys in an SQLite file of their own; any number of processes may use it.

    What is destroyed is overwritten in the file. Copies of the file, and what a file system or a disk keeps of
    overwritten blocks, are out of its reach. Whoever may read the file may read what is sealed: keep it apart from the
    journal, and from the journal's backups.
    """

    def __init__(self, path: str | Path, *, busy_timeout: float = 3.0) -> None:
        self._lock = threading.Lock()
        self._name = Path(path).name
        with self._explained():
            # No write-ahead log: it would hold old pages, and with them old keys, for as long as it likes.
            self._database = sqlite3.connect(path, timeout=busy_timeout, check_same_thread=False, isolation_level=None)
            try:
                for line in ("secure_delete = ON", "journal_mode = DELETE", "synchronous = EXTRA"):
                    self._database.execute(f"PRAGMA {line}")
                self._database.execute(_SCHEMA)
            except sqlite3.Error:
                self._database.close()
                raise
        if str(path) != ":memory:":
            Path(path).chmod(0o600)

    async def put(self, key: SubjectKey) -> SubjectKey:
        row = (key.alias, _stored(key.subject), key.day, key.secret)
        await self._run("INSERT OR IGNORE INTO keys VALUES (?, ?, ?, ?)", row)
        kept = await self.of(key.subject, key.day)
        if kept is None:
            raise StoreError("a key was destroyed while it was made", hint="try again")
        return kept

    async def of(self, subject: str, day: int) -> SubjectKey | None:
        rows = await self._run("SELECT * FROM keys WHERE subject = ? AND day = ?", (_stored(subject), day))
        return _key(rows[0]) if rows else None

    async def get(self, aliases: Collection[str]) -> list[SubjectKey]:
        these = "SELECT * FROM keys WHERE alias IN (SELECT value FROM json_each(?))"
        return [_key(row) for row in await self._run(these, (json.dumps(list(aliases)),))]

    async def aliases(self, *, subject: str | None = None, before: int | None = None) -> list[str]:
        query = "SELECT alias FROM keys WHERE (?1 IS NULL OR subject = ?1) AND (?2 IS NULL OR day < ?2)"
        rows = await self._run(query, (None if subject is None else _stored(subject), before))
        return [str(row[0]) for row in rows]

    async def destroy(self, aliases: Collection[str]) -> None:
        these = "DELETE FROM keys WHERE alias IN (SELECT value FROM json_each(?))"
        await self._run(these, (json.dumps(list(aliases)),))

    async def close(self) -> None:
        self._database.close()

    async def _run(self, statement: str, values: tuple[object, ...]) -> list[tuple[object, ...]]:
        def run() -> list[tuple[object, ...]]:
            with self._lock, self._explained():
                return self._database.execute(statement, values).fetchall()

        return await _shielded(run)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"the keys in {self._name!r} cannot be read or written: {error}",
                hint="allow this process to write to the file and to its directory",
            ) from error


async def _shielded(work: Callable[[], T]) -> T:
    """In a thread; to its end also when the caller goes away."""
    return await asyncio.shield(asyncio.to_thread(work))


def _stored(subject: str) -> bytes:
    return subject.encode("utf-8", "surrogatepass")


def _key(row: tuple[object, ...]) -> SubjectKey:
    alias, subject, day, secret = row
    if not (isinstance(alias, str) and isinstance(subject, bytes) and isinstance(day, int)):
        raise StoreError("a key cannot be read", hint="restore a backup of the keys")
    return SubjectKey(alias, subject.decode("utf-8", "surrogatepass"), day, bytes(secret))  # type: ignore[call-overload]
