"""Vectors beside the chunks: compared by numpy where SQLite keeps them, by pgvector in PostgreSQL."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from ringwall.data.base import Vector
from ringwall.errors import StoreError
from ringwall_sql.packing import Matrix, Precision, matrix, packed, precision_of
from ringwall_sql.tables import SHELF, SHELF_BITS, SHELVES, VECTORS, PgVector, among, insert
from ringwall_sql.view import Integers, Scores, View, best

NEAR_INDEX: Final = "chunk_vectors_near"
_NEAREST: Final = 200
_LEXICAL: Final = 1000

_SHELVED: Final = sa.text(
    "SELECT v.number, v.vector FROM json_each(:shelves) AS shelf CROSS JOIN chunk_vectors AS v "
    "WHERE v.number >= shelf.value * :size AND v.number < (shelf.value + 1) * :size"
)
_ALL: Final = sa.text(
    "SELECT string_agg(int8send(number) || float8send(1 - (vector <=> CAST(:vector AS vector))), CAST('' AS bytea)) "
    "FROM chunk_vectors WHERE acl = ANY(CAST(:acls AS bigint[]))"
)
_THESE: Final = sa.text(
    "SELECT string_agg(int8send(number) || float8send(1 - (vector <=> CAST(:vector AS vector))), CAST('' AS bytea)) "
    "FROM chunk_vectors WHERE number = ANY(CAST(:numbers AS bigint[]))"
)
_SIMILARITY: Final = np.dtype([("number", ">i8"), ("similarity", ">f8")])


class Vectors(ABC):
    """Compares a vector with those of the readable chunks. Many searches use one at the same time."""

    @abstractmethod
    def exact(self, connection: sa.Connection, view: View, vector: Vector) -> Scores:
        """The cosine of every readable chunk that has a vector."""

    def has_index(self, connection: sa.Connection, view: View) -> bool:
        """Whether `near` may be asked, and is worth it."""
        return False

    def near(self, connection: sa.Connection, view: View, vector: Vector, lexical: Scores) -> Scores:
        """The cosine of the best readable chunks of `lexical`, and of others that an index finds near."""
        return self.exact(connection, view, vector)


def kept_in(connection: sa.Connection) -> Precision | None:
    """What the vectors are kept in; None if there are none, so that any will do."""
    kept = connection.execute(sa.select(VECTORS.c.vector).limit(1)).scalar()
    return None if kept is None else precision_of(kept)


def check_precision(precision: Precision, connection: sa.Connection) -> None:
    """Raises `StoreError` if there are vectors, and they are kept in another precision."""
    there = kept_in(connection)
    if there not in (None, precision):
        raise StoreError(
            f"the vectors in this database are kept in {there}, not {precision}",
            expected=f"`vectors={there!r}`",
            hint="open it again without `vectors`, or copy the chunks to a new database: `ringwall.data.care.copy`",
        )


def put(connection: sa.Connection, rows: Iterable[tuple[int, int, bytes]]) -> None:
    """Keep vectors, each with its chunk's number and ACL."""
    insert(connection, VECTORS, list(rows))


def take(connection: sa.Connection, numbers: Sequence[int]) -> dict[int, bytes]:
    """Remove the vectors of these chunks, and return them."""
    these = among(VECTORS.c.number, numbers, connection)
    rows = connection.execute(sa.select(VECTORS.c.number, VECTORS.c.vector).where(these))
    taken = {row.number: row.vector for row in rows}
    if taken:
        connection.execute(sa.delete(VECTORS).where(these))
    return taken


class CachedVectors(Vectors):
    """Keeps the shelves it has read in memory, as 32-bit floats of length 1, until they change.

    It looks at every readable chunk: exact, and some 15 ms for 100,000 vectors of 256 dimensions.
    """

    def __init__(self) -> None:
        self._shelves: dict[int, tuple[int, Integers, Matrix]] = {}
        self._changes = -1

    def exact(self, connection: sa.Connection, view: View, vector: Vector) -> Scores:
        self._forget(connection, view.changes)
        unit = _units(np.array([vector]))[0]
        scores, found = np.zeros(view.rows), np.zeros(view.rows, dtype=bool)
        starts = (view.ends - view.tops).tolist()
        for start, (slots, units) in zip(starts, self._read(connection, view), strict=True):
            if not len(slots):
                continue
            rows = slots + start
            # Each row by itself: a product of the whole matrix rounds a row by what stands beside it.
            scores[rows] = np.einsum("ij,j->i", units, unit)
            found[rows] = True
        return Scores(scores, found)

    def _forget(self, connection: sa.Connection, changes: int) -> None:
        """Drop what has changed since: deleted vectors do not stay in memory."""
        if changes > self._changes:
            rows = connection.execute(sa.select(SHELVES.c.number, SHELVES.c.version))
            current = {row.number: row.version for row in rows}
            known = dict(self._shelves)  # a copy: other searches add to it meanwhile
            self._shelves = {shelf: entry for shelf, entry in known.items() if current.get(shelf) == entry[0]}
            self._changes = changes

    def _read(self, connection: sa.Connection, view: View) -> list[tuple[Integers, Matrix]]:
        """The slots and vectors of each shelf of the view, at the versions that the view saw."""
        known = self._shelves
        wanted = dict(zip(view.shelves.tolist(), view.versions, strict=True))
        # Another search, of an earlier or a later moment, may put what it saw there meanwhile: look once.
        looked = {shelf: known.get(shelf, _UNREAD) for shelf in wanted}
        found = {shelf: entry[1:] for shelf, entry in looked.items() if entry[0] == wanted[shelf]}
        stale = [shelf for shelf in wanted if shelf not in found]
        if stale:
            read = dict.fromkeys(stale, _UNREAD[1:]) | _shelved(connection, stale)
            found |= read
            if view.changes == self._changes:
                known.update({shelf: (wanted[shelf], *entry) for shelf, entry in read.items()})
        return [found[shelf] for shelf in wanted]


_UNREAD: Final[tuple[int, Integers, Matrix]] = (-1, np.zeros(0, np.int64), np.zeros((0, 0), np.float32))


def _shelved(connection: sa.Connection, shelves: Sequence[int]) -> dict[int, tuple[Integers, Matrix]]:
    rows = connection.execute(_SHELVED, {"shelves": json.dumps(shelves), "size": SHELF})
    read: dict[int, tuple[Integers, Matrix]] = {}
    for shelf, group in groupby(rows, lambda row: int(row[0]) >> SHELF_BITS):
        numbers, vectors = zip(*group, strict=True)
        read[shelf] = (np.array(numbers, np.int64) & (SHELF - 1), _units(matrix(list(vectors))))
    return read


def _units(rows: npt.NDArray[Any]) -> Matrix:
    """Each row at length 1; one of only zeros stays as it is, and is like nothing."""
    exact = rows.astype(np.float64)
    lengths = np.sqrt(np.einsum("ij,ij->i", exact, exact))
    lengths[lengths == 0.0] = 1.0
    units: Matrix = (exact / lengths[:, None]).astype(np.float32)
    return units


class PgVectors(Vectors):
    """Lets pgvector compare: exactly, or by its index if there is one and more than `exact_below` may be read."""

    def __init__(self, exact_below: int) -> None:
        self._exact_below = exact_below

    def exact(self, connection: sa.Connection, view: View, vector: Vector) -> Scores:
        return _scores(view, _similarities(connection, _ALL, vector, acls=view.acls))

    def has_index(self, connection: sa.Connection, view: View) -> bool:
        return view.count > self._exact_below and has_index(connection)

    def near(self, connection: sa.Connection, view: View, vector: Vector, lexical: Scores) -> Scores:
        words = view.numbers(best(lexical, _LEXICAL)[:_LEXICAL]).tolist()
        by_words = _similarities(connection, _THESE, vector, numbers=words)
        return _scores(view, np.concatenate([by_words, _nearest(connection, view, vector)]))


def has_index(connection: sa.Connection) -> bool:
    """Whether `make_index` was called, and its index is there."""
    there = connection.execute(sa.text("SELECT to_regclass(:name) IS NOT NULL"), {"name": NEAR_INDEX})
    return bool(there.scalar_one())


def make_index(connection: sa.Connection, dimension: int) -> None:
    """Build pgvector's HNSW index; nothing if it is there."""
    typed = f"(vector::vector({dimension})) vector_cosine_ops"
    connection.exec_driver_sql(f"CREATE INDEX IF NOT EXISTS {NEAR_INDEX} ON chunk_vectors USING hnsw ({typed})")
    connection.exec_driver_sql("ANALYZE chunk_vectors")  # who does not know how many there are does not use it


def drop_index(connection: sa.Connection) -> None:
    """Drop the index, which holds vectors of one dimension only."""
    if connection.dialect.name != "sqlite" and has_index(connection):
        connection.exec_driver_sql(f"DROP INDEX {NEAR_INDEX}")


def _nearest(connection: sa.Connection, view: View, vector: Vector) -> npt.NDArray[Any]:
    for setting in ("hnsw.iterative_scan = strict_order", f"hnsw.ef_search = {_NEAREST}"):
        connection.exec_driver_sql(f"SET LOCAL {setting}")
    typed = PgVector(len(vector))
    asked = sa.cast(sa.bindparam(None, packed(vector, "float32"), PgVector()), typed)
    distance: sa.ColumnElement[float] = sa.cast(VECTORS.c.vector, typed).op("<=>", return_type=sa.Double())(asked)
    query = sa.select(VECTORS.c.number, distance).where(among(VECTORS.c.acl, view.acls, connection))
    rows = connection.execute(query.order_by(distance).limit(_NEAREST)).all()
    return np.array([(number, 1.0 - far) for number, far in rows], _SIMILARITY)


def _similarities(connection: sa.Connection, query: sa.TextClause, vector: Vector, **among: object) -> npt.NDArray[Any]:
    text = json.dumps(np.array(vector, np.float32).tolist())
    packed: bytes | None = connection.execute(query, {"vector": text, **among}).scalar_one()
    return np.frombuffer(packed or b"", _SIMILARITY)


def _scores(view: View, similarities: npt.NDArray[Any]) -> Scores:
    scores, found = np.zeros(view.rows), np.zeros(view.rows, dtype=bool)
    rows = view.rows_of(similarities["number"].astype(np.int64))
    scores[rows] = np.nan_to_num(similarities["similarity"].astype(np.float64))  # a vector of zeros is like nothing
    found[rows] = True
    return Scores(scores, found)
