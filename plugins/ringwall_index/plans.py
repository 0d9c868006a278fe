"""How the permitted rows of a segment are found: prepared once, kept up to date, then used by every search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from ringwall_index.codes import Lists, Selector
from ringwall_index.kernels import Bytes, Flags, Floats, Slots, best, products, products_at
from ringwall_index.segment import Band, Clusters, Segment, Shelves

_PATCHED_UP_TO: Final = 2000
"""More changed rows than this at once: preparing anew is faster than following."""

_FIRST_ROWS: Final = 1000
_FIRST_LISTS: Final = 4
"""How many permitted rows, and lists, the first look into the clusters takes in."""

_MOST_APPROXIMATE: Final = 1024
"""A search for more rows than this compares all that are permitted."""

_NONE: Final[Slots] = np.empty(0, np.int64)
_NO_SCORES: Final[Floats] = np.empty(0, np.float32)
_SQRT_LOG: Final = np.sqrt(2 * np.log1p(np.arange(4096.0))).astype(np.float32)


Way = Literal["rows", "shelves", "clusters"]
"""Compare every permitted row, scan the permitted classes, or scan what lies near."""


@dataclass(frozen=True, slots=True)
class Hits:
    """Slots and their exact scores, in no order."""

    slots: Slots
    scores: Floats

    def best(self, k: int) -> Hits:
        """The best `k`, best first."""
        top = best(self.scores, k)
        return Hits(self.slots[top], self.scores[top])

    def kth(self, k: int) -> float:
        """The score of the `k`th best, or less than any if there are fewer."""
        size = len(self.scores)
        if size < k:
            return -np.inf
        return float(np.partition(self.scores, size - k)[size - k])

    def __add__(self, other: Hits) -> Hits:
        return Hits(np.concatenate((self.slots, other.slots)), np.concatenate((self.scores, other.scores)))


NO_HITS: Final = Hits(_NONE, _NO_SCORES)


@dataclass(frozen=True, slots=True)
class _ByNearness:
    """How the clusters are searched."""

    margins: Floats
    """By list: how much better than its centre a permitted row of it may be; less than any where there is none."""
    first: int
    """How many lists the first look takes in."""


@dataclass(frozen=True, slots=True)
class _ByClass:
    """How the shelves are searched."""

    lists: Slots
    biases: Floats
    loose: Slots
    """Permitted rows that stand on none of these shelves."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The permitted rows of one segment, as they were when it was made. Safe to search from many threads."""

    segment: Segment
    selector: Selector
    rows: int
    way: Way
    all_slots: Slots | None = None
    """The permitted rows, kept when they are few."""
    expected: Band | None = None
    by_nearness: _ByNearness | None = None
    by_class: _ByClass | None = None

    def search(self, query: Floats, k: int, at_least: int = 0) -> Hits:
        """The best `k` permitted rows, best first; at least `at_least` candidates are compared exactly."""
        if not self.rows:
            return NO_HITS
        found = self._approximate(query, k, at_least)
        if found is None or len(found.slots) < min(k, self.rows):
            found = self._exact(query)
        return found.best(k)

    def _approximate(self, query: Floats, k: int, at_least: int) -> Hits | None:
        if self.way == "rows" or k > _MOST_APPROXIMATE or 8 * k > self.rows:
            return None
        if self.way == "shelves":
            return self._in_shelves(query, k, at_least)
        return self._in_clusters(query, k, at_least)

    def _exact(self, query: Floats) -> Hits:
        return self._scored(query, self.selector.slots() if self.all_slots is None else self.all_slots)

    def _in_shelves(self, query: Floats, k: int, at_least: int) -> Hits:
        shelves, how, expected = self.segment.shelves, self.by_class, self.expected
        assert shelves is not None
        assert how is not None
        assert expected is not None
        rotated = np.empty(len(shelves.rotation), np.float32)
        products(query, shelves.rotation, rotated)
        scan = _Scan(shelves.lists, rotated, how.lists, how.biases, self.selector)
        loose = self._scored(query, how.loose) if len(how.loose) else None
        return self._checked(scan, query, loose, k, max(expected.shelf_fetched, at_least), expected.shelf_error)[0]

    def _in_clusters(self, query: Floats, k: int, at_least: int) -> Hits:
        clusters, how, expected = self.segment.clusters, self.by_nearness, self.expected
        assert clusters is not None
        assert how is not None
        assert expected is not None
        both = np.empty(len(clusters.head), np.float32)
        products(query, clusters.head, both)
        rotated, centres = both[: clusters.dimension], both[clusters.dimension :]
        limits = centres + how.margins
        first = limits.argpartition(len(limits) - how.first)[len(limits) - how.first :]
        wanted = max(expected.fetched, at_least)
        scan = _Scan(clusters.lists, rotated, first, centres[first], self.selector)
        found, bar = self._checked(scan, query, None, k, wanted, expected.error)
        limits[first] = -np.inf
        rest = (limits > bar).nonzero()[0]
        if not len(rest):
            return found
        scan = _Scan(clusters.lists, rotated, rest, centres[rest], self.selector)
        return self._checked(scan, query, found, k, wanted, expected.error)[0]

    def _checked(
        self, scan: _Scan, query: Floats, found: Hits | None, k: int, wanted: int, error: float
    ) -> tuple[Hits, float]:
        """Add to `found` what the scan brings up that may belong to the best `k`, with exact scores; and the `k`th.

        When even the last candidate may belong to them, there may be more: then it looks again, for more.
        """
        bar = -np.inf if found is None else found.kth(k)
        while True:
            slots, estimates = scan.best(max(wanted, k))
            complete = len(estimates) < max(wanted, k)
            if bar > -np.inf:
                slots = slots[: np.searchsorted(-estimates, error - bar, side="right")]
            more = self._scored(query, slots)
            more = more if found is None else found + more
            now = more.kth(k)
            if complete or estimates[-1] < now - error:
                return more, now
            wanted = 4 * max(wanted, k)

    def _scored(self, query: Floats, slots: Slots) -> Hits:
        return Hits(slots, products_at(query, self.segment.vectors, slots))


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
            return _NONE, _NO_SCORES
        return self.lists.scan(self.query, self.chosen, self.biases, self.within, wanted)


class Planner:
    """Keeps the plan for one set of classes up to date with one segment. For one thread at a time.

    `permitted` says yes or no by class; its last entry is a no, and stands for all classes beyond.
    """

    def __init__(self, segment: Segment, permitted: Flags, *, way: Way | None = None) -> None:
        self.segment, self._permitted, self._forced = segment, permitted, way
        self._bitmap: Bytes = np.zeros(-(-len(segment) // 64) * 8, np.uint8)
        self._selector = Selector(self._bitmap)
        self._seen = 0
        self._prepare()

    def plan(self) -> Plan:
        """The plan that takes in every change so far."""
        news = self.segment.log[self._seen :]
        if news:
            if sum(map(len, news)) > _PATCHED_UP_TO:
                self._prepare()
            else:
                self._patch(np.unique(np.concatenate(news)))
        return self._plan

    def _prepare(self) -> None:
        segment = self.segment
        flags = self._permitted.take(segment.classes, mode="clip")
        self._bitmap[: -(-len(segment) // 8)] = np.packbits(flags, bitorder="little")
        self._rows = int(np.count_nonzero(flags))
        if segment.clusters is not None:
            self._counts = np.bincount(segment.clusters.list_of[flags], minlength=len(segment.clusters.spread))
        self._settle()

    def _patch(self, slots: Slots) -> None:
        now = self._permitted.take(self.segment.classes[slots], mode="clip")
        bits = (1 << (slots & 7)).astype(np.uint8)
        before = (self._bitmap[slots >> 3] & bits) != 0
        np.bitwise_or.at(self._bitmap, slots[now] >> 3, bits[now])
        np.bitwise_and.at(self._bitmap, slots[~now] >> 3, ~bits[~now])
        change = now.astype(np.int64) - before
        self._rows += int(change.sum())
        if self.segment.clusters is not None:
            np.add.at(self._counts, self.segment.clusters.list_of[slots], change)
        self._settle()

    def _settle(self) -> None:
        """Choose the way, and lay out what it needs."""
        segment = self.segment
        self._seen = len(segment.log)
        clusters, shelves = segment.clusters, segment.shelves
        if clusters is None or shelves is None or not self._rows:
            self._plan = Plan(segment, self._selector, self._rows, "rows", self._selector.slots())
            return
        expected = segment.traits.at(self._rows / int(clusters.sizes[self._counts > 0].sum()))
        by_class = self._on_shelves(shelves)
        way = self._forced or self._cheapest(expected, by_class)
        self._plan = Plan(
            segment,
            self._selector,
            self._rows,
            way,
            self._selector.slots() if way == "rows" else None,
            expected,
            self._near(clusters),
            by_class,
        )

    def _cheapest(self, expected: Band, by_class: _ByClass) -> Way:
        traits = self.segment.traits
        exact = len(by_class.loose) + expected.shelf_fetched
        costs: dict[Way, float] = {
            "rows": self._rows * traits.row_ns,
            "shelves": traits.start_ns
            + len(by_class.lists) * traits.shelf_ns
            + self._rows * traits.code_ns
            + exact * traits.row_ns,
            "clusters": expected.cluster_ns,
        }
        return min(costs, key=lambda way: costs[way])

    def _near(self, clusters: Clusters) -> _ByNearness:
        filled = self._counts > 0
        margins = clusters.spread * _SQRT_LOG[np.minimum(self._counts, len(_SQRT_LOG) - 1)]
        lists = int(filled.sum())
        return _ByNearness(
            np.where(filled, self.segment.traits.reach * margins, -np.inf).astype(np.float32),
            min(lists, max(_FIRST_LISTS, round(_FIRST_ROWS * lists / self._rows))),
        )

    def _on_shelves(self, shelves: Shelves) -> _ByClass:
        segment = self.segment
        mine = self._permitted.take(segment.ranked, mode="clip")
        listed = shelves.list_of_class >= 0
        lists = shelves.list_of_class[mine & listed].astype(np.int64)
        tiny = [np.arange(segment.bounds[rank], segment.bounds[rank + 1]) for rank in np.flatnonzero(mine & ~listed)]
        loose = np.unique(np.concatenate([*tiny, *segment.log, _NONE]))
        home = segment.home[loose]
        elsewhere = ~listed[np.searchsorted(segment.ranked, home)] | ~self._permitted.take(home, mode="clip")
        loose = loose[elsewhere & self._permitted.take(segment.classes[loose], mode="clip")]
        return _ByClass(lists, np.zeros(len(lists), np.float32), loose)
