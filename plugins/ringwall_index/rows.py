"""Whose chunk a row is."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Final, NamedTuple, Self

import numpy as np

from ringwall_index.kernels import Bytes, Flags, Slots
from ringwall_index.postings import Array, Column, Hashes

NOWHERE: Final = -1
"""The section of a row whose store has none."""

_COLUMNS: Final = np.dtype([("id", np.uint64), ("document", np.uint64), ("mark", np.uint64), ("section", np.int64)])


class Texts(NamedTuple):
    """Texts in one array, from one bound to the next."""

    letters: Bytes
    bounds: Slots

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        each = [text.encode("utf-8", "surrogatepass") for text in texts]
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum([len(text) for text in each], dtype=np.int64)])
        return cls(np.frombuffer(b"".join(each), np.uint8), bounds)

    def arrays(self) -> dict[str, Array]:
        """All of it by names, to be kept."""
        return {"letters": self.letters, "bounds": self.bounds}

    def text(self, at: int) -> str:
        """One of them."""
        start, end = self.bounds[at : at + 2].tolist()
        return self.letters[start:end].tobytes().decode("utf-8", "surrogatepass")


class Rows:
    """The id of each row's chunk, and numbers for it, its document, its content and the section it stands in.

    For one thread that writes; others may ask for ids meanwhile.
    """

    def __init__(
        self, hashes: Hashes, built: Texts | None = None, later: Texts | None = None, columns: Array | None = None
    ) -> None:
        self._hashes = hashes
        self._built = built or Texts.of([])
        self._later = [later.text(at) for at in range(len(later.bounds) - 1)] if later else []
        self._columns = Column(np.zeros(0, _COLUMNS) if columns is None else np.array(columns))

    def __len__(self) -> int:
        return len(self._columns)

    def add(self, chunks: Sequence[tuple[str, str]], marks: Iterable[int], section: int) -> None:
        """Take in rows, each with the id of its chunk and of its document."""
        self._later += [id for id, _ in chunks]
        columns = np.zeros(len(chunks), _COLUMNS)
        columns["id"] = self._hashes.of(id for id, _ in chunks)
        columns["document"] = self._hashes.of(document for _, document in chunks)
        columns["mark"], columns["section"] = np.fromiter(marks, np.uint64), section
        self._columns.extend(columns)

    def id(self, row: int) -> str:
        """The id of a row's chunk."""
        built = len(self._built.bounds) - 1
        return self._built.text(row) if row < built else self._later[row - built]

    def with_ids(self, ids: Iterable[str]) -> Slots:
        """The rows, gone ones too, of chunks with these ids."""
        return np.flatnonzero(np.isin(self._columns.values["id"], self._hashes.of(ids)))

    def of_documents(self, documents: Iterable[str]) -> Slots:
        """The rows, gone ones too, of these documents."""
        return np.flatnonzero(np.isin(self._columns.values["document"], self._hashes.of(documents)))

    def in_sections(self, sections: Iterable[int]) -> Flags:
        """Which rows stand in these sections."""
        return np.isin(self._columns.values["section"], np.fromiter(sections, np.int64))

    def stand_in(self, rows: Slots, section: int) -> None:
        """Let rows stand in a section from now on."""
        self._columns.values["section"][rows] = section

    def marks_of(self, rows: Slots) -> list[int]:
        """The marks of these rows."""
        marks: list[int] = self._columns.values["mark"][rows].tolist()
        return marks

    def marks(self, here: Flags) -> Marks:
        """Rows by their marks, of those that are here."""
        return Marks(self._columns.values["mark"], np.flatnonzero(here))

    def lasting(self) -> dict[str, Array]:
        """What never changes, to be kept by name."""
        return self._built.arrays()

    def passing(self) -> dict[str, Array]:
        """What may have changed."""
        return {**Texts.of(self._later).arrays(), "columns": self._columns.values.copy()}

    @classmethod
    def kept(cls, hashes: Hashes, lasting: Mapping[str, Array], passing: Mapping[str, Array]) -> Rows:
        """What was kept."""
        built, later = (Texts(kept["letters"], kept["bounds"]) for kept in (lasting, passing))
        return cls(hashes, built, later, passing["columns"])

    def compacted(self, places: Slots) -> Rows:
        """The rows alone that have a place from 0 on, there."""
        ids = Texts.of([self.id(row) for row in np.flatnonzero(places >= 0).tolist()])
        return Rows(self._hashes, ids, None, self._columns.values[places >= 0])


class Marks(Container[int]):
    """Which row has which mark."""

    def __init__(self, marks: Array, rows: Slots) -> None:
        order = np.argsort(marks[rows])
        self._marks, self._rows = marks[rows][order], rows[order]
        self._each = self._marks.data
        self._later: dict[int, int] = {}
        self._gone: set[int] = set()

    def __contains__(self, mark: object) -> bool:
        if not isinstance(mark, int) or mark in self._gone:
            return False
        at = bisect_left(self._each, mark)
        return mark in self._later or (at < len(self._each) and self._each[at] == mark)

    def rows(self, marks: Sequence[int]) -> Slots:
        """The rows of those of these marks that are here, in no order."""
        built = [mark for mark in marks if mark not in self._later and mark in self]
        later = [self._later[mark] for mark in marks if mark in self._later]
        at = np.searchsorted(self._marks, np.array(built, np.uint64))
        return np.concatenate([self._rows[at], np.array(later, np.int64)])

    def add(self, marks: Sequence[int], first: int) -> None:
        """Rows from `first` on have these marks."""
        self._gone.difference_update(marks)
        self._later.update((mark, row) for row, mark in enumerate(marks, first))

    def drop(self, marks: Sequence[int]) -> None:
        """No row has these marks any longer."""
        self._gone.update(marks)
        for mark in marks:
            self._later.pop(mark, None)
