"""What the rows' metadata say, and which rows meet a condition on it."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ringwall.data.base import Condition, Scalar
from ringwall_index.kernels import Flags, Slots
from ringwall_index.postings import Array, Hashes, Packed, Postings

_KEPT: Final = 64


class Attributes:
    """Rows by the keys of their metadata, and the values there; each distinct value is kept once.

    Searching and writing may happen in several threads.
    """

    def __init__(
        self,
        hashes: Hashes,
        built: Packed | None = None,
        later: Packed | None = None,
        values: Sequence[Scalar] = (),
    ) -> None:
        self._lock = threading.Lock()
        self._hashes = hashes
        self._postings = Postings(np.uint32, built, later)
        self._values = list(values)
        self._numbers = {_exactly(value): number for number, value in enumerate(self._values)}
        self._answers: dict[tuple[object, ...], Flags] = {}

    def add(self, first: int, rows: Sequence[Mapping[str, Scalar]]) -> None:
        """Take in the metadata of the rows from `first` on."""
        with self._lock:
            self._answers = {}
            for row, metadata in enumerate(rows, first):
                self._postings.add(row, {self._hashes(key): self._number(metadata[key]) for key in metadata})

    def meeting(self, conditions: Sequence[Condition], rows: int) -> Flags:
        """Which of so many rows meet all conditions; with a no at the end, for those that come later."""
        asked = tuple((c.key, c.operator, *map(_exactly, c.values)) for c in conditions)
        with self._lock:
            flags = self._answers.get(asked)
            if flags is None or len(flags) != rows + 1:
                flags = np.logical_and.reduce([self._meeting(condition, rows + 1) for condition in conditions])
                if len(self._answers) >= _KEPT:
                    self._answers = {}
                self._answers[asked] = flags
        return flags

    def lasting(self) -> dict[str, Array]:
        """What never changes, to be kept by name."""
        return self._postings.built.arrays()

    def passing(self) -> dict[str, Array]:
        """What may have changed."""
        with self._lock:
            later = self._postings.later().arrays()
            return {**later, "scalars": np.frombuffer(json.dumps(self._values).encode(), np.uint8)}

    @classmethod
    def kept(cls, hashes: Hashes, lasting: Mapping[str, Array], passing: Mapping[str, Array]) -> Attributes:
        """What was kept."""
        return cls(hashes, Packed.kept(lasting), Packed.kept(passing), json.loads(passing["scalars"].tobytes()))

    def compacted(self, places: Slots) -> Attributes:
        """The rows alone that have a place from 0 on, there, and the values they have."""
        with self._lock:
            both, later, values = self._postings.built, self._postings.later(), list(self._values)
        both = both.moved(places) + later.moved(places)
        used, numbers = np.unique(both.values, return_inverse=True)
        both = both._replace(values=numbers.astype(np.uint32))
        return Attributes(self._hashes, both, None, [values[at] for at in used.tolist()])

    def _number(self, value: Scalar) -> int:
        name = _exactly(value)
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._values)
            self._values.append(value)
        return number

    def _meeting(self, condition: Condition, rows: int) -> Flags:
        holding, numbers = self._postings.of(self._hashes(condition.key))
        there = np.zeros(len(self._values) + 1, bool)
        there[self._candidates(condition, numbers)] = True
        fitting = [n for n in np.flatnonzero(there).tolist() if condition.admits({condition.key: self._values[n]})]
        there[:] = False
        there[fitting] = True
        flags = np.zeros(rows, bool)
        flags[holding[there[numbers]]] = True
        return flags

    def _candidates(self, condition: Condition, numbers: Any) -> Any:
        """The values that may meet the condition: for equality there are few."""
        if condition.operator not in ("==", "in"):
            return numbers
        alike = (_exactly(kind(value)) for value in condition.values for kind in _kinds(value))
        return [self._numbers[name] for name in alike if name in self._numbers]


def _exactly(value: Scalar) -> tuple[type, Scalar]:
    """What tells a value from all others: to Python True is 1, and 1 is 1.0."""
    return type(value), value


def _kinds(value: Scalar) -> tuple[type[Scalar], ...]:
    return (int, float) if type(value) in (int, float) else (type(value),)
