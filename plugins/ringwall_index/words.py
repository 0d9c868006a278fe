"""Which rows hold which words: BM25 over the permitted rows, with the statistics of exactly those."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from ringwall.data.lexical import K1, B, rarity
from ringwall_index.kernels import Classes, Flags, Floats, Slots
from ringwall_index.postings import Array, Column, Hashes, Packed, Postings

GONE: Final = 0
"""The class of a row that is no longer here: nobody's."""

_MOST: Final = 65_535
_SORTED: Final = 32
"""Sorting a row takes as long as looking at so many."""


class Words:
    """Rows with their words; a row's number is its place, and is never used twice.

    Searching and writing may happen in several threads. Whoever searches says which classes are permitted by flags;
    the flag of class 0 is never set.
    """

    def __init__(
        self,
        hashes: Hashes,
        built: Packed | None = None,
        later: Packed | None = None,
        lengths: Array | None = None,
        classes: Array | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._hashes = hashes
        self._postings = Postings(np.uint16, built, later)
        self._lengths = Column(np.zeros(0, np.uint32) if lengths is None else np.array(lengths))
        self._classes = Column(np.zeros(0, np.int32) if classes is None else np.array(classes))
        many = max(16, int(self.classes.max(initial=0)) + 1)
        self._count = np.bincount(self.classes, minlength=many)
        self._length = np.bincount(self.classes, self._lengths.values, many).astype(np.int64)

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def classes(self) -> Classes:
        """The class of each row."""
        return self._classes.values

    def add(self, rows: Sequence[tuple[Mapping[str, int], int]]) -> None:
        """Take in rows, each with the counts of its words and its class."""
        with self._lock:
            lengths = [sum(counts.values()) for counts, _ in rows]
            for row, (counts, _) in enumerate(rows, len(self)):
                self._postings.add(row, {self._hashes(word): min(count, _MOST) for word, count in counts.items()})
            classes = np.array([of_class for _, of_class in rows], np.int32)
            self._lengths.extend(lengths)
            self._classes.extend(classes)
            self._counted(classes, np.array(lengths, np.int64), 1)

    def reclass(self, rows: Slots, to: int = GONE) -> None:
        """Let rows count for another class from now on, or for none."""
        with self._lock:
            lengths = self._lengths.values[rows].astype(np.int64)
            self._counted(self.classes[rows], lengths, -1)
            self.classes[rows] = to
            self._counted(self.classes[rows], lengths, 1)

    def scores(self, question: Mapping[str, float], permitted: Flags) -> tuple[Slots, Floats]:
        """The rows that hold a word of the question and are permitted, and their scores; rows ascend."""
        every: list[Slots] = []
        weights: list[Floats] = []
        for word, counts in question.items():
            rows, scores = self._weighed(self._hashes(word), permitted)
            every.append(rows)
            weights.append(scores * np.float32(counts))
        return _summed(every, weights, len(self))

    def permitted(self, permitted: Flags) -> Flags:
        """Which rows are permitted."""
        return permitted.take(self.classes, mode="clip")

    def lasting(self) -> dict[str, Array]:
        """What never changes, to be kept by name."""
        return self._postings.built.arrays()

    def passing(self) -> dict[str, Array]:
        """What may have changed."""
        with self._lock:
            later = self._postings.later().arrays()
            return {**later, "lengths": self._lengths.values.copy(), "classes": self.classes.copy()}

    @classmethod
    def kept(cls, hashes: Hashes, lasting: Mapping[str, Array], passing: Mapping[str, Array]) -> Words:
        """What was kept."""
        return cls(hashes, Packed.kept(lasting), Packed.kept(passing), passing["lengths"], passing["classes"])

    def compacted(self, places: Slots, class_of: Classes) -> Words:
        """The rows alone that have a place from 0 on, there; `class_of` says, by class, what theirs is called there."""
        with self._lock:
            both, later, here = self._postings.built, self._postings.later(), places >= 0
            lengths, classes = self._lengths.values[here], class_of[self.classes[here]]
        return Words(self._hashes, both.moved(places) + later.moved(places), None, lengths, classes)

    def _weighed(self, term: int, permitted: Flags) -> tuple[Slots, Floats]:
        """The permitted rows that hold a word, and what it adds to the score of each."""
        with self._lock:
            rows, times = self._postings.of(term)
            here = permitted.take(self.classes[rows], mode="clip")
            rows, counts = rows[here], times[here].astype(np.float32)
            lengths = self._lengths.values[rows].astype(np.float32)
            known = permitted[: len(self._count)]
            count = int(self._count[: len(known)][known].sum())
            length = int(self._length[: len(known)][known].sum())
        if not len(rows):
            return rows, counts
        mean = (length / count) or 1.0
        weight = rarity(len(rows), count) * counts * (K1 + 1.0) / (counts + K1 * (1.0 - B + B * lengths / mean))
        return rows, weight.astype(np.float32)

    def _counted(self, classes: Classes, lengths: Slots, sign: int) -> None:
        largest = int(classes.max(initial=0))
        if largest >= len(self._count):
            more = np.zeros(max(largest + 1, len(self._count)), np.int64)
            self._count, self._length = np.concatenate([self._count, more]), np.concatenate([self._length, more])
        np.add.at(self._count, classes, sign)
        np.add.at(self._length, classes, sign * lengths)


def _summed(every: Sequence[Slots], weights: Sequence[Floats], rows: int) -> tuple[Slots, Floats]:
    """Each row that is there with the sum of its weights. Sorting what is there, or counting all, by what is faster."""
    if not every:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    places, values = np.concatenate(every), np.concatenate(weights)
    if _SORTED * len(places) < rows:
        found, at = np.unique(places, return_inverse=True)
        return found, np.bincount(at, values, len(found)).astype(np.float32)
    sums = np.bincount(places, values)
    found = np.flatnonzero(sums)
    return found, sums[found].astype(np.float32)
