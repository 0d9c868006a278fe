"""Documents in an SQL database."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Collection, Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

import sqlalchemy as sa

from ringwall.data.base import Chunk, Match, Query, Section, Sections, StoreOfRecord
from ringwall.data.fuse import DENSE_WEIGHT
from ringwall.data.vectors import check_vector, check_vectors
from ringwall.errors import ConfigurationError, RingwallError, StoreError
from ringwall.principal import ACL, Grants
from ringwall_sql import checks, vectors
from ringwall_sql.chunks import Change, Record, chunk_of, numbers_in, numbers_of, section, whole
from ringwall_sql.database import Database, restored, stored
from ringwall_sql.packing import PRECISIONS, Precision
from ringwall_sql.search import Search
from ringwall_sql.tables import (
    CHUNKS,
    DOCUMENTS,
    SCHEMA,
    SHELVES,
    STORE,
    TABLES,
    VECTORS,
    among,
    batches,
    key,
    readable_acls,
)
from ringwall_sql.vectors import CachedVectors, PgVectors
from ringwall_sql.view import view

T = TypeVar("T")

EXACT_BELOW: Final = 50_000
"""Among so many readable chunks PostgreSQL compares every vector, even if there is an index."""

BUSY_TIMEOUT: Final = 30.0
"""Seconds for which who writes waits for another who does, unless told otherwise; nobody who reads waits."""

_BORN: Final = sa.text("INSERT INTO chunk_store (number, born, changes) VALUES (1, :born, 0) ON CONFLICT DO NOTHING")
_BATCH: Final = 1000
_SECTIONS: Final = 8
"""Shelves read in one transaction: thousands of chunks, and others have their turn in between."""
_CHANGED: Final = "ringwall_changed"


class SqlDocuments(StoreOfRecord):
    """Keeps chunks in SQLite (a path), or in PostgreSQL with pgvector (a URL), and finds them as `MemoryStore` does.

    Results, scores and order are those of a store in which hidden chunks do not exist. In PostgreSQL that holds
    until `build_index`: from then on, who may read more than `exact_below` chunks gets what the index finds near,
    still only what may be read, and never fewer than `k` of it.

    A change is one transaction; who may read is looked up in the transaction that searches. Several processes
    may use the same database, one of them writing at a time, and other stores may lie in it too. Work runs in
    threads. Tables of an older version of Ringwall are brought up to date by who opens them first and may change
    them; without `migrate` they are refused. Raises `StoreError` when the database is locked for longer than
    `busy_timeout` seconds, read-only, full, damaged or gone.
    """

    def __init__(
        self,
        url_or_path: str | Path,
        *,
        dense_weight: float = DENSE_WEIGHT,
        exact_below: int = EXACT_BELOW,
        busy_timeout: float = BUSY_TIMEOUT,
        vectors: Precision | None = None,
        migrate: bool = True,
    ) -> None:
        """`vectors` is what each value of a vector is kept in on SQLite: None for what it is in there, or float32.

        Vectors come back rounded to it, and are compared so. Raises `StoreError` if there are others already, and
        `ConfigurationError` for anything but float32 in PostgreSQL.
        """
        self._dense_weight = dense_weight
        self._busy_timeout = busy_timeout
        self._closed = False
        self._database = Database(
            url_or_path,
            SCHEMA,
            failure=StoreError,
            migrate=migrate,
            synchronous="FULL",  # a reader who was taken away does not come back with the power
            busy_timeout=busy_timeout,
        )
        self._vectors = CachedVectors() if self._database.on_sqlite else PgVectors(exact_below)
        try:
            with self._database.explaining():
                self._begin()
                self._precision = self._settled(vectors)
        except RingwallError:
            self._database.engine.dispose()
            raise

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        """As in `DocumentStore`; the last of several chunks with one id counts.

        Raises `InvalidInput`, and stores nothing, for a vector not finite or of another dimension.
        """
        await self._run(lambda: self._replace([], chunks))

    async def replace(self, documents: Sequence[str], chunks: Sequence[Chunk]) -> None:
        """As in `DocumentStore`, in one transaction. Raises `InvalidInput` as `upsert` does."""
        await self._run(lambda: self._replace(documents, chunks))

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        """As in `DocumentStore`. Raises `InvalidInput` for a query vector of another dimension."""
        return await self._run(lambda: self._search(query, readable, k))

    async def get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        return await self._run(lambda: self._get(ids, readable))

    async def scan(self) -> AsyncIterator[Sequence[Chunk]]:
        last = -1
        while page := await self._run(lambda: self._page(last)):  # noqa: B023 (run at once)
            last = page[-1][0]
            yield [chunk for _, chunk in page]

    async def revision(self) -> str:
        return await self._run(self._revision)

    async def sections(self) -> Sections:
        """As in `StoreOfRecord`: a section is a shelf."""
        return await self._run(self._sections)

    async def delete(self, documents: Sequence[str]) -> None:
        """As in `DocumentStore`. What is deleted is overwritten in the tables, and is in no file after `compact`."""
        await self._run(lambda: self._replace(documents, []))

    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        await self._run(lambda: self._set_readers(documents, readers))

    async def documents(self, prefix: str = "") -> list[str]:
        """The ids of all documents that begin with `prefix`, sorted. For the deployer, as `scan` is."""
        return await self._run(lambda: self._documents(prefix))

    async def verify(self) -> list[str]:
        """What is wrong with the database, a sentence each; empty if all is well. Reads everything once."""
        return await self._run(lambda: checks.findings(self._database))

    async def compact(self) -> None:
        """Give back free space, and leave nothing of what was deleted in the database's files.

        Raises `StoreError` if somebody is reading what was there before: then it is to be done again.
        """
        await self._run(self._compact)

    async def build_index(self) -> None:
        """Let PostgreSQL search many vectors by an index (HNSW), which it keeps from then on; nothing on SQLite.

        It holds writers up while it is built, and is gone when the last vector is deleted. Raises `StoreError`
        for more than 2,000 dimensions, which pgvector does not index.
        """
        if not self._database.on_sqlite:
            await self._run(self._build_index)

    async def close(self) -> None:
        self._closed = True
        await self._database.close()

    async def _run(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise StoreError("the document store is closed", hint="close it last")
        return await self._database.run(work)

    def _begin(self) -> None:
        """Look whether the database can be read; the first who opens it writes down when it was born."""
        with self._database.reading() as connection:
            born = connection.execute(sa.select(STORE.c.born)).scalar()
            connection.execute(sa.select(SHELVES).limit(1)).first()
        if born is None:
            with self._database.writing() as connection:
                connection.execute(_BORN, {"born": uuid.uuid4().hex})

    def _settled(self, wanted: Precision | None) -> Precision:
        """In what vectors will be kept."""
        if wanted not in (None, *PRECISIONS) or (wanted not in (None, "float32") and not self._database.on_sqlite):
            expected = PRECISIONS if self._database.on_sqlite else ("float32",)
            raise ConfigurationError(f"vectors kept in {wanted!r}", expected=f"one of: {', '.join(expected)}")
        with self._database.reading() as connection:
            if wanted is None:
                return vectors.kept_in(connection) or "float32"
            vectors.check_precision(wanted, connection)
        return wanted

    @contextmanager
    def _changing(self) -> Iterator[tuple[sa.Connection, Change, int | None]]:
        """One change: the connection, what puts and takes, and the dimension there was."""
        with self._database.writing() as connection:
            if not self._database.on_sqlite:
                connection.exec_driver_sql(f"SET LOCAL lock_timeout = {round(self._busy_timeout * 1000)}")
            # First of all, since PostgreSQL lets one writer after the other have this row.
            connection.execute(sa.update(STORE).values(changes=STORE.c.changes + 1))
            changes, dimension = connection.execute(sa.select(STORE.c.changes, STORE.c.dimension)).one()
            connection.info[_CHANGED] = True
            change = Change(connection, changes)
            yield connection, change, dimension
            change.tidy()

    def _replace(self, documents: Sequence[str], chunks: Sequence[Chunk]) -> None:
        chunks = list({chunk.id: chunk for chunk in chunks}.values())
        check_vectors(chunks, None)
        records = [Record.of(chunk, self._precision) for chunk in chunks]
        first = next((chunk for chunk in chunks if chunk.vector is not None), None)
        with self._changing() as (connection, change, dimension):
            change.take(numbers_in(connection, documents))
            dimension = _remaining(connection, dimension) if documents else dimension
            if first is not None and first.vector is not None:
                dimension = check_vector(first.vector, dimension, of=f"chunk {first.id!r}")
                vectors.check_precision(self._precision, connection)
            change.take(numbers_of(connection, [chunk.id for chunk in chunks]))
            change.put(records)
            connection.execute(sa.update(STORE).values(dimension=dimension))

    def _set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        with self._changing() as (connection, change, _):
            for numbers in batches(numbers_in(connection, documents)):
                change.put([record.read_by(readers) for record in change.take(numbers)])

    @contextmanager
    def _asked(self) -> Iterator[sa.Connection]:
        """A connection to read in as somebody, without the pages in memory that a change went through as nobody.

        Among those of what is hidden, those of what is not are found more slowly.
        """
        with self._database.reading() as connection:
            if connection.info.pop(_CHANGED, False) and self._database.on_sqlite:
                connection.exec_driver_sql("PRAGMA shrink_memory")
            yield connection

    def _search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        with self._asked() as connection:
            seen = view(connection, readable)
            if k < 1 or not seen.count:
                return []
            if query.vector is not None:
                check_vector(query.vector, seen.dimension, of="the query")
            return Search(connection, seen, self._vectors, query, self._dense_weight).matches(k)

    def _get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        with self._asked() as connection:
            permitted = SHELVES.c.acl.in_(readable_acls(readable, connection))
            rows = connection.execute(whole(among(CHUNKS.c.key, map(key, ids), connection), permitted))
            found = {chunk.id: chunk for chunk in map(chunk_of, rows)}
        return [found[id] for id in dict.fromkeys(ids) if id in found]

    def _page(self, last: int) -> list[tuple[int, Chunk]]:
        with self._database.reading() as connection:
            rows = connection.execute(whole(CHUNKS.c.number > last).order_by(CHUNKS.c.number).limit(_BATCH))
            return [(row.number, chunk_of(row)) for row in rows]

    def _revision(self) -> str:
        with self._database.reading() as connection:
            born, changes = connection.execute(sa.select(STORE.c.born, STORE.c.changes)).one()
        return f"{born}-{changes}"

    def _sections(self) -> Sections:
        with self._database.reading() as connection:
            born: str = connection.execute(sa.select(STORE.c.born)).scalar_one()
            rows = connection.execute(sa.select(SHELVES.c.number, SHELVES.c.version, SHELVES.c.count)).all()

        async def read(names: Collection[int], known: Container[int]) -> AsyncIterator[Section]:
            for some in batches(names, _SECTIONS):
                for found in await self._run(lambda: self._stand(born, some, known)):  # noqa: B023 (run at once)
                    yield found

        versions = {number: f"{born}-{version}" for number, version, _ in rows}
        return Sections(versions, {number: count for number, _, count in rows}, read)

    def _stand(self, born: str, shelves: Sequence[int], known: Container[int]) -> list[Section]:
        with self._database.reading() as connection:
            found = [section(connection, shelf, key=born.encode(), known=known) for shelf in shelves]
        return [each for each in found if each is not None]

    def _documents(self, prefix: str) -> list[str]:
        start = stored(prefix)
        with self._database.reading() as connection:
            begins = sa.func.substr(DOCUMENTS.c.id, 1, len(start)) == start
            ids = connection.execute(sa.select(DOCUMENTS.c.id).where(begins)).scalars()
            return sorted(map(restored, ids))

    def _build_index(self) -> None:
        with self._changing() as (connection, _, dimension):
            if dimension is not None:
                vectors.make_index(connection, dimension)

    def _compact(self) -> None:
        with self._database.outside() as cursor:
            if not self._database.on_sqlite:
                cursor.execute("VACUUM (FULL) " + ", ".join(TABLES.tables))
                return
            cursor.execute("VACUUM")
            if cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise StoreError("the database is being read, and could not be compacted", hint="compact it again")


def _remaining(connection: sa.Connection, dimension: int | None) -> int | None:
    """The dimension of the vectors there are; None if there is none, so that other embeddings may come."""
    if connection.execute(sa.select(VECTORS.c.number).limit(1)).first() is not None:
        return dimension
    vectors.drop_index(connection)
    return None
