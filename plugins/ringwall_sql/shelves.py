"""Where chunks stand: who may open a shelf, and where on it there is room."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import sqlalchemy as sa

from ringwall.principal import ACL
from ringwall_sql.tables import ACLS, CHUNKS, OPENS, SHELF, SHELF_BITS, SHELVES, among, batches, key

_TAKE = sa.text(
    "UPDATE chunk_shelves SET count = count - :count, length = length - :length, version = :version "
    "WHERE number = :number"
)
_PUT = sa.text(
    "UPDATE chunk_shelves SET count = count + :count, length = length + :length, version = :version, top = :top "
    "WHERE number = :number"
)


def acl_text(readers: ACL) -> str:
    """An ACL as it is kept: always the same text for the same grants."""
    return json.dumps(sorted(readers))


def acl_of(text: str) -> ACL:
    """What `acl_text` was given."""
    return ACL(json.loads(text))


def next_number(connection: sa.Connection, column: sa.Column[int]) -> int:
    """A number that no row has. Only for who holds the right to write."""
    highest: int | None = connection.execute(sa.select(sa.func.max(column))).scalar_one()
    return (highest or 0) + 1


def acl_numbers(connection: sa.Connection, acls: Iterable[ACL]) -> dict[ACL, int]:
    """The number of each ACL; a new one is written down."""
    by_key = {key(acl_text(acl)): acl for acl in acls}
    rows = connection.execute(sa.select(ACLS.c.key, ACLS.c.number).where(among(ACLS.c.key, by_key, connection)))
    known = {by_key[name]: number for name, number in rows}
    new = [(name, acl) for name, acl in by_key.items() if acl not in known]
    for number, (name, acl) in enumerate(new, next_number(connection, ACLS.c.number)):
        connection.execute(sa.insert(ACLS), {"number": number, "key": name, "grants": acl_text(acl)})
        connection.execute(sa.insert(OPENS), [{"grant_key": key(grant), "acl": number} for grant in acl])
        known[acl] = number
    return known


class Room:
    """Free places on the shelves of one ACL: the lowest first, and then on new shelves."""

    def __init__(self, connection: sa.Connection, acl: int, version: int) -> None:
        self._connection = connection
        self._acl = acl
        self._version = version

    def place(self, lengths: Sequence[int]) -> list[int]:
        """Take a place for a chunk of each of these lengths, in words, and return their numbers."""
        numbers: list[int] = []
        for shelf, top, slots in self._shelves():
            here = slots[: len(lengths) - len(numbers)]
            if here:
                self._fill(shelf, top, here, lengths[len(numbers) : len(numbers) + len(here)])
                numbers += [shelf * SHELF + slot for slot in here]
            if len(numbers) == len(lengths):
                break
        return numbers

    def _shelves(self) -> Iterator[tuple[int, int, list[int]]]:
        """Each shelf that has room, with its free slots: without end."""
        columns = SHELVES.c.number, SHELVES.c.top
        open_ = sa.select(*columns).where(SHELVES.c.acl == self._acl, SHELVES.c.count < SHELF)
        for shelf, top in self._connection.execute(open_.order_by(SHELVES.c.number)).all():
            yield shelf, top, self._free(shelf)
        while True:
            shelf = next_number(self._connection, SHELVES.c.number)
            row = {"number": shelf, "acl": self._acl, "version": 0, "count": 0, "length": 0, "top": 0}
            self._connection.execute(sa.insert(SHELVES), row)
            yield shelf, 0, list(range(SHELF))

    def _free(self, shelf: int) -> list[int]:
        here = CHUNKS.c.number.between(shelf * SHELF, (shelf + 1) * SHELF - 1)
        used = {number % SHELF for number in self._connection.execute(sa.select(CHUNKS.c.number).where(here)).scalars()}
        return [slot for slot in range(SHELF) if slot not in used]

    def _fill(self, shelf: int, top: int, slots: Sequence[int], lengths: Sequence[int]) -> None:
        row = {"number": shelf, "count": len(slots), "length": sum(lengths), "version": self._version}
        self._connection.execute(_PUT, {**row, "top": max(top, *(slot + 1 for slot in slots))})


def leave(connection: sa.Connection, lengths: Mapping[int, int], version: int) -> set[int]:
    """Note that these chunks, by number, each of its length, are gone; return their shelves."""
    counts = Counter(number >> SHELF_BITS for number in lengths)
    words: Counter[int] = Counter()
    for number, length in lengths.items():
        words[number >> SHELF_BITS] += length
    rows = [{"number": s, "count": n, "length": words[s], "version": version} for s, n in counts.items()]
    if rows:
        connection.execute(_TAKE, rows)
    return set(counts)


def clear_away(connection: sa.Connection, shelves: Iterable[int]) -> None:
    """Remove those of these shelves that are empty, and the ACLs that have no other."""
    for some in batches(shelves):
        these = among(SHELVES.c.number, some, connection)
        empty = sa.select(SHELVES.c.number, SHELVES.c.acl).where(these, SHELVES.c.count == 0)
        rows = connection.execute(empty).all()
        if rows:
            numbers, acls = zip(*rows, strict=True)
            connection.execute(sa.delete(SHELVES).where(among(SHELVES.c.number, numbers, connection)))
            _forget_unused(connection, acls)


def _forget_unused(connection: sa.Connection, acls: Iterable[int]) -> None:
    used = sa.select(SHELVES.c.acl)
    for column in (OPENS.c.acl, ACLS.c.number):
        table = column.table
        assert isinstance(table, sa.Table)
        connection.execute(sa.delete(table).where(among(column, set(acls), connection), column.not_in(used)))
