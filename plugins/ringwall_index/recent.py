"""Rows written since the index was built: few enough to compare each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from ringwall_index.kernels import Classes, Flags, Floats, Slots, products_at
from ringwall_index.plans import NO_HITS, Hits
from ringwall_index.segment import GONE

_ROOM: Final = 256


class Recent:
    """Rows in the order they came. A place is never used twice; what may change is the class of its row."""

    def __init__(self, dimension: int) -> None:
        self.count = 0
        self.version = 0
        self.keys: Slots = np.empty(_ROOM, np.int64)
        self.vectors: Floats = np.empty((_ROOM, dimension), np.float32)
        self.classes: Classes = np.full(_ROOM, GONE, np.int32)
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def append(self, keys: Slots, vectors: Floats, classes: Classes) -> None:
        """Take in rows whose keys are not here."""
        end = self.count + len(keys)
        self._make_room(end)
        places = range(self.count, end)
        self.keys[self.count : end], self.vectors[self.count : end] = keys, vectors
        self.classes[self.count : end] = classes
        self._places.update(zip(keys.tolist(), places, strict=True))
        self.count = end
        self.version += 1

    def places(self, keys: Slots) -> Slots:
        """Where these keys are, of those that are here."""
        found = (self._places.get(key) for key in keys.tolist())
        return np.array([place for place in found if place is not None], np.int64)

    def reclass(self, places: Slots, to: int) -> None:
        """Let these rows count for another class from now on."""
        if not len(places):
            return
        self.classes[places] = to
        self.version += 1
        if to == GONE:
            for key in self.keys[places].tolist():
                del self._places[key]

    def alive(self) -> Slots:
        """The places of the rows that are still here."""
        return np.flatnonzero(self.classes[: self.count] != GONE)

    def frozen(self) -> Recent:
        """The rows that are here now, whatever becomes of them."""
        copy, alive = Recent(self.vectors.shape[1]), self.alive()
        copy.append(self.keys[alive], self.vectors[alive], self.classes[alive])
        return copy

    def _make_room(self, rows: int) -> None:
        # Readers go on with the arrays they have: nothing they look at is ever moved or overwritten.
        room = len(self.keys)
        if rows <= room:
            return
        more = max(rows, 2 * room) - room
        self.keys = np.concatenate([self.keys, np.empty(more, np.int64)])
        self.vectors = np.concatenate([self.vectors, np.empty((more, self.vectors.shape[1]), np.float32)])
        self.classes = np.concatenate([self.classes, np.full(more, GONE, np.int32)])


@dataclass(frozen=True, slots=True)
class RecentPlan:
    """The permitted ones of the recent rows, as they were when it was made."""

    recent: Recent
    version: int
    vectors: Floats
    places: Slots

    @classmethod
    def of(cls, recent: Recent, permitted: Flags) -> RecentPlan:
        places = np.flatnonzero(permitted.take(recent.classes[: recent.count], mode="clip"))
        return cls(recent, recent.version, recent.vectors, places)

    def search(self, query: Floats, k: int) -> Hits:
        """The best `k`, best first."""
        if not len(self.places):
            return NO_HITS
        return Hits(self.places, products_at(query, self.vectors, self.places)).best(k)
