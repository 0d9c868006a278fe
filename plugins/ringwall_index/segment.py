"""The built part of the index: rows sorted by class, their vectors, and two sets of lists of short codes.

Its vectors and codes never change. What may change is the class a row counts for now, and that is written down in a
log, so that whoever prepared something from the classes can follow.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from ringwall_index.codes import Coder, Lists
from ringwall_index.kernels import Classes, Floats, Slots, faiss, one_thread

GONE: Final = np.iinfo(np.int32).max
"""The class of a row that is no longer here: nobody's, whatever is permitted."""

_CODED_FROM: Final = 4096
"""With fewer rows than this, comparing all of them is the fastest search."""

_LISTED_FROM: Final = 16
"""Classes with fewer rows get no list of their own: a list takes up whole blocks of 32."""

_TRAINED_ON: Final = 65_536
_ROWS_A_CENTRE: Final = 100


@dataclass(frozen=True, slots=True)
class Clusters:
    """The rows by nearness: each in the list of its nearest centre, coded as what it differs by from it."""

    lists: Lists
    list_of: Classes
    head: Floats
    """The rotation's rows, then the centres: one pass over it prepares a query for a scan."""
    sizes: Slots
    spread: Floats
    """How far a list's rows lie from its centre, as root mean square."""
    coder: Coder | None = None
    """What coded the rows: there until the index is calibrated."""

    @property
    def dimension(self) -> int:
        """Of a rotated query."""
        return len(self.head) - len(self.spread)


@dataclass(frozen=True, slots=True)
class Shelves:
    """The rows by class: each class that is not tiny in a list of its own."""

    lists: Lists
    rotation: Floats
    list_of_class: Classes
    """By the class's rank; -1: tiny, without a list."""
    coder: Coder | None = None


@dataclass(frozen=True, slots=True)
class Band:
    """What to expect when this share of the rows is permitted, in the lists that hold any such rows."""

    share: float
    error: float = 0.0
    """How far below the worst of the right answers the code of one of them scores."""
    shelf_error: float = 0.0
    fetched: int = 128
    """How many candidates are enough."""
    shelf_fetched: int = 128
    cluster_ns: float = 100_000.0
    """What a search of the clusters takes."""


@dataclass(frozen=True, slots=True)
class Traits:
    """What was learned from the data when the index was built: how wrong estimates are, and what things cost."""

    reach: float = 1.0
    """How many spreads beyond its centre a list may hold a better row than the best found so far."""
    row_ns: float = 60.0
    code_ns: float = 2.0
    shelf_ns: float = 300.0
    start_ns: float = 20_000.0
    """What a scan takes before it reaches its first list."""
    bands: tuple[Band, ...] = (Band(1.0),)

    def at(self, share: float) -> Band:
        """What to expect at this share: in proportion between the two nearest bands."""
        places = np.log([band.share for band in self.bands])

        def value(name: str) -> float:
            return float(np.interp(np.log(share), places, [getattr(band, name) for band in self.bands]))

        return Band(
            share,
            value("error"),
            value("shelf_error"),
            round(value("fetched")),
            round(value("shelf_fetched")),
            value("cluster_ns"),
        )


@dataclass
class Segment:
    """Rows in slots 0 to n - 1, sorted by the class they had when this was built."""

    keys: Slots
    vectors: Floats
    home: Classes
    """The class each row was built with."""
    clusters: Clusters | None = None
    shelves: Shelves | None = None
    traits: Traits = field(default_factory=Traits)
    current: Classes | None = None
    """The class each row counts for, when that is another for some."""
    order: Slots | None = None
    """Where each key is, from the smallest key to the largest."""
    name: str = field(default_factory=lambda: uuid.uuid4().hex)
    log: list[Slots] = field(init=False)
    """Slots whose class changed, in the order of the changes."""

    def __post_init__(self) -> None:
        self.classes = np.array(self.home if self.current is None else self.current)
        moved = np.flatnonzero(self.classes != self.home)
        self.log = [moved] if len(moved) else []
        self.current = None
        changes = np.flatnonzero(np.diff(self.home, prepend=-1))
        self.ranked, self.bounds = self.home[changes], np.append(changes, len(self.home))
        if self.order is None:
            self.order = np.argsort(self.keys, kind="stable")
        self._sorted = self.keys[self.order]

    def __len__(self) -> int:
        return len(self.keys)

    def frozen(self) -> Segment:
        """The same rows with the classes they have now, whatever they become."""
        return replace(self, current=self.classes)

    @classmethod
    def of(cls, keys: Slots, vectors: Floats, classes: Classes) -> Segment:
        """Sort and code the rows. Calibrating comes after."""
        order = np.argsort(classes, kind="stable")
        segment = cls(keys[order], vectors[order], classes[order])
        if len(segment) >= _CODED_FROM:
            # Training is thousands of tiny loops: on a busy machine threads that wait for each other in each of them
            # take fifty times as long as one.
            with one_thread():
                segment.clusters = _clusters(segment)
                segment.shelves = _shelves(segment)
        return segment

    def slots(self, keys: Slots) -> Slots:
        """Where these keys are, of those that are here."""
        if self.order is None or not len(self):
            return np.empty(0, np.int64)
        at = np.searchsorted(self._sorted, keys)
        at[at == len(self)] = 0
        found = self.order[at[self._sorted[at] == keys]]
        here: Slots = found[self.classes[found] != GONE]
        return here

    def reclass(self, slots: Slots, to: int) -> None:
        """Let these rows count for another class from now on."""
        if len(slots):
            self.classes[slots] = to
            self.log.append(slots)

    def alive(self) -> Slots:
        """The slots of the rows that are still here."""
        return np.flatnonzero(self.classes != GONE)


def _clusters(segment: Segment) -> Clusters:
    count = 2 ** round(np.log2(len(segment) ** 0.5))
    centres = _centres(segment.vectors, count)
    list_of = _nearest(segment.vectors, centres)
    sample = _sample(len(segment), _TRAINED_ON)
    coder = Coder.trained(segment.vectors[sample] - centres[list_of[sample]])
    slots = np.arange(len(segment))
    lists = Lists.build(coder, segment.vectors, list_of, slots, centres, count)
    head = np.ascontiguousarray(np.concatenate([coder.rotation, centres]))
    sizes = np.bincount(list_of, minlength=count)
    return Clusters(lists, list_of.astype(np.int32), head, sizes, _spread(segment.vectors, centres, list_of), coder)


def _shelves(segment: Segment) -> Shelves:
    sizes = np.diff(segment.bounds)
    listed = sizes >= _LISTED_FROM
    list_of_class = np.where(listed, np.cumsum(listed) - 1, -1).astype(np.int32)
    list_of = np.repeat(list_of_class, sizes).astype(np.int64)
    slots = np.flatnonzero(list_of >= 0)
    coder = Coder.trained(segment.vectors[_sample(len(segment), _TRAINED_ON)])
    lists = Lists.build(coder, segment.vectors, list_of[slots], slots, None, max(1, int(listed.sum())))
    return Shelves(lists, coder.rotation, list_of_class, coder)


def _centres(vectors: Floats, count: int) -> Floats:
    sample = vectors[_sample(len(vectors), _ROWS_A_CENTRE * count)]
    means = faiss.Kmeans(vectors.shape[1], count, niter=10, seed=1, max_points_per_centroid=_ROWS_A_CENTRE)
    means.train(sample)
    centres: Floats = means.centroids.reshape(count, -1)
    return centres


def _nearest(vectors: Floats, centres: Floats) -> Slots:
    flat = faiss.IndexFlatL2(vectors.shape[1])
    flat.add(centres)
    nearest: Slots = flat.search(vectors, 1)[1][:, 0]
    return nearest


def _spread(vectors: Floats, centres: Floats, list_of: Slots) -> Floats:
    total = np.zeros(len(centres))
    for start in range(0, len(vectors), _TRAINED_ON):
        lists = list_of[start : start + _TRAINED_ON]
        apart = vectors[start : start + _TRAINED_ON] - centres[lists]
        total += np.bincount(lists, np.einsum("ij,ij->i", apart, apart), len(centres))
    members = np.bincount(list_of, minlength=len(centres))
    return np.sqrt(total / np.maximum(members, 1)).astype(np.float32)


def _sample(rows: int, wanted: int) -> Slots:
    if wanted >= rows:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, wanted, replace=False))
