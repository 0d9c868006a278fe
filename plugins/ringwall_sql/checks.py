"""What can be wrong with a document store, and is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np
import sqlalchemy as sa

from ringwall_sql import postings
from ringwall_sql.database import Database, restored
from ringwall_sql.packing import dimension_of
from ringwall_sql.tables import (
    ACLS,
    CHUNKS,
    DOCUMENTS,
    OPENS,
    POSTINGS,
    SHELF,
    SHELVES,
    STORE,
    VECTORS,
    key,
    shelf_of,
)

_STANDING: Final = shelf_of(CHUNKS.c.number)


def findings(database: Database) -> list[str]:
    """A sentence for each thing that is wrong, seen at one moment; of a damaged file, where it is damaged."""
    with database.reading() as connection:
        damage = list(_damage(connection)) if database.on_sqlite else []
        return damage or [finding for check in _CHECKS for finding in check(connection)]


def _damage(connection: sa.Connection) -> Iterator[str]:
    try:
        said = list(connection.exec_driver_sql("PRAGMA quick_check(10)").scalars())
    except sa.exc.DatabaseError as error:
        if getattr(error.orig, "sqlite_errorname", "") != "SQLITE_CORRUPT":
            raise
        said = [str(error.orig)]  # so bad that the check itself gives up
    yield from (f"the file is damaged: {what}; put it aside and restore a backup" for what in said if what != "ok")


def _chunks_without_readers(connection: sa.Connection) -> Iterator[str]:
    chunks = sa.select(CHUNKS.c.id, ACLS.c.number).outerjoin(SHELVES, SHELVES.c.number == _STANDING)
    chunks = chunks.outerjoin(ACLS, ACLS.c.number == SHELVES.c.acl)
    chunks = chunks.outerjoin(DOCUMENTS, DOCUMENTS.c.number == CHUNKS.c.document)
    for id, acl in connection.execute(chunks.where(ACLS.c.number.is_(None) | DOCUMENTS.c.number.is_(None))):
        yield f"chunk {restored(id)!r} has no {'readers' if acl is None else 'document'}"


def _readers_that_open_nothing(connection: sa.Connection) -> Iterator[str]:
    opens: dict[int, set[str]] = {}
    for name, acl in connection.execute(sa.select(OPENS.c.grant_key, OPENS.c.acl)):
        opens.setdefault(acl, set()).add(name)
    for number, grants in connection.execute(sa.select(ACLS.c.number, ACLS.c.grants)):
        if not json.loads(grants) or opens.pop(number, set()) != set(map(key, json.loads(grants))):
            yield f"the readers {grants} are not those who may open their shelves"
    if opens:
        yield f"{len(opens)} lists of readers are unknown"


def _wrong_counters(connection: sa.Connection) -> Iterator[str]:
    counted = sa.select(_STANDING, sa.func.count(), sa.func.sum(CHUNKS.c.length), sa.func.max(CHUNKS.c.number))
    rows = connection.execute(counted.group_by(_STANDING))
    there = {shelf: (count, int(length), number % SHELF) for shelf, count, length, number in rows}
    for number, _, _, said, words, top in connection.execute(sa.select(SHELVES)):
        count, length, highest = there.get(number, (0, 0, -1))
        if (said, words) != (count, length) or highest >= top:
            yield f"shelf {number} says it has {said} chunks of {words} words; it has {count} of {length}"


def _wrong_vectors(connection: sa.Connection) -> Iterator[str]:
    dimension = connection.execute(sa.select(STORE.c.dimension)).scalar_one()
    rows = sa.select(VECTORS.c.number, VECTORS.c.vector, VECTORS.c.acl, CHUNKS.c.id, SHELVES.c.acl)
    rows = rows.outerjoin(CHUNKS, CHUNKS.c.number == VECTORS.c.number)
    rows = rows.outerjoin(SHELVES, SHELVES.c.number == shelf_of(VECTORS.c.number))
    for number, vector, acl, id, of in connection.execution_options(yield_per=1000).execute(rows):
        if id is None:
            yield f"the vector with number {number} belongs to no chunk"
        elif acl != of:
            yield f"the vector of chunk {restored(id)!r} has other readers than the chunk"
        elif (size := dimension_of(vector)) != dimension:
            yield f"the vector of chunk {restored(id)!r} has {size} dimensions, and not {dimension}"


def _words_of_others(connection: sa.Connection) -> Iterator[str]:
    there = sa.select(POSTINGS.c.shelf).distinct().outerjoin(SHELVES, SHELVES.c.number == POSTINGS.c.shelf)
    for shelf in connection.execute(there.where(SHELVES.c.acl.is_distinct_from(POSTINGS.c.acl))).scalars():
        yield f"the words on shelf {shelf} have other readers than the shelf"


def _wrong_words(connection: sa.Connection) -> Iterator[str]:
    """Whether the words that stand on the shelves are as many as the chunks have."""
    chunks = connection.execute(sa.select(CHUNKS.c.number, CHUNKS.c.length))
    missing = Counter({row.number: row.length for row in chunks})
    for _, shelf, entries in postings.entries_by_word(connection):
        numbers = (shelf * SHELF + entries["slot"].astype(np.int64)).tolist()
        for number, times in zip(numbers, entries["times"].tolist(), strict=True):
            missing[number] -= times
    for number in sorted(number for number, words in missing.items() if words):
        yield f"the chunk with number {number} is not to be found by as many words as it has"


_CHECKS: Final = (
    _chunks_without_readers,
    _readers_that_open_nothing,
    _wrong_counters,
    _wrong_vectors,
    _words_of_others,
    _wrong_words,
)
