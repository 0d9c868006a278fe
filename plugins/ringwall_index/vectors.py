"""An index of vectors that finds, for a principal, the nearest among the rows of the permitted classes only."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from ringwall.errors import InvalidInput
from ringwall_index import files
from ringwall_index.calibration import calibrate
from ringwall_index.kernels import Classes, Flags, Floats, Slots, best, products_at, squared, stay_on_one_thread, unit
from ringwall_index.plans import Plan, Planner
from ringwall_index.recent import Recent, RecentPlan
from ringwall_index.segment import GONE, Segment

_LARGEST_CLASS: Final = 2**24
_TRIES: Final = 5
_SAFE: Final = 1e-20
"""Squares of lengths between this and its inverse lost nothing, and come from finite numbers."""

_COMPACT_FROM: Final = 4096
_COMPACT_SHARE: Final = 0.02


class Found(NamedTuple):
    """Rows and their cosines with the query, best first."""

    rows: Slots
    scores: Floats


class AuthorisedVectors:
    """Rows, each with a vector and a class, found by the cosine of their vector with a query's.

    A row is known by a number of the caller's, and belongs to one class: those rows that the same people may read.
    Classes are small numbers that start at 0; tables are as long as the largest. The caller relies on this:

    - what is not permitted is never returned, takes no place among the `k`, and does not change how many come back;
    - a search sees every change that returned before it began;
    - scores are exact. Which rows come back is approximate once there are a few thousand, and then about as good as
      comparing all that are permitted.

    Many threads may search while one writes; each search uses one thread. Changes are kept aside and searched exactly:
    `compact` works them in. An index on disk is a cache: when it cannot be opened, build it anew.
    """

    def __init__(self, dimension: int | None = None) -> None:
        self._dimension = dimension
        self._stamp = ""
        self._state = threading.Lock()
        self._compacting = threading.Lock()
        self._written: set[int] | None = None
        self._take(_empty(dimension or 0), Recent(dimension or 0))

    @classmethod
    def build(cls, rows: npt.ArrayLike, vectors: npt.ArrayLike, classes: npt.ArrayLike) -> Self:
        """An index of these rows. Takes some 40 s of one core for a million."""
        index = cls()
        keys, units, of_class = index._checked(rows, vectors, classes)
        segment = Segment.of(keys, units, of_class)
        calibrate(segment)
        index._take(segment, Recent(units.shape[1]))
        return index

    @classmethod
    def open(cls, folder: str | Path, *, verify: bool = True) -> Self:
        """The index that was saved in the folder; its vectors stay on disk and are mapped into memory.

        With `verify`, every byte is held against its checksum. Raises `StoreError` if there is no index, or it was
        damaged.
        """
        return cls.open_with(folder, verify=verify)[0]

    @classmethod
    def open_with(cls, folder: str | Path, *, verify: bool = True) -> tuple[Self, Mapping[str, files.Array]]:
        """As `open`; and what was saved beside it, mapped into memory."""
        saved = files.load(Path(folder), verify=verify)
        return cls._of(saved.dimension, saved.segment, saved.recent, saved.stamp), saved.beside.passing

    @classmethod
    def _of(cls, dimension: int | None, segment: Segment, recent: Recent, stamp: str = "") -> Self:
        index = cls(dimension)
        index._stamp = stamp
        index._take(segment, recent)
        return index

    def save(self, folder: str | Path, *, stamp: str = "", beside: files.Beside = files.NOTHING) -> None:
        """Write the index to the folder. Until that is done, the folder holds what was saved before.

        `stamp` comes back with `open`: say there which state of the store of record this index has. What lies
        `beside` it is saved in the same moment.
        """
        with self._compacting:
            with self._state:
                saved = files.Saved(self._dimension, stamp, self._segment.frozen(), self._recent.frozen(), beside)
            files.write(Path(folder), saved)
        self._stamp = stamp

    @property
    def stamp(self) -> str:
        """What `save` was told last."""
        return self._stamp

    @property
    def dimension(self) -> int | None:
        """Of every vector; None: any will do, and the first decides."""
        return self._dimension

    def __len__(self) -> int:
        return self._rows

    @property
    def wants_compacting(self) -> bool:
        """Whether so much has changed that `compact` would make searches faster."""
        changed = self._recent.count + sum(map(len, self._segment.log))
        return changed > max(_COMPACT_FROM, _COMPACT_SHARE * len(self._segment))

    def upsert(self, rows: npt.ArrayLike, vectors: npt.ArrayLike, classes: npt.ArrayLike) -> None:
        """Add rows; one that is known is replaced, and of several with one number the last counts.

        Raises `InvalidInput`, and changes nothing, for a vector of another dimension or one that is not finite, or a
        class that is no small number.
        """
        keys, units, of_class = self._checked(rows, vectors, classes)
        if not len(keys):
            return
        with self._state:
            self._begin(units.shape[1])
            self._drop(keys)
            self._recent.append(keys, units, of_class)
            self._rows += len(keys)
            self._note(keys)

    def remove(self, rows: npt.ArrayLike) -> None:
        """Take rows out; unknown ones are fine."""
        keys = np.unique(_integers(rows, "rows"))
        with self._state:
            self._drop(keys)
            self._note(keys)

    def relabel(self, rows: npt.ArrayLike, to: int) -> None:
        """Move rows to another class; unknown ones are fine."""
        keys = np.unique(_integers(rows, "rows"))
        _check_classes(np.array([to]))
        with self._state:
            self._segment.reclass(self._segment.slots(keys), to)
            self._recent.reclass(self._recent.places(keys), to)
            self._note(keys)

    def view(self, permitted: Iterable[int]) -> View:
        """What somebody may see who may read these classes: prepare it once, search with it often.

        It follows every later change of the rows. Classes that nothing belongs to are fine.
        """
        view = View(permitted)
        with self._state:
            view.plans(self._segment, self._recent)
        return view

    def search(self, vector: npt.ArrayLike, view: View, k: int, candidates: int = 0) -> Found:
        """The best `k` of the permitted rows: that many whenever so many are permitted.

        `candidates` is the least number of rows that are compared exactly: more find a little more.
        Raises `InvalidInput` for a vector of another dimension, or one that is not finite.
        """
        query = self._query(vector)
        if k < 1 or query is None:
            return _NOTHING
        stay_on_one_thread()
        for _ in range(_TRIES):
            found, complete = self._search(query, view, k, candidates)
            if complete:
                break
        return found

    def scores(self, vector: npt.ArrayLike, rows: npt.ArrayLike) -> Found:
        """The cosines of these rows with a query, in no order; rows that are not here are left out.

        It asks about no class: give it rows of which it is known that they are permitted.
        """
        query, keys = self._query(vector), np.unique(_integers(rows, "rows"))
        if query is None:
            return _NOTHING
        with self._state:
            segment, recent = self._segment, self._recent
            slots, places = segment.slots(keys), recent.places(keys)
        old, new = products_at(query, segment.vectors, slots), products_at(query, recent.vectors, places)
        return Found(np.concatenate([segment.keys[slots], recent.keys[places]]), np.concatenate([old, new]))

    def compact(self) -> None:
        """Build anew with every change worked in. Searches and writes go on meanwhile; call it from a thread."""
        with self._compacting:
            with self._state:
                before, recent = self._segment, self._recent.frozen()
                slots = before.alive()
                of_class = np.concatenate([before.classes[slots], recent.classes[: recent.count]])
                self._written = set()
            try:
                keys = np.concatenate([before.keys[slots], recent.keys[: recent.count]])
                vectors = np.concatenate([before.vectors[slots], recent.vectors[: recent.count]])
                segment = Segment.of(keys, vectors, of_class)
                calibrate(segment)
                with self._state:
                    self._take(segment, self._caught_up(segment))
            finally:
                self._written = None

    def frozen(self) -> Self:
        """The same rows as they are now, whatever becomes of this index."""
        with self._state:
            return self._of(self._dimension, self._segment.frozen(), self._recent.frozen())

    def compacted(self, places: Slots, class_of: Classes) -> Self:
        """An index of its own of the rows that have a place from 0 on: each is called so there.

        `class_of` says, class by class, how theirs are called there.
        """
        with self._state:
            segment, recent = self._segment, self._recent.frozen()
        slots, rows = segment.alive(), recent.count
        keys = places[np.concatenate([segment.keys[slots], recent.keys[:rows]])]
        vectors = np.concatenate([segment.vectors[slots], recent.vectors[:rows]])
        classes = class_of[np.concatenate([segment.classes[slots], recent.classes[:rows]])]
        here = keys >= 0
        if here.all():
            return type(self).build(keys, vectors, classes)
        return type(self).build(keys[here], vectors[here], classes[here])

    def _search(self, query: Floats, view: View, k: int, candidates: int) -> tuple[Found, bool]:
        """What is found; and whether nothing was left out because its class changed meanwhile."""
        with self._state:
            plan, recent = view.plans(self._segment, self._recent)
        old, new = plan.search(query, k, candidates), recent.search(query, k)
        keys, classes, scores = plan.segment.keys[old.slots], plan.segment.classes[old.slots], old.scores
        if len(new.slots):
            keys = np.concatenate([keys, recent.recent.keys[new.slots]])
            classes = np.concatenate([classes, recent.recent.classes[new.slots]])
            scores = np.concatenate([scores, new.scores])
            top = best(scores, k)
            keys, classes, scores = keys[top], classes[top], scores[top]
        # Whatever the plan was and whatever became of it: what is returned is permitted now.
        permitted = view.permits(classes)
        if permitted.all():
            return Found(keys, scores), True
        return Found(keys[permitted], scores[permitted]), False

    # ---- writing

    def _take(self, segment: Segment, recent: Recent) -> None:
        self._segment, self._recent = segment, recent
        self._rows = len(segment.alive()) + len(recent)
        if segment.vectors.shape[1]:
            self._dimension = segment.vectors.shape[1]

    def _begin(self, dimension: int) -> None:
        """Hold vectors of this dimension from now on, if there was none before."""
        self._check_dimension(dimension)
        if self._dimension is None:
            self._take(_empty(dimension), Recent(dimension))

    def _drop(self, keys: Slots) -> None:
        slots, places = self._segment.slots(keys), self._recent.places(keys)
        self._segment.reclass(slots, GONE)
        self._recent.reclass(places, GONE)
        self._rows -= len(slots) + len(places)

    def _note(self, keys: Slots) -> None:
        if self._written is not None:
            self._written.update(keys.tolist())

    def _caught_up(self, segment: Segment) -> Recent:
        """What was written while `segment` was built, taken out of it and put aside."""
        keys = np.array(sorted(self._written or ()), np.int64)
        recent = Recent(segment.vectors.shape[1])
        segment.reclass(segment.slots(keys), GONE)
        for rows, at in (self._segment, self._segment.slots(keys)), (self._recent, self._recent.places(keys)):
            recent.append(rows.keys[at], rows.vectors[at], rows.classes[at])
        return recent

    # ---- checking

    def _checked(
        self, rows: npt.ArrayLike, vectors: npt.ArrayLike, classes: npt.ArrayLike
    ) -> tuple[Slots, Floats, Classes]:
        keys, of_class = _integers(rows, "rows"), _integers(classes, "classes")
        _check_classes(of_class)
        values = _floats(vectors)
        if values.ndim != 2 or not len(keys) == len(of_class) == len(values):
            raise InvalidInput(
                f"{len(keys)} rows, {len(of_class)} classes and vectors of the shape {values.shape}",
                expected="one vector and one class for each row",
            )
        if len(keys):
            self._check_dimension(values.shape[1])
        last = len(keys) - 1 - np.unique(keys[::-1], return_index=True)[1]
        units = unit(values if len(last) == len(keys) else values[last])
        if len(last) < len(keys):
            keys, of_class = keys[last], of_class[last]
        return keys, units, of_class.astype(np.int32)

    def _check_dimension(self, found: int) -> None:
        if not found or (self._dimension is not None and found != self._dimension):
            raise InvalidInput(
                f"a vector of {found} dimensions",
                expected=f"{self._dimension or 'at least one'}",
                hint="embed questions and documents with one and the same model",
            )

    def _query(self, vector: npt.ArrayLike) -> Floats | None:
        """The query at length one; None while there is nothing to compare it with."""
        is_ready = isinstance(vector, np.ndarray) and vector.dtype == np.float32
        query = np.ascontiguousarray(vector) if is_ready else _floats(vector)
        if query.ndim != 1:
            raise InvalidInput(f"a query of the shape {query.shape}", expected="one vector")
        self._check_dimension(len(query))
        square = squared(query)
        if _SAFE < square < 1 / _SAFE:
            return query * np.float32(square**-0.5) if self._rows else None
        return unit(_floats(query)[None])[0] if self._rows else None


class View:
    """The rows of some classes, prepared for searching: made by `AuthorisedVectors.view`."""

    def __init__(self, permitted: Iterable[int]) -> None:
        self._flags = _flags(permitted)
        self._planner: Planner | None = None
        self._recent: RecentPlan | None = None
        self._way = "rows"

    @property
    def way(self) -> str:
        """How the built part was searched last: `rows`, `shelves` (by class) or `clusters` (by nearness)."""
        return self._way

    def permits(self, classes: Classes) -> Flags:
        """Which of these classes are permitted."""
        return self._flags.take(classes, mode="clip")

    def plans(self, segment: Segment, recent: Recent) -> tuple[Plan, RecentPlan]:
        """The plans that take in every change so far. For one thread at a time."""
        if self._planner is None or self._planner.segment is not segment:
            self._planner = Planner(segment, self._flags)
        if self._recent is None or self._recent.recent is not recent or self._recent.version != recent.version:
            self._recent = RecentPlan.of(recent, self._flags)
        plan = self._planner.plan()
        self._way = plan.way
        return plan, self._recent


_NOTHING: Final = Found(np.empty(0, np.int64), np.empty(0, np.float32))


def _empty(dimension: int) -> Segment:
    return Segment(np.empty(0, np.int64), np.empty((0, dimension), np.float32), np.empty(0, np.int32))


def _flags(permitted: Iterable[int]) -> Flags:
    """Yes or no by class, with a no at the end for all beyond."""
    classes = np.unique(np.fromiter(permitted, np.int64))
    _check_classes(classes)
    flags = np.zeros(int(classes[-1]) + 2 if len(classes) else 1, bool)
    flags[classes] = True
    return flags


def _check_classes(classes: npt.NDArray[np.int64]) -> None:
    if len(classes) and not 0 <= classes.min() <= classes.max() < _LARGEST_CLASS:
        raise InvalidInput(
            f"classes from {classes.min()} to {classes.max()}", expected=f"numbers from 0 to {_LARGEST_CLASS - 1}"
        )


def _integers(numbers: npt.ArrayLike, what: str) -> Slots:
    values = np.asarray(numbers)
    if values.ndim != 1 or not (values.dtype.kind in "iu" or not len(values)):
        raise InvalidInput(f"{what} of the shape {values.shape} and type {values.dtype}", expected="a list of integers")
    return values.astype(np.int64)


def _floats(numbers: npt.ArrayLike) -> Floats:
    with np.errstate(over="ignore"):
        values = np.ascontiguousarray(numbers, np.float32)
    if not np.isfinite(values).all():
        raise InvalidInput(
            "a vector holds NaN, infinity or a number too large",
            expected="finite 32-bit numbers",
            hint="many embedders answer NaN to an empty text: leave empty texts out",
        )
    return values
