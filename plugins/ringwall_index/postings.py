"""Which rows hold which term, each with a number: built ones packed in arrays, later ones beside them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ringwall_index.kernels import Slots

Numbers = npt.NDArray[np.uint64]
Values = npt.NDArray[np.unsignedinteger[Any]]
Array = npt.NDArray[Any]

_REMEMBERED: Final = 200_000


class Hashes:
    """Numbers of 64 bits for texts: always the same for one text, and none can be foretold without the key."""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self._known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        number = self._known.get(text)
        if number is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, key=self.key)
            number = self._known[text] = int.from_bytes(digest.digest(), "little")
        return number

    def of(self, texts: Iterable[str]) -> Numbers:
        """The numbers of several texts."""
        return np.fromiter(map(self, texts), np.uint64)


class Packed(NamedTuple):
    """Terms in order, and for each from one bound to the next its rows and their values."""

    terms: Numbers
    bounds: Slots
    rows: npt.NDArray[np.uint32]
    values: Values

    @classmethod
    def empty(cls, kind: type[np.unsignedinteger[Any]]) -> Self:
        return cls(np.empty(0, np.uint64), np.zeros(1, np.int64), np.empty(0, np.uint32), np.empty(0, kind))

    @classmethod
    def kept(cls, arrays: Mapping[str, Array]) -> Self:
        """What `arrays` gave, among others."""
        return cls(arrays["terms"], arrays["bounds"], arrays["rows"], arrays["values"])

    def arrays(self) -> dict[str, Array]:
        """All of it by names, to be kept."""
        return {"terms": self.terms, "bounds": self.bounds, "rows": self.rows, "values": self.values}

    def of(self, term: int) -> slice:
        """Where a term's rows are."""
        at = int(np.searchsorted(self.terms, np.uint64(term)))
        if at == len(self.terms) or self.terms[at] != term:
            return slice(0, 0)
        return slice(int(self.bounds[at]), int(self.bounds[at + 1]))

    def moved(self, places: Slots) -> Packed:
        """The same with each row where `places` says; below 0: left out."""
        rows = places.astype(np.int32)[self.rows]
        here = rows >= 0
        before = np.zeros(len(rows) + 1, np.uint32)
        np.cumsum(here, out=before[1:])
        ends = before[self.bounds].astype(np.int64)
        lengths = ends[1:] - ends[:-1]
        some = lengths > 0
        return Packed(self.terms[some], _bounds(lengths[some]), rows[here].astype(np.uint32), self.values[here])

    def __add__(self, later: object) -> Packed:
        """Both in one: for each term the rows of the later after our own."""
        if not isinstance(later, Packed):
            return NotImplemented
        terms = np.union1d(self.terms, later.terms)
        lengths = np.zeros(len(terms), np.int64)
        for part in self, later:
            lengths[np.searchsorted(terms, part.terms)] += np.diff(part.bounds)
        ends = self.bounds[np.searchsorted(self.terms, later.terms, side="right")]
        at = np.repeat(ends, np.diff(later.bounds))
        return Packed(
            terms,
            _bounds(lengths),
            np.insert(self.rows, at, later.rows),
            np.insert(self.values, at, later.values),
        )


class Postings:
    """Rows by term. Rows are added in ascending order; for one thread at a time."""

    def __init__(
        self, kind: type[np.unsignedinteger[Any]], built: Packed | None = None, later: Packed | None = None
    ) -> None:
        self._kind = np.dtype(kind)
        self.built = built or Packed.empty(kind)
        self._later: dict[int, tuple[array[int], array[int]]] = {}
        if later is not None:
            self._take_back(later)

    def add(self, row: int, values: Mapping[int, int]) -> None:
        """Let a row hold these terms, each with its number."""
        for term, value in values.items():
            at = self._later.get(term)
            if at is None:
                at = self._later[term] = array("I"), array(self._kind.char)
            at[0].append(row)
            at[1].append(value)

    def of(self, term: int) -> tuple[Slots, Values]:
        """The rows that hold a term, ascending, and their numbers."""
        built = self.built.of(term)
        rows, values = self.built.rows[built].astype(np.int64), self.built.values[built]
        later = self._later.get(term)
        if later is None:
            return rows, values
        more = np.array(later[0], np.int64), np.array(later[1], self._kind)
        return np.concatenate([rows, more[0]]), np.concatenate([values, more[1]])

    def later(self) -> Packed:
        """What was added, packed."""
        if not self._later:
            return Packed.empty(self._kind.type)
        terms = np.fromiter(self._later, np.uint64, len(self._later))
        order = np.argsort(terms)
        added = list(self._later.values())
        lengths = np.array([len(added[at][0]) for at in order], np.int64)
        rows = b"".join(added[at][0].tobytes() for at in order)
        values = b"".join(added[at][1].tobytes() for at in order)
        return Packed(terms[order], _bounds(lengths), np.frombuffer(rows, np.uint32), np.frombuffer(values, self._kind))

    def _take_back(self, later: Packed) -> None:
        for at, term in enumerate(later.terms.tolist()):
            here = slice(int(later.bounds[at]), int(later.bounds[at + 1]))
            self._later[term] = (
                array("I", later.rows[here].tobytes()),
                array(self._kind.char, later.values[here].tobytes()),
            )


def _bounds(lengths: Slots) -> Slots:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


class Column:
    """Numbers by row, in an array that grows."""

    def __init__(self, values: Array) -> None:
        self._values, self.rows = values, len(values)

    def __len__(self) -> int:
        return self.rows

    @property
    def values(self) -> Array:
        """The numbers, as they are now and as they become."""
        return self._values[: self.rows]

    def extend(self, values: npt.ArrayLike) -> None:
        more = np.asarray(values, self._values.dtype)
        rows = self.rows + len(more)
        if rows > len(self._values):
            room = np.zeros(max(rows - self.rows, len(self._values), 1024), self._values.dtype)
            self._values = np.concatenate([self.values, room])
        self._values[self.rows : rows] = more
        self.rows = rows
