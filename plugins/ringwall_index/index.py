"""Rows for chunks: their words, their vectors, their attributes, and the class of those who may read them."""

from __future__ import annotations

import json
import secrets
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import numpy as np

from ringwall.data.base import Chunk, Query, Section
from ringwall.data.fuse import fuse
from ringwall.data.lexical import words
from ringwall.data.vectors import check_vector, check_vectors
from ringwall.errors import StoreError
from ringwall.principal import ACL, Grant, Grants
from ringwall_index.attributes import Attributes
from ringwall_index.files import Beside
from ringwall_index.kernels import Classes, Flags, Floats, Slots, best
from ringwall_index.postings import Array, Hashes
from ringwall_index.rows import NOWHERE, Marks, Rows
from ringwall_index.vectors import AuthorisedVectors, Found, View
from ringwall_index.words import GONE, Words

_CANDIDATES: Final = 200
"""Rows that each half of a search hands on to be ranked together, at least."""

_MOST_NEAR: Final = 1024
"""With conditions: more of the nearest than this are not looked through for those that meet them."""

_SPARED: Final = 4096
"""So many gone rows are nothing to compact for."""

_VIEWS_KEPT: Final = 256
_FORMAT: Final = "1"


@dataclass(frozen=True, slots=True)
class Question:
    """A query as its reader may ask it: what is the same however its words are weighed."""

    vector: Floats | None
    wanted: int
    permitted: Flags
    meeting: Flags | None
    """Which rows meet the conditions; None: there are none."""
    near: Found | None


@dataclass(frozen=True, slots=True)
class Parts:
    """What an index is made of; `readers` are those of the classes from 1 on."""

    hashes: Hashes
    rows: Rows
    words: Words
    attributes: Attributes
    vectors: AuthorisedVectors
    readers: Sequence[ACL] = ()

    @classmethod
    def empty(cls) -> Self:
        hashes = Hashes(secrets.token_bytes(16))
        return cls(hashes, Rows(hashes), Words(hashes), Attributes(hashes), AuthorisedVectors())

    @classmethod
    def kept(
        cls, hashes: Hashes, vectors: AuthorisedVectors, arrays: Mapping[str, Array], readers: Iterable[ACL]
    ) -> Self:
        """What `arrays` gave, with the vectors that were saved with it."""
        rows, words, attributes = (_named(arrays, name) for name in ("rows", "words", "attributes"))
        return cls(
            hashes,
            Rows.kept(hashes, *rows),
            Words.kept(hashes, *words),
            Attributes.kept(hashes, *attributes),
            vectors,
            list(readers),
        )

    def arrays(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """All but the vectors, by names: what lasts until it is compacted, and what passes."""
        each: dict[str, Rows | Words | Attributes]
        each = {"rows": self.rows, "words": self.words, "attributes": self.attributes}
        lasting = {f"{name}_built_{key}": array for name, part in each.items() for key, array in part.lasting().items()}
        passing = {f"{name}_later_{key}": array for name, part in each.items() for key, array in part.passing().items()}
        return lasting, passing

    def compacted(self, places: Slots, class_of: Classes, readers: Sequence[ACL]) -> Self:
        """Only the rows that have a place from 0 on, there; `class_of` says how their classes are called there."""
        return replace(
            self,
            rows=self.rows.compacted(places),
            words=self.words.compacted(places, class_of),
            attributes=self.attributes.compacted(places),
            vectors=self.vectors.compacted(places, class_of),
            readers=readers,
        )


def _named(arrays: Mapping[str, Array], part: str) -> tuple[dict[str, Array], dict[str, Array]]:
    """What was kept of a part: what lasts, and what passes."""
    lasting, passing = f"{part}_built_", f"{part}_later_"
    return (
        {name.removeprefix(lasting): array for name, array in arrays.items() if name.startswith(lasting)},
        {name.removeprefix(passing): array for name, array in arrays.items() if name.startswith(passing)},
    )


class ChunkIndex:
    """Chunks as rows, each of one class: those that the same people may read.

    `revision` is that of the store when this was brought up to date, `versions` those of its sections, if it has any.
    One thread writes at a time; any number search meanwhile.
    """

    def __init__(self, parts: Parts | None = None, name: str = "") -> None:
        self.revision = ""
        self.versions: dict[int, str] | None = None
        self.changed = 0
        """How many rows were written or changed since this was built, opened or saved."""
        self._name = name or uuid.uuid4().hex
        self._parts = parts = parts or Parts.empty()
        self._rows, self._words, self._attributes, self._vectors = (
            parts.rows,
            parts.words,
            parts.attributes,
            parts.vectors,
        )
        self._class_of: dict[ACL, int] = {}
        self._opens: dict[Grant, set[int]] = {}
        for readers in parts.readers:
            self._class(readers)
        self._views: dict[Grants, tuple[Flags, View]] = {}
        self._marks: Marks | None = None

    @property
    def dimension(self) -> int | None:
        """Of every vector; None: there is none."""
        return self._vectors.dimension

    def __len__(self) -> int:
        return int(np.count_nonzero(self._here()))

    @property
    def wants_compacting(self) -> bool:
        """Whether searches would be faster in a compacted one, or most of this is of what is gone."""
        return self._vectors.wants_compacting or 2 * len(self) < len(self._rows) - _SPARED

    # ---- writing: whole sections, of a store that has them

    @property
    def known(self) -> Marks:
        """The marks of what is here."""
        if self._marks is None:
            self._marks = self._rows.marks(self._here())
        return self._marks

    def take(self, section: Section) -> Slots:
        """Take in what is new in a section or has come to it; return the rows that stand there."""
        of_class = self._class(section.readers)
        rows = self.known.rows(section.marks)
        rows = rows[rows >= 0]
        self._rows.stand_in(rows, section.name)
        moved = rows[self._words.classes[rows] != of_class]
        self._reclass(moved, of_class)
        return np.concatenate([rows, self._add(list(section.chunks.values()), list(section.chunks), section.name)])

    def leave(self, sections: Iterable[int], standing: Iterable[Slots]) -> None:
        """Take out of these sections all rows but those that were seen standing somewhere."""
        gone = self._rows.in_sections(sections) & self._here()
        for rows in standing:
            gone[rows] = False
        self._forget(np.flatnonzero(gone))

    # ---- writing: whatever is told, of a store without sections

    def put(self, chunks: Sequence[Chunk]) -> None:
        """Take in chunks; of several with one id the last counts."""
        last = list({chunk.id: chunk for chunk in chunks}.values())
        check_vectors(last, self.dimension)
        self._forget(self._alive(self._rows.with_ids(chunk.id for chunk in last)))
        self._add(last, [0] * len(last), NOWHERE)

    def remove(self, documents: Sequence[str]) -> None:
        """Take out all chunks of these documents."""
        self._forget(self._alive(self._rows.of_documents(documents)))

    def relabel(self, documents: Sequence[str], readers: ACL) -> None:
        """Give the chunks of these documents other readers."""
        rows = self._alive(self._rows.of_documents(documents))
        if len(rows):
            self._reclass(rows, self._class(readers))

    # ---- searching

    def question(self, query: Query, readable: Grants, k: int) -> Question:
        """Look up what the reader may see, and what lies near.

        Raises `InvalidInput` for a vector of another dimension.
        """
        if query.vector is not None:
            check_vector(query.vector, self.dimension, of="the query")
        permitted, view = self._view(readable)
        meeting = self._attributes.meeting(query.where, len(self._words)) if query.where else None
        wanted = max(_CANDIDATES, 4 * k)
        vector = None if query.vector is None else np.array(query.vector, np.float32)
        near = None if vector is None else self._near(vector, view, wanted, permitted, meeting)
        return Question(vector, wanted, permitted, meeting, near)

    def ranked(
        self, question: Question, terms: Mapping[str, float], most: int, dense_weight: float
    ) -> list[tuple[str, float]]:
        """The best `most` chunks by id, if there are so many, with their scores; equal ones by id."""
        rows, weights = self._words.scores(terms, question.permitted)
        candidates = _leading(rows, weights, question.meeting, question.wanted)
        dense: dict[int, float] = {}
        if question.vector is not None and question.near is not None:
            both = self._vectors.scores(question.vector, candidates)
            candidates = np.union1d(candidates, question.near.rows)
            for found in both, question.near:
                dense.update(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
        scores = fuse(_at(candidates, rows, weights), dense, dense_weight=dense_weight)
        ranked, values = np.fromiter(scores, np.int64), np.fromiter(scores.values(), np.float64)
        if question.meeting is not None:
            meets = question.meeting.take(ranked, mode="clip")
            ranked, values = ranked[meets], values[meets]
        if len(ranked) > most:
            top = values >= np.partition(values, -most)[-most]
            ranked, values = ranked[top], values[top]
        ranking = sorted(
            (-score, self._rows.id(row)) for row, score in zip(ranked.tolist(), values.tolist(), strict=True)
        )
        return [(id, -score) for score, id in ranking[:most]]

    def _near(self, vector: Floats, view: View, wanted: int, permitted: Flags, meeting: Flags | None) -> Found:
        """The nearest rows, of those that meet the conditions; and the nearest of all, which they are measured by."""
        near = self._vectors.search(vector, view, wanted)
        if meeting is None or len(near.rows) < wanted:
            return near
        may = self._words.permitted(permitted)
        rows = np.flatnonzero(may[: len(meeting) - 1] & meeting[: len(may)])
        enough = int(1.5 * wanted * np.count_nonzero(may) / max(1, len(rows)))
        if enough <= _MOST_NEAR:
            wider = self._vectors.search(vector, view, enough)
            if np.count_nonzero(meeting.take(wider.rows, mode="clip")) >= wanted:
                return wider
        every = self._vectors.scores(vector, rows)
        top = best(every.scores, wanted)
        return Found(np.append(every.rows[top], near.rows[0]), np.append(every.scores[top], near.scores[0]))

    def _view(self, readable: Grants) -> tuple[Flags, View]:
        views = self._views
        if readable not in views:
            if len(views) >= _VIEWS_KEPT:
                views.clear()
            classes = {number for grant in readable for number in tuple(self._opens.get(grant, ()))}
            flags = np.zeros(len(self._class_of) + 2, bool)
            flags[list(classes)] = True
            views[readable] = flags, self._vectors.view(classes)
        return views[readable]

    # ---- keeping

    def save(self, folder: Path) -> None:
        """Keep the index in a folder. Raises `StoreError`."""
        about = {
            "format": _FORMAT,
            "name": self._name,
            "key": self._parts.hashes.key.hex(),
            "versions": None if self.versions is None else list(self.versions.items()),
            "readers": [sorted(readers) for readers in self._class_of],
        }
        lasting, passing = self._parts.arrays()
        passing["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
        self._vectors.save(folder, stamp=self.revision, beside=Beside(self._name, lasting, passing))
        self.changed = 0

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True) -> Self:
        """The index that is kept in a folder. Raises `StoreError` if there is none, or it is damaged."""
        vectors, arrays = AuthorisedVectors.open_with(folder, verify=verify)
        try:
            about = json.loads(arrays["about"].tobytes())
            if about["format"] != _FORMAT:
                raise StoreError(f"an index of the format {about['format']}", expected=_FORMAT)
            hashes, readers = Hashes(bytes.fromhex(about["key"])), map(ACL, about["readers"])
            index = cls(Parts.kept(hashes, vectors, arrays, readers), about["name"])
            index.versions = None if about["versions"] is None else dict(map(tuple, about["versions"]))
        except (KeyError, ValueError, TypeError) as error:
            raise StoreError(f"no index of chunks in {str(folder)!r}", hint="build it anew") from error
        index.revision = vectors.stamp
        return index

    def frozen(self) -> Self:
        """The same, whatever becomes of this one: quickly made if little was written since it was compacted."""
        lasting, passing = self._parts.arrays()
        return self._beside(
            Parts.kept(self._parts.hashes, self._vectors.frozen(), lasting | passing, list(self._class_of))
        )

    def compacted(self) -> Self:
        """An index of its own that holds the same, and nothing of what is gone. Nothing is to be written meanwhile."""
        here = self._here()
        used = np.unique(self._words.classes[here])
        class_of = np.zeros(len(self._class_of) + 1, np.int32)
        class_of[used] = np.arange(1, len(used) + 1)
        readers = list(self._class_of)
        places = np.where(here, np.cumsum(here) - 1, -1)
        return self._beside(self._parts.compacted(places, class_of, [readers[number - 1] for number in used.tolist()]))

    def _beside(self, parts: Parts) -> Self:
        index = type(self)(parts)
        index.revision, index.versions = self.revision, self.versions
        return index

    # ---- rows

    def _here(self) -> Flags:
        here: Flags = self._words.classes != GONE
        return here

    def _alive(self, rows: Slots) -> Slots:
        alive: Slots = rows[self._words.classes[rows] != GONE]
        return alive

    def _add(self, chunks: Sequence[Chunk], marks: Sequence[int], section: int) -> Slots:
        """Take in chunks that are not here; searches must not meet a row whose id is not known yet."""
        if not chunks:
            return np.empty(0, np.int64)
        check_vectors(chunks, self.dimension)
        first = len(self._rows)
        classes = [self._class(chunk.readers) for chunk in chunks]
        self._rows.add([(chunk.id, chunk.document) for chunk in chunks], marks, section)
        self._attributes.add(first, [chunk.metadata for chunk in chunks])
        self._words.add([(Counter(words(chunk.text)), of) for chunk, of in zip(chunks, classes, strict=True)])
        rows = np.arange(first, len(self._rows))
        if self._marks is not None:
            self._marks.add(marks, first)
        vectors = [
            (row, c.vector, of) for row, c, of in zip(rows, chunks, classes, strict=True) if c.vector is not None
        ]
        if vectors:
            numbers, arrays, of_class = zip(*vectors, strict=True)
            self._vectors.upsert(numbers, np.array(arrays, np.float32), of_class)
        self.changed += len(rows)
        return rows

    def _forget(self, rows: Slots) -> None:
        if self._marks is not None:
            self._marks.drop(self._rows.marks_of(rows))
        self._words.reclass(rows)
        self._vectors.remove(rows)
        self.changed += len(rows)

    def _reclass(self, rows: Slots, of_class: int) -> None:
        self._words.reclass(rows, of_class)
        self._vectors.relabel(rows, of_class)
        self.changed += len(rows)

    def _class(self, readers: ACL) -> int:
        """The number of an ACL, from 1: 0 is nobody's."""
        if readers not in self._class_of:
            number = self._class_of[readers] = len(self._class_of) + 1
            for grant in readers:
                self._opens.setdefault(grant, set()).add(number)
            self._views = {}
        return self._class_of[readers]


def _leading(rows: Slots, scores: Floats, meeting: Flags | None, wanted: int) -> Slots:
    """The best rows, of those that meet the conditions; and the best of all, which they are measured by."""
    if meeting is None:
        return rows[best(scores, wanted)]
    kept = np.flatnonzero(meeting.take(rows, mode="clip"))
    return np.union1d(rows[best(scores, 1)], rows[kept[best(scores[kept], wanted)]])


def _at(wanted: Slots, rows: Slots, values: Floats) -> dict[int, float]:
    """The values of the wanted rows, of those that have one; `rows` ascend."""
    if not len(rows):
        return {}
    at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    known = rows[at] == wanted
    return dict(zip(wanted[known].tolist(), values[at[known]].tolist(), strict=True))
