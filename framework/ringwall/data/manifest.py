"""What was ingested, and from what: so that only what changed is done again."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Final, NamedTuple

from ringwall.data.lock import take
from ringwall.errors import StoreError
from ringwall.principal import ACL
from ringwall.schema import canonical

_SCHEMA: Final = """
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    CREATE TABLE IF NOT EXISTS documents (
        name TEXT PRIMARY KEY, content TEXT NOT NULL, recipe TEXT NOT NULL, readers TEXT NOT NULL,
        passages INTEGER NOT NULL, done INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TEMP TABLE seen (name TEXT PRIMARY KEY) WITHOUT ROWID;
    CREATE TEMP TABLE held (name TEXT PRIMARY KEY, passages INTEGER NOT NULL) WITHOUT ROWID;
"""


class Entry(NamedTuple):
    """A document that is in the store: what it was read from, how it was cut and embedded, and who reads it."""

    name: str
    content: str
    recipe: str
    readers: ACL
    passages: int


class Manifest:
    """The documents that a store holds, in the SQLite file `path`; without one in memory, for one ingestion.

    A document is marked as begun before the store is touched, and as done after the store has answered: one
    that was begun and not done, since the process died between the two, is done again.

    Raises `StoreError` if the file cannot be used, or another process has it open: two that ingest the same
    library would undo each other's work.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file = None if path is None else _taken(Path(path))
        self.lasts = path is not None
        """Whether it is still there for the next process."""
        with _errors(path):
            try:
                self._db = _opened(path)
            except sqlite3.Error:
                self._let_go()
                raise

    def find(self, name: str) -> Entry | None:
        """What is known of a document; None if it is new, or was begun and not done."""
        with self._guarded() as db:
            row = db.execute(
                "SELECT name, content, recipe, readers, passages FROM documents WHERE name = ? AND done", (name,)
            ).fetchone()
        return _entry(row) if row else None

    def see(self, name: str) -> bool:
        """Note that a document is there now; False if it was seen before, since the last `start`."""
        with self._guarded() as db:
            return db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (name,)).rowcount == 1

    def start(self) -> None:
        """Begin to see, and to note, anew."""
        with self._guarded() as db:
            db.execute("DELETE FROM seen")
            db.execute("DELETE FROM held")
            db.commit()

    def unseen(self, prefix: str) -> Iterator[str]:
        """The documents in the store whose names begin with `prefix` and that were not seen."""
        with self._guarded() as db:
            rows = db.execute(
                "SELECT name FROM documents WHERE substr(name, 1, ?) = ? AND name NOT IN (SELECT name FROM seen)",
                (len(prefix), prefix),
            )
            return iter([name for (name,) in rows])

    def entries(self) -> Iterator[Entry]:
        """All documents that are done."""
        with self._guarded() as db:
            rows = db.execute("SELECT name, content, recipe, readers, passages FROM documents WHERE done").fetchall()
        return (_entry(row) for row in rows)

    def begun(self) -> list[str]:
        """The documents that were begun and not done."""
        with self._guarded() as db:
            return [name for (name,) in db.execute("SELECT name FROM documents WHERE NOT done")]

    def begin(self, names: Iterable[str]) -> None:
        """Say, before the store is touched, which documents are about to change in it."""
        with self._guarded() as db:
            db.executemany(
                "INSERT INTO documents VALUES (?, '', '', '[]', 0, 0) ON CONFLICT DO UPDATE SET done = 0",
                [(name,) for name in names],
            )
            db.commit()

    def finish(self, entries: Iterable[Entry]) -> None:
        """Say, after the store has answered, what it holds now."""
        with self._guarded() as db:
            db.executemany(
                "INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, 1)",
                [(e.name, e.content, e.recipe, canonical(sorted(e.readers)), e.passages) for e in entries],
            )
            db.commit()

    def forget(self, names: Iterable[str]) -> None:
        """Say, after the store has answered, what it does not hold any more."""
        with self._guarded() as db:
            db.executemany("DELETE FROM documents WHERE name = ?", [(name,) for name in names])
            db.commit()

    def hold(self, passages: Mapping[str, int]) -> None:
        """Note that the store holds so many passages of these documents, besides what was noted before."""
        with self._guarded() as db:
            db.executemany(
                "INSERT INTO held VALUES (?, ?) ON CONFLICT DO UPDATE SET passages = passages + excluded.passages",
                passages.items(),
            )

    def doubt(self) -> None:
        """Have every document done again of which another number of passages was noted than it should have."""
        with self._guarded() as db:
            db.execute(
                "UPDATE documents SET done = 0 WHERE done AND passages != "
                "coalesce((SELECT held.passages FROM held WHERE held.name = documents.name), 0)"
            )
            db.commit()

    def embedded_anew(self, before: str, now: str) -> None:
        """Say that every document which was embedded in one way is embedded in another (`ingestion.fingerprint`)."""
        with self._guarded() as db:
            db.execute(
                "UPDATE documents SET recipe = substr(recipe, 1, instr(recipe, ':')) || ? "
                "WHERE substr(recipe, instr(recipe, ':') + 1) = ?",
                (now, before),
            )
            db.commit()

    @property
    def revision(self) -> str:
        """The store's revision when it was last known to hold what stands here."""
        with self._guarded() as db:
            row = db.execute("SELECT value FROM facts WHERE name = 'revision'").fetchone()
        return row[0] if row else ""

    @revision.setter
    def revision(self, revision: str) -> None:
        with self._guarded() as db:
            db.execute("INSERT OR REPLACE INTO facts VALUES ('revision', ?)", (revision,))
            db.commit()

    def back_up(self, path: str | Path, *, revision: str) -> None:
        """Write what stands here to another file, for a store whose revision is `revision`."""
        with self._guarded() as db, contextlib.closing(sqlite3.connect(path)) as copy, copy:
            db.backup(copy)
            copy.execute("INSERT OR REPLACE INTO facts VALUES ('revision', ?)", (revision,))

    def close(self) -> None:
        """Close the file and let other processes have it."""
        with self._guarded() as db:
            db.close()
        self._let_go()

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _errors(self._path):
            try:
                yield self._db
            except sqlite3.Error:
                with contextlib.suppress(sqlite3.Error):
                    self._db.rollback()  # what was half said must not go along with what is said next
                raise

    def _let_go(self) -> None:
        if self._file is not None:
            self._file.close()


def _opened(path: str | Path | None) -> sqlite3.Connection:
    db = sqlite3.connect(path or ":memory:", check_same_thread=False)
    try:
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db


def _entry(row: tuple[str, str, str, str, int]) -> Entry:
    name, content, recipe, readers, passages = row
    return Entry(name, content, recipe, ACL(json.loads(readers)), passages)


@contextlib.contextmanager
def _errors(what: object) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(
            f"the manifest could not use {str(what)!r}: {error}",
            hint="is the disk full? A manifest that is damaged may be deleted: all is then ingested again",
        ) from error


def _taken(path: Path) -> IO[bytes]:
    hint = "somebody is ingesting into this library: wait until they are done, or stop them; what they did is kept"
    return take(path.with_name(f"{path.name}.lock"), what=f"the manifest {str(path)!r}", hint=hint)
