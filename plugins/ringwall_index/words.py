"""Which rows hold which words: BM25 over the permitted rows, with the statistics of exactly those."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from ringwall.data.lexical import K1, B, rarity
from ringwall_index.kernels import Classes, Flags, Floats, Slots

_GONE: Final = 0
"""The class of a row that is no longer here: nobody's."""

_MOST: Final = 65_535


class Words:
    """Rows with their words; a row's number is its place, and is never used twice.

    Searching and writing may happen in several threads. Whoever searches says which classes are permitted by flags;
    the flag of class 0 is never set.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._postings: dict[str, tuple[array[int], array[int]]] = {}
        self._lengths: array[int] = array("I")
        self._classes: Classes = np.zeros(1024, np.int32)
        self._count = np.zeros(16, np.int64)
        self._length = np.zeros(16, np.int64)

    def __len__(self) -> int:
        return len(self._lengths)

    def add(self, rows: Sequence[tuple[Mapping[str, int], int]]) -> range:
        """Take in rows, each with the counts of its words and its class; return their numbers."""
        with self._lock:
            first = len(self._lengths)
            self._make_room(first + len(rows), max((of_class for _, of_class in rows), default=0))
            for row, (counts, of_class) in enumerate(rows, first):
                length = sum(counts.values())
                self._lengths.append(length)
                self._classes[row] = of_class
                self._count[of_class] += 1
                self._length[of_class] += length
                for word, count in counts.items():
                    places, times = self._postings.setdefault(word, (array("I"), array("H")))
                    places.append(row)
                    times.append(min(count, _MOST))
            return range(first, len(self._lengths))

    def reclass(self, rows: Sequence[int], to: int = _GONE) -> None:
        """Let rows count for another class from now on, or for none."""
        with self._lock:
            self._make_room(0, to)
            for row in rows:
                was, length = self._classes[row], self._lengths[row]
                self._count[was] -= 1
                self._length[was] -= length
                self._classes[row] = to
                if to != _GONE:
                    self._count[to] += 1
                    self._length[to] += length

    def scores(self, question: Mapping[str, float], permitted: Flags) -> tuple[Slots, Floats]:
        """The rows that hold a word of the question and are permitted, and their scores, in no order."""
        every: list[Slots] = []
        weights: list[Floats] = []
        for word, counts in question.items():
            rows, scores = self._weighed(word, permitted)
            every.append(rows)
            weights.append(scores * np.float32(counts))
        return _summed(every, weights)

    def _weighed(self, word: str, permitted: Flags) -> tuple[Slots, Floats]:
        """The permitted rows that hold a word, and what it adds to the score of each."""
        with self._lock:
            places, times = self._postings.get(word, (array("I"), array("H")))
            rows, counts = np.array(places, np.int64), np.array(times, np.float32)
            classes = self._classes[rows]
            here = permitted.take(classes, mode="clip")
            rows, counts = rows[here], counts[here]
            lengths = np.frombuffer(self._lengths, np.uint32)[rows].astype(np.float32) if len(rows) else counts
            known = permitted[: len(self._count)]
            count = int(self._count[: len(known)][known].sum())
            length = int(self._length[: len(known)][known].sum())
        if not len(rows):
            return rows, counts
        mean = (length / count) or 1.0
        weight = rarity(len(rows), count) * counts * (K1 + 1.0) / (counts + K1 * (1.0 - B + B * lengths / mean))
        return rows, weight.astype(np.float32)

    def _make_room(self, rows: int, classes: int) -> None:
        if rows > len(self._classes):
            self._classes = np.concatenate([self._classes, np.zeros(max(rows, len(self._classes)), np.int32)])
        if classes >= len(self._count):
            more = np.zeros(max(classes + 1, len(self._count)), np.int64)
            self._count, self._length = np.concatenate([self._count, more]), np.concatenate([self._length, more])


def _summed(every: Sequence[Slots], weights: Sequence[Floats]) -> tuple[Slots, Floats]:
    if not every:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    rows, at = np.unique(np.concatenate(every), return_inverse=True)
    return rows, np.bincount(at, np.concatenate(weights), len(rows)).astype(np.float32)
