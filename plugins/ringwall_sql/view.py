"""What one reader may read at one moment, and the scores of it as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from ringwall.data.fuse import NOISE
from ringwall.principal import Grants
from ringwall_sql.tables import SHELF_BITS, SHELVES, STORE, readable_acls

Integers = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class View:
    """The shelves that a reader may open, in order, with the statistics of exactly what stands there.

    A chunk has a row in every array of a search: those of the first shelf come first, by slot.
    """

    changes: int
    dimension: int | None
    acls: list[int]
    shelves: Integers
    versions: list[int]
    tops: Integers
    count: int
    length: int

    @cached_property
    def mean(self) -> float:
        """The mean length of a chunk in words."""
        return (self.length / self.count if self.count else 0.0) or 1.0

    @cached_property
    def ends(self) -> Integers:
        """The row after the last one of each shelf."""
        return np.cumsum(self.tops)

    @property
    def rows(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def first_rows(self, shelves: Integers) -> Integers:
        """The row of slot 0 of each of these shelves."""
        at = np.searchsorted(self.shelves, shelves)
        first: Integers = (self.ends - self.tops)[at]
        return first

    def rows_of(self, numbers: Integers) -> Integers:
        """The row of each of these chunks."""
        rows: Integers = self.first_rows(numbers >> SHELF_BITS) + (numbers & ((1 << SHELF_BITS) - 1))
        return rows

    def numbers(self, rows: Integers) -> Integers:
        """The number of the chunk in each of these rows."""
        at = np.searchsorted(self.ends, rows, side="right")
        numbers: Integers = (self.shelves[at] << SHELF_BITS) + rows - (self.ends - self.tops)[at]
        return numbers


def view(connection: sa.Connection, readable: Grants) -> View:
    """Look up what somebody who holds `readable` may read: in the transaction that then searches it."""
    changes, dimension = connection.execute(sa.select(STORE.c.changes, STORE.c.dimension)).one()
    permitted = sa.select(SHELVES).where(SHELVES.c.acl.in_(readable_acls(readable, connection)))
    rows = connection.execute(permitted.order_by(SHELVES.c.number)).all()
    return View(
        changes,
        dimension,
        acls=sorted({row.acl for row in rows}),
        shelves=np.array([row.number for row in rows], dtype=np.int64),
        versions=[row.version for row in rows],
        tops=np.array([row.top for row in rows], dtype=np.int64),
        count=sum(row[3] for row in rows),
        length=sum(row.length for row in rows),
    )


class Scores(NamedTuple):
    """A score for each row, and whether the row was found at all."""

    of: Floats
    found: npt.NDArray[np.bool_]


def fused(lexical: Scores, dense: Scores, *, dense_weight: float) -> Scores:
    """What `ringwall.data.fuse.fuse` does, for arrays."""
    if not lexical.found.any():
        return dense
    if not dense.found.any():
        return lexical
    both = _shares(lexical, of=1.0) + _shares(dense, of=dense_weight, above=NOISE)
    return Scores(both, lexical.found | dense.found)


def best(scores: Scores, n: int) -> Integers:
    """The rows of the best `n`, in no order, with all that are as good as the last of them."""
    rows: Integers = np.flatnonzero(scores.found)
    if len(rows) > n:
        found = scores.of[rows]
        rows = rows[found >= np.partition(found, len(found) - n)[len(found) - n]]
    return rows


def _shares(scores: Scores, *, of: float, above: float = 0.0) -> Floats:
    highest = float(scores.of[scores.found].max())
    share = of / highest if highest > above else 0.0
    shares: Floats = np.where(scores.found, np.maximum(scores.of, 0.0) * share, 0.0)
    return shares
