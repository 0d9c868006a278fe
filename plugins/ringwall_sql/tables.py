"""The tables of a document store.

A chunk stands on a shelf: at most `SHELF` chunks with the same readers. Its number is `shelf * SHELF + slot`, so that
whatever is kept by number is kept by readers too, and a search that may not open a shelf touches nothing on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, Final, TypeVar

import numpy as np
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType

from ringwall_sql.schema import Schema

T = TypeVar("T")

SHELF_BITS: Final = 10
SHELF: Final = 1 << SHELF_BITS

FLOAT32: Final = np.dtype("<f4")


class PgVector(UserDefinedType[bytes]):
    """pgvector's type, which here takes and gives what SQLite keeps: the bytes of 32-bit floats."""

    cache_ok = True

    def __init__(self, dimension: int | None = None) -> None:
        self.dimension = dimension

    def get_col_spec(self, **_: Any) -> str:
        return "vector" if self.dimension is None else f"vector({self.dimension})"

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[bytes | None], str | None]:
        return lambda vector: None if vector is None else json.dumps(np.frombuffer(vector, FLOAT32).tolist())

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], bytes | None]:
        return lambda text: None if text is None else np.array(json.loads(text), FLOAT32).tobytes()


_NUMBER: Final = sa.BigInteger().with_variant(sa.Integer, "sqlite")

TABLES: Final = sa.MetaData()
SCHEMA: Final = Schema(
    "documents", "0002", TABLES, extension="vector", pragmas=("secure_delete = ON", "cache_size = -65536")
)

STORE: Final = sa.Table(
    "chunk_store",
    TABLES,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # there is one row, number 1
    sa.Column("born", sa.Text, nullable=False),
    sa.Column("changes", sa.BigInteger, nullable=False),
    sa.Column("dimension", sa.Integer),
)

ACLS: Final = sa.Table(
    "acls",
    TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("grants", sa.Text, nullable=False),
)

OPENS: Final = sa.Table(
    "acl_grants",
    TABLES,
    sa.Column("grant_key", sa.Text, primary_key=True),
    sa.Column("acl", _NUMBER, primary_key=True, index=True),
    sqlite_with_rowid=False,
)

SHELVES: Final = sa.Table(
    "chunk_shelves",
    TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("acl", _NUMBER, nullable=False, index=True),
    sa.Column("version", sa.BigInteger, nullable=False),  # `STORE.changes` at its last change
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("length", sa.BigInteger, nullable=False),
    sa.Column("top", sa.Integer, nullable=False),  # above every slot in use
)

DOCUMENTS: Final = sa.Table(
    "chunk_documents",
    TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("id", sa.Text, nullable=False),
)

CHUNKS: Final = sa.Table(
    "chunks",
    TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, nullable=False, unique=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("document", _NUMBER, nullable=False, index=True),
    sa.Column("start", sa.BigInteger, nullable=False),
    sa.Column("end", sa.BigInteger, nullable=False),
    sa.Column("length", sa.BigInteger, nullable=False),  # in words
    sa.Column("metadata", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
)

POSTINGS: Final = sa.Table(
    "chunk_words",
    TABLES,
    sa.Column("acl", _NUMBER, primary_key=True, autoincrement=False),  # first: what is hidden lies elsewhere
    sa.Column("word", sa.Text, primary_key=True),
    sa.Column("shelf", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("entries", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

VECTORS: Final = sa.Table(
    "chunk_vectors",
    TABLES,
    sa.Column("number", _NUMBER, primary_key=True, autoincrement=False),
    sa.Column("acl", _NUMBER, nullable=False, index=True),
    sa.Column("vector", sa.LargeBinary().with_variant(PgVector(), "postgresql"), nullable=False),
)


def shelf_of(column: sa.ColumnElement[int]) -> sa.ColumnElement[int]:
    """The shelf on which a number stands."""
    return column.op(">>")(sa.cast(SHELF_BITS, sa.Integer))


def key(text: str) -> str:
    """A short name of `text`, whatever its length and its characters: databases bound what an index can hold."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()


def among(
    column: sa.ColumnElement[Any], values: Iterable[str] | Iterable[int], connection: sa.Connection
) -> sa.ColumnElement[bool]:
    """Whether `column` is one of `values`, however many they are: they are bound as one."""
    if connection.dialect.name == "sqlite":
        each = sa.func.json_each(json.dumps(list(values))).table_valued("value")
        return column.in_(sa.select(each.c.value))
    bound = sa.bindparam(None, list(values), postgresql.ARRAY(column.type))
    return column == sa.func.any(bound)


def readable_acls(grants: Iterable[str], connection: sa.Connection) -> sa.Select[Any]:
    """The ACLs that somebody who holds `grants` may read, as part of a query."""
    return sa.select(OPENS.c.acl).where(among(OPENS.c.grant_key, map(key, grants), connection))


def write(
    connection: sa.Connection,
    statement: sa.Insert | sa.TextClause,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Execute `statement` for each row, which has values for these columns, in the order the statement names them."""
    if not rows:
        return
    if connection.dialect.name == "sqlite":  # past SQLAlchemy, which would spend more on a row than SQLite does
        connection.exec_driver_sql(str(statement.compile(dialect=connection.dialect)), list(map(tuple, rows)))
    else:
        connection.execute(statement, [dict(zip(columns, row, strict=True)) for row in rows])


def insert(connection: sa.Connection, table: sa.Table, rows: Sequence[Sequence[Any]]) -> None:
    """Insert rows, each with a value for every column of the table, in its order."""
    write(connection, sa.insert(table), table.columns.keys(), rows)


def batches(items: Iterable[T], size: int = 1000) -> Iterator[Sequence[T]]:
    """Cut into lists of `size`; the last may be shorter."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
