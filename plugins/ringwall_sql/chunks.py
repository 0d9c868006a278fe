"""A chunk in its rows: written whole, removed whole, and read again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, Final, Self

import sqlalchemy as sa

from ringwall.data.base import Chunk, Section
from ringwall.data.lexical import words
from ringwall.errors import InvalidInput
from ringwall.principal import ACL
from ringwall_sql import postings, vectors
from ringwall_sql.database import restored, stored
from ringwall_sql.packing import Precision, packed, unpacked
from ringwall_sql.shelves import Room, acl_numbers, acl_of, acl_text, clear_away, leave, next_number
from ringwall_sql.tables import (
    ACLS,
    CHUNKS,
    DOCUMENTS,
    SHELF,
    SHELVES,
    VECTORS,
    among,
    batches,
    insert,
    key,
    shelf_of,
)

_LARGEST: Final = 2**63 - 1

_IN_ORDER: Final = itemgetter(*CHUNKS.columns.keys())

_PUT_AT_ONCE: Final = 2048
"""Chunks that are written together: more than an ingestion brings, so that a word's row is written once."""

_WHOLE: Final = (
    sa.select(CHUNKS, DOCUMENTS.c.id.label("of"), SHELVES.c.acl, ACLS.c.grants, VECTORS.c.vector)
    .join(DOCUMENTS, DOCUMENTS.c.number == CHUNKS.c.document)
    .join(SHELVES, SHELVES.c.number == shelf_of(CHUNKS.c.number))
    .join(ACLS, ACLS.c.number == SHELVES.c.acl)
    .outerjoin(VECTORS, VECTORS.c.number == CHUNKS.c.number)
)


@dataclass(frozen=True, slots=True)
class Record:
    """A chunk as it is written."""

    readers: ACL
    document: str
    columns: Mapping[str, Any]
    words: Mapping[str, int]
    vector: bytes | None

    @classmethod
    def of(cls, chunk: Chunk, precision: Precision) -> Self:
        """Raises `InvalidInput` for what no database can hold."""
        if not (0 <= chunk.start <= _LARGEST and 0 <= chunk.end <= _LARGEST):
            raise InvalidInput(
                f"chunk {chunk.id!r} is from {chunk.start} to {chunk.end}", expected="numbers of 63 bits"
            )
        counted = Counter(words(chunk.text))
        columns = {
            "key": key(chunk.id),
            "id": stored(chunk.id),
            "start": chunk.start,
            "end": chunk.end,
            "length": counted.total(),
            "metadata": json.dumps(dict(chunk.metadata)),
            "text": stored(chunk.text),
        }
        vector = None if chunk.vector is None else packed(chunk.vector, precision)
        return cls(chunk.readers, chunk.document, columns, counted, vector)

    def read_by(self, readers: ACL) -> Self:
        """The same chunk with other readers."""
        return replace(self, readers=readers)


class Change:
    """Puts and takes chunks in one transaction, whose number is `version`. Call `tidy` last."""

    def __init__(self, connection: sa.Connection, version: int) -> None:
        self._connection = connection
        self._version = version
        self._shelves: set[int] = set()
        self._documents: set[int] = set()

    def put(self, records: Iterable[Record]) -> None:
        """Write these, whose ids are not there."""
        for batch in batches(_by_readers(records), _PUT_AT_ONCE):
            self._put(batch)

    def take(self, numbers: Iterable[int]) -> list[Record]:
        """Remove the chunks of these numbers, with their words and vectors, and return what they were."""
        return [record for batch in batches(numbers) for record in self._take(batch)]

    def tidy(self) -> None:
        """Remove shelves, readers and documents that nothing is left of."""
        clear_away(self._connection, self._shelves)
        used = sa.exists().where(CHUNKS.c.document == DOCUMENTS.c.number)
        for some in batches(self._documents):
            these = among(DOCUMENTS.c.number, some, self._connection)
            self._connection.execute(sa.delete(DOCUMENTS).where(these, ~used))

    def _put(self, records: Sequence[Record]) -> None:
        acls = acl_numbers(self._connection, {record.readers for record in records})
        documents = _document_numbers(self._connection, {record.document for record in records})
        placed: list[tuple[int, Record]] = []
        for readers, group in groupby(records, attrgetter("readers")):
            together = list(group)
            room = Room(self._connection, acls[readers], self._version)
            placed += zip(room.place([record.columns["length"] for record in together]), together, strict=True)
        rows = [{**r.columns, "number": number, "document": documents[r.document]} for number, r in placed]
        insert(self._connection, CHUNKS, list(map(_IN_ORDER, rows)))
        vectors.put(self._connection, [(n, acls[r.readers], r.vector) for n, r in placed if r.vector is not None])
        postings.put(self._connection, [(n, acls[r.readers], r.words) for n, r in placed])

    def _take(self, numbers: Sequence[int]) -> list[Record]:
        these = among(CHUNKS.c.number, numbers, self._connection)
        rows = self._connection.execute(_WHOLE.where(these)).all()
        self._connection.execute(sa.delete(CHUNKS).where(these))
        vectors.take(self._connection, numbers)
        records = [_record(row) for row in rows]
        taken = [(row.number, row.acl, record.words, row.length) for row, record in zip(rows, records, strict=True)]
        postings.take(self._connection, taken)
        self._shelves |= leave(self._connection, {row.number: row.length for row in rows}, self._version)
        self._documents |= {row.document for row in rows}
        return records


def chunk_of(row: sa.Row[Any]) -> Chunk:
    """The chunk in a row of `whole`."""
    return Chunk(
        restored(row.id),
        restored(row.of),
        restored(row.text),
        acl_of(row.grants),
        start=row.start,
        end=row.end,
        vector=None if row.vector is None else unpacked(row.vector),
        metadata=json.loads(row.metadata),
    )


def whole(*conditions: sa.ColumnElement[bool]) -> sa.Select[Any]:
    """The chunks that meet the conditions, with all that belongs to them."""
    return _WHOLE.where(*conditions)


def section(connection: sa.Connection, shelf: int, *, key: bytes, known: Container[int]) -> Section | None:
    """What stands on a shelf, and those chunks of it whose marks are not known; None if there is no such shelf.

    `key` is the store's: whoever writes documents cannot tell which marks they get.
    """
    rows = connection.execute(whole(CHUNKS.c.number.between(shelf * SHELF, (shelf + 1) * SHELF - 1))).all()
    if not rows:
        return None
    marks = [_mark(row, key) for row in rows]
    unknown = {mark: chunk_of(row) for mark, row in zip(marks, rows, strict=True) if mark not in known}
    return Section(shelf, acl_of(rows[0].grants), marks, unknown)


def numbers_of(connection: sa.Connection, ids: Iterable[str]) -> list[int]:
    """The numbers of the chunks of these ids."""
    rows = sa.select(CHUNKS.c.number).where(among(CHUNKS.c.key, map(key, ids), connection))
    return list(connection.execute(rows).scalars())


def numbers_in(connection: sa.Connection, documents: Iterable[str]) -> list[int]:
    """The numbers of all chunks of these documents."""
    rows = sa.select(CHUNKS.c.number).join(DOCUMENTS, DOCUMENTS.c.number == CHUNKS.c.document)
    return list(connection.execute(rows.where(among(DOCUMENTS.c.key, map(key, documents), connection))).scalars())


def _mark(row: sa.Row[Any], key: bytes) -> int:
    """A number for all that a row of `whole` says, but for its readers. No text holds a NUL: see `stored`."""
    told = "\0".join((row.key, row.of, f"{row.start} {row.end}", row.metadata, row.text))
    digest = blake2b(told.encode("utf-8", "surrogatepass"), digest_size=8, key=key)
    digest.update(b"\0" if row.vector is None else row.vector)
    return int.from_bytes(digest.digest(), "little")


def _record(row: sa.Row[Any]) -> Record:
    columns = {name: getattr(row, name) for name in ("key", "id", "start", "end", "length", "metadata", "text")}
    counted = Counter(words(restored(row.text)))
    return Record(acl_of(row.grants), restored(row.of), columns, counted, row.vector)


def _by_readers(records: Iterable[Record]) -> Iterator[Record]:
    """The same records, those with the same readers one after the other."""
    together: dict[ACL, list[Record]] = {}
    for record in records:
        together.setdefault(record.readers, []).append(record)
    for readers in sorted(together, key=acl_text):
        yield from together[readers]


def _document_numbers(connection: sa.Connection, ids: Iterable[str]) -> dict[str, int]:
    """The number of each document; a new one is written down."""
    by_key = {key(id): id for id in ids}
    these = among(DOCUMENTS.c.key, by_key, connection)
    rows = connection.execute(sa.select(DOCUMENTS.c.key, DOCUMENTS.c.number).where(these))
    known = {by_key[name]: number for name, number in rows}
    new = [(name, id) for name, id in by_key.items() if id not in known]
    numbered = list(enumerate(new, next_number(connection, DOCUMENTS.c.number)))
    insert(connection, DOCUMENTS, [(number, name, stored(id)) for number, (name, id) in numbered])
    return known | {id: number for number, (_, id) in numbered}
