"""How one set of permitted classes is searched: prepared once, kept up to date, then used by every search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ringwall_index.codes import Lists, Selector
from ringwall_index.kernels import Bytes, Flags, Floats, Slots, best, products, products_at
from ringwall_index.segment import Clusters, Segment, Shelves

_PATCHED_UP_TO: Final = 2000
"""More changed rows than this at once: preparing anew is faster than following."""

_FIRST_ROWS: Final = 1000
_FIRST_LISTS: Final = 6
"""How many permitted rows, and lists, the first look into the clusters takes in."""

_MOST_APPROXIMATE: Final = 1024
"""A search for more rows than this compares all that are permitted."""

_NONE: Final[Slots] = np.empty(0, np.int64)
_SQRT_LOG: Final = np.sqrt(2 * np.log1p(np.arange(4096.0))).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Found:
    """Slots of a segment and their exact scores, in no order."""

    slots: Slots
    scores: Floats

    def best(self, k: int) -> Found:
        top = best(self.scores, k)
        return Found(self.slots[top], self.scores[top])

    def kth(self, k: int) -> float:
        """The score of the `k`th best, or less than any if there are fewer."""
        size = len(self.scores)
        if size < k:
            return -np.inf
        return float(np.partition(self.scores, size - k)[size - k])

    def __add__(self, other: Found) -> Found:
        return Found(np.concatenate((self.slots, other.slots)), np.concatenate((self.scores, other.scores)))


class Plan:
    """The permitted rows of one segment. `permitted` says yes or no by class; its last entry is a no."""

    def __init__(self, segment: Segment, permitted: Flags) -> None:
        self.segment, self.permitted = segment, permitted
        self.bitmap: Bytes = np.zeros(-(-len(segment) // 64) * 8, np.uint8)
        self.selector = Selector(self.bitmap)
        self.seen = len(segment.log)
        self._prepare()

    def follow(self) -> Plan:
        """Take in what changed since; the plan to go on with, which may be another. One thread at a time."""
        news = self.segment.log[self.seen :]
        if not news:
            return self
        if sum(map(len, news)) > _PATCHED_UP_TO:
            return Plan(self.segment, self.permitted)
        self.seen += len(news)
        self._patch(np.unique(np.concatenate(news)))
        return self

    def search(self, query: Floats, k: int, at_least: int) -> Found:
        """The best `k` permitted rows; at least `at_least` candidates are compared exactly."""
        if not self.rows:
            return Found(_NONE, np.empty(0, np.float32))
        found = self._approximate(query, k, at_least)
        if found is None or len(found.slots) < min(k, self.rows):
            found = self._exact(query)
        return found.best(k)

    def is_permitted(self, slots: Slots) -> Flags:
        """Whether these rows are permitted now, by the class each has now."""
        return self.permitted.take(self.segment.classes[slots], mode="clip")

    def _approximate(self, query: Floats, k: int, at_least: int) -> Found | None:
        if self.way == "rows" or k > _MOST_APPROXIMATE or 8 * k > self.rows:
            return None
        if self.way == "shelves":
            return self._in_shelves(query, k, at_least)
        return self._in_clusters(query, k, at_least)

    def _exact(self, query: Floats) -> Found:
        slots = self._slots()
        return Found(slots, products_at(query, self.segment.vectors, slots))

    def _slots(self) -> Slots:
        if self._kept is None:
            slots = np.flatnonzero(np.unpackbits(self.bitmap, bitorder="little"))
            if self.way != "rows":
                return slots
            self._kept = slots
        return self._kept

    # ---- by class

    def _in_shelves(self, query: Floats, k: int, at_least: int) -> Found:
        shelves = self.segment.shelves
        assert shelves is not None
        rotated = np.empty(len(shelves.rotation), np.float32)
        products(query, shelves.rotation, rotated)
        scan = _Scan(shelves.lists, rotated, self._shelves, self._no_biases, self.selector)
        loose = self._scored(query, self._loose) if len(self._loose) else None
        return self._checked(scan, query, loose, k, max(self._shelf_fetched, at_least), self._shelf_error)[0]

    # ---- by nearness

    def _in_clusters(self, query: Floats, k: int, at_least: int) -> Found:
        clusters = self.segment.clusters
        assert clusters is not None
        both = np.empty(len(clusters.head), np.float32)
        products(query, clusters.head, both)
        rotated, centres = both[: clusters.dimension], both[clusters.dimension :]
        limits = centres + self._margins
        first = limits.argpartition(len(limits) - self._first)[len(limits) - self._first :]
        wanted = max(self._fetched, at_least)
        scan = _Scan(clusters.lists, rotated, first, centres[first], self.selector)
        found, bar = self._checked(scan, query, None, k, wanted, self._error)
        limits[first] = -np.inf
        rest = (limits > bar).nonzero()[0]
        if not len(rest):
            return found
        scan = _Scan(clusters.lists, rotated, rest, centres[rest], self.selector)
        return self._checked(scan, query, found, k, wanted, self._error)[0]

    def _checked(
        self, scan: _Scan, query: Floats, found: Found | None, k: int, wanted: int, error: float
    ) -> tuple[Found, float]:
        """Add to `found` what the scan brings up that may belong to the best `k`, with exact scores; and the `k`th.

        When even the last candidate may belong to them, there may be more: then it looks again, for more.
        """
        bar = -np.inf if found is None else found.kth(k)
        while True:
            slots, estimates = scan.best(wanted)
            if bar > -np.inf:
                slots = slots[: np.searchsorted(-estimates, error - bar, side="right")]
            more = self._scored(query, slots)
            more = more if found is None else found + more
            now = more.kth(k)
            if len(estimates) < wanted or estimates[-1] < now - error:
                return more, now
            wanted *= 4

    def _scored(self, query: Floats, slots: Slots) -> Found:
        return Found(slots, products_at(query, self.segment.vectors, slots))

    # ---- preparing

    def _prepare(self) -> None:
        segment = self.segment
        flags = self.permitted.take(segment.classes, mode="clip")
        self.bitmap[: -(-len(segment) // 8)] = np.packbits(flags, bitorder="little")
        self.rows = int(np.count_nonzero(flags))
        if segment.clusters is not None:
            self._counts = np.bincount(segment.clusters.list_of[flags], minlength=len(segment.clusters.spread))
        self._settle()

    def _patch(self, slots: Slots) -> None:
        now = self.is_permitted(slots)
        bits = (1 << (slots & 7)).astype(np.uint8)
        before = (self.bitmap[slots >> 3] & bits) != 0
        np.bitwise_or.at(self.bitmap, slots[now] >> 3, bits[now])
        np.bitwise_and.at(self.bitmap, slots[~now] >> 3, ~bits[~now])
        change = now.astype(np.int64) - before
        self.rows += int(change.sum())
        if self.segment.clusters is not None:
            np.add.at(self._counts, self.segment.clusters.list_of[slots], change)
        self._settle()

    def _settle(self) -> None:
        """Choose the way, and lay out what it needs."""
        self._kept: Slots | None = None
        clusters, shelves, traits = self.segment.clusters, self.segment.shelves, self.segment.traits
        self.way = "rows"
        if clusters is None or shelves is None or not self.rows:
            return
        self._lay_out_clusters(clusters)
        self._lay_out_shelves(shelves)
        expected = traits.at(self.rows / int(clusters.sizes[self._counts > 0].sum()))
        self._error, self._fetched = expected.error, expected.fetched
        self._shelf_error, self._shelf_fetched = expected.shelf_error, expected.shelf_fetched
        costs = {
            "rows": self.rows * traits.row_ns,
            "shelves": len(self._shelves) * traits.shelf_ns
            + self.rows * traits.code_ns
            + (len(self._loose) + self._shelf_fetched) * traits.row_ns,
            "clusters": expected.cluster_ns,
        }
        self.way = min(costs, key=lambda way: costs[way])

    def _lay_out_clusters(self, clusters: Clusters) -> None:
        filled = self._counts > 0
        margins = clusters.spread * _SQRT_LOG[np.minimum(self._counts, len(_SQRT_LOG) - 1)]
        self._margins = np.where(filled, self.segment.traits.reach * margins, -np.inf).astype(np.float32)
        lists = int(filled.sum())
        self._first = min(lists, max(_FIRST_LISTS, round(_FIRST_ROWS * lists / self.rows)))

    def _lay_out_shelves(self, shelves: Shelves) -> None:
        segment = self.segment
        mine = self.permitted.take(segment.ranked, mode="clip")
        listed = shelves.list_of_class >= 0
        self._shelves = shelves.list_of_class[mine & listed].astype(np.int64)
        self._no_biases = np.zeros(len(self._shelves), np.float32)
        tiny = [np.arange(segment.bounds[rank], segment.bounds[rank + 1]) for rank in np.flatnonzero(mine & ~listed)]
        loose = np.unique(np.concatenate([*tiny, *segment.log, _NONE]))
        home = segment.home[loose]
        off_shelf = ~listed[np.searchsorted(segment.ranked, home)] | ~self.permitted.take(home, mode="clip")
        loose = loose[off_shelf]
        self._loose: Slots = loose[self.is_permitted(loose)]


@dataclass(frozen=True, slots=True)
class _Scan:
    """Some lists, and a query to scan them for."""

    lists: Lists
    query: Floats
    chosen: Slots
    biases: Floats
    within: Selector

    def best(self, wanted: int) -> tuple[Slots, Floats]:
        if not len(self.chosen):
            return _NONE, np.empty(0, np.float32)
        return self.lists.scan(self.query, self.chosen, self.biases, self.within, wanted)
