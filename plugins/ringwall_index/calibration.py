"""What a built index learns about its own data: how far estimates are off, and what each way of searching costs.

Rows of the index, and points between two of them, serve as questions; random parts of the rows, spread out or close
together, as what is permitted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np

from ringwall_index.codes import Coder, Lists, Selector
from ringwall_index.kernels import Classes, Flags, Floats, Slots, one_thread, products_at, unit
from ringwall_index.plans import Planner, Way
from ringwall_index.segment import Band, Clusters, Segment, Shelves, Traits

_QUESTIONS: Final = 128
_K: Final = 10
_KEPT: Final = 0.98
"""The part of the right answers that the choice of lists must let through."""

_KEPT_BY_CODES: Final = 0.9
"""The part that must lie within the error: most of the others are compared anyway, being among the candidates."""

_WANTED: Final = 0.975
"""The recall that must come out on these questions, which are harder than most."""

_WIDER: Final = 1.3
_WIDENINGS: Final = 6

_SHARES: Final = (1.0, 0.3, 0.1, 0.03, 0.01)
_NEARBY: Final = (0.3, 0.1)
"""Shares of the lists, whole: what is permitted when classes follow topics."""

_BLOCK: Final = 65_536
_ROUNDING: Final = 1e-5
_TIMED: Final = 32
_FETCHED_ONCE: Final = 0.85
_LEAST_FETCHED: Final = 32
_MOST_FETCHED: Final = 1024


def calibrate(segment: Segment) -> None:
    """Measure the segment, on one thread, and write down its traits."""
    clusters, shelves = segment.clusters, segment.shelves
    if clusters is None or shelves is None:
        return
    questions = _Questions.among(segment)
    truths = [_Truth.of(flags, segment, questions) for flags in _permitted(clusters) if flags.sum() > _K]
    with one_thread():
        segment.traits = _estimates(segment, clusters, shelves, questions, truths)
        _widen(segment, questions)
        segment.traits = _scan_costs(segment, clusters, shelves, questions)
        segment.traits = _cluster_costs(segment, questions)


@dataclass(frozen=True)
class _Questions:
    vectors: Floats
    asked_by: Slots
    """The row each was made from, which does not count as an answer."""

    @classmethod
    def among(cls, segment: Segment) -> _Questions:
        random = np.random.default_rng(7)
        rows, others = random.choice(len(segment), (2, _QUESTIONS), replace=False)
        weights = np.where(np.arange(_QUESTIONS) % 2, 0.3, 0.0).astype(np.float32)[:, None]
        return cls(unit((1 - weights) * segment.vectors[rows] + weights * segment.vectors[others]), rows)


@dataclass(frozen=True)
class _Truth:
    """The right answers when these rows are permitted."""

    flags: Flags
    slots: Slots
    scores: Floats

    @classmethod
    def of(cls, flags: Flags, segment: Segment, questions: _Questions) -> _Truth:
        slots = np.empty((_QUESTIONS, 0), np.int64)
        scores = np.empty((_QUESTIONS, 0), np.float32)
        for start in range(0, len(segment), _BLOCK):
            block = start + np.flatnonzero(flags[start : start + _BLOCK])
            seen = questions.vectors @ segment.vectors[block].T
            seen[questions.asked_by[:, None] == block] = -np.inf
            scores = np.concatenate([scores, seen], axis=1)
            slots = np.concatenate([slots, np.broadcast_to(block, seen.shape)], axis=1)
            if scores.shape[1] > _K:
                top = np.argpartition(-scores, _K, axis=1)[:, :_K]
                slots, scores = np.take_along_axis(slots, top, 1), np.take_along_axis(scores, top, 1)
        return cls(flags, slots, scores)

    @property
    def bars(self) -> Floats:
        """What a row must score to be among the answers to each question."""
        bars: Floats = self.scores.min(axis=1)
        return bars


def _permitted(clusters: Clusters) -> Iterator[Flags]:
    random = np.random.default_rng(11)
    places = random.random(len(clusters.list_of))
    for share in _SHARES:
        yield places < share
    lists = random.random(len(clusters.spread))
    for share in _NEARBY:
        flags = (lists <= np.quantile(lists, share))[clusters.list_of]
        yield flags


def _estimates(
    segment: Segment, clusters: Clusters, shelves: Shelves, questions: _Questions, truths: list[_Truth]
) -> Traits:
    centres = clusters.head[clusters.dimension :]
    biases = questions.vectors @ centres.T
    reach = max(_reach(truth, clusters, biases) for truth in truths)
    bands = [_band(truth, segment, clusters, shelves, questions) for truth in truths[: len(_SHARES)]]
    return replace(segment.traits, reach=reach, bands=tuple(sorted(bands, key=lambda band: band.share)))


def _band(truth: _Truth, segment: Segment, clusters: Clusters, shelves: Shelves, questions: _Questions) -> Band:
    assert clusters.coder is not None
    assert shelves.coder is not None
    centres = clusters.head[clusters.dimension :]
    nothing, one_list = np.zeros_like(centres[:1]), np.zeros_like(clusters.list_of)
    error = _error(truth, segment, clusters.coder, centres, clusters.list_of, questions)
    shelf_error = _error(truth, segment, shelves.coder, nothing, one_list, questions)
    return Band(
        float(truth.flags.mean()),
        error,
        shelf_error,
        _fetched(truth, clusters.lists, clusters.head, clusters.dimension, error, questions),
        _fetched(truth, shelves.lists, shelves.rotation, len(shelves.rotation), shelf_error, questions),
    )


def _reach(truth: _Truth, clusters: Clusters, centres: Floats) -> float:
    """How many spreads beyond its centre a list must be taken to reach, or right answers in it are missed."""
    lists = clusters.list_of[truth.slots]
    counts = np.bincount(clusters.list_of[truth.flags], minlength=len(clusters.spread))
    missing = truth.bars[:, None] - np.take_along_axis(centres, lists.astype(np.int64), 1)
    needed = missing / np.maximum(clusters.spread * np.sqrt(2 * np.log1p(counts)), 1e-6)[lists]
    return max(0.0, float(np.quantile(needed, _KEPT)))


def _error(
    truth: _Truth, segment: Segment, coder: Coder, centres: Floats, list_of: Classes, questions: _Questions
) -> float:
    """How far below the bar the code of a right answer may score."""
    slots = truth.slots.ravel()
    offsets = centres[list_of[slots]]
    decoded = offsets + coder.decoded(segment.vectors[slots] - offsets)
    asked = np.repeat(questions.vectors, truth.slots.shape[1], axis=0)
    estimates = np.einsum("ij,ij->i", asked, decoded).reshape(truth.slots.shape)
    return max(0.0, float(np.quantile(truth.bars[:, None] - estimates, _KEPT_BY_CODES)))


def _fetched(truth: _Truth, lists: Lists, head: Floats, dimension: int, error: float, questions: _Questions) -> int:
    """How many candidates are enough for most questions: the others look twice."""
    within = Selector(np.packbits(truth.flags, bitorder="little"))
    needed = []
    for asked, bar in list(zip(questions.vectors, truth.bars, strict=True))[:_TIMED]:
        both = head @ asked
        biases = np.append(both[dimension:], np.zeros(lists.count, np.float32))[: lists.count]
        _, estimates = lists.scan(both[:dimension].copy(), np.arange(lists.count), biases, within, _MOST_FETCHED)
        needed.append(int((estimates >= bar - error).sum()))
    return int(np.clip(np.quantile(needed, _FETCHED_ONCE) + 1, _LEAST_FETCHED, _MOST_FETCHED))


def _widen(segment: Segment, questions: _Questions) -> None:
    """Try the estimates on principals with random classes; as long as too little is found, look further."""
    principals = [_classes(segment, share) for share in _SHARES]
    truths = [_Truth.of(permitted[segment.classes], segment, questions) for permitted in principals]
    tried = [(permitted, truth) for permitted, truth in zip(principals, truths, strict=True) if truth.flags.sum() > _K]
    for way in ("clusters", "shelves"):
        for _ in range(_WIDENINGS):
            if min((_recall(segment, *each, questions, way) for each in tried), default=1.0) >= _WANTED:
                break
            segment.traits = _wider(segment.traits, way)


def _recall(segment: Segment, permitted: Flags, truth: _Truth, questions: _Questions, way: Way) -> float:
    plan, found = Planner(segment, permitted, way=way).plan(), 0
    for query, itself, bar in zip(questions.vectors, questions.asked_by, truth.bars, strict=True):
        hits = plan.search(query, _K + 1)
        others = hits.scores[hits.slots != itself][:_K]
        found += int((others >= bar - _ROUNDING).sum())
    return found / truth.slots.size


def _wider(traits: Traits, way: Way) -> Traits:
    if way == "shelves":
        shelves = [
            replace(band, shelf_error=_WIDER * band.shelf_error, shelf_fetched=round(_WIDER * band.shelf_fetched))
            for band in traits.bands
        ]
        return replace(traits, bands=tuple(shelves))
    clusters = [replace(band, error=_WIDER * band.error, fetched=round(_WIDER * band.fetched)) for band in traits.bands]
    return replace(traits, bands=tuple(clusters), reach=_WIDER * traits.reach)


def _scan_costs(segment: Segment, clusters: Clusters, shelves: Shelves, questions: _Questions) -> Traits:
    everything = Selector(np.full(-(-len(segment) // 8), 255, np.uint8))
    query = questions.vectors[0]
    near, by_class = clusters.head @ query, shelves.rotation @ query
    lists, biases = np.arange(clusters.lists.count), near[clusters.dimension :].copy()
    rotated = near[: clusters.dimension].copy()
    row_ns = _ns(lambda: products_at(query, segment.vectors, _run(segment))) / len(_run(segment))
    code_ns = _ns(lambda: clusters.lists.scan(rotated, lists, biases, everything, _LEAST_FETCHED)) / len(segment)
    shelved, none = np.arange(shelves.lists.count), np.zeros(shelves.lists.count, np.float32)
    all_ns = _ns(lambda: shelves.lists.scan(by_class, shelved, none, everything, _LEAST_FETCHED))
    shelf_ns = max(50.0, (all_ns - code_ns * len(segment)) / len(shelved))
    start_ns = _ns(lambda: shelves.lists.scan(shelves.rotation @ query, shelved[:1], none[:1], everything, _K))
    return replace(segment.traits, row_ns=row_ns, code_ns=code_ns, shelf_ns=shelf_ns, start_ns=start_ns)


def _cluster_costs(segment: Segment, questions: _Questions) -> Traits:
    """Time searches of the clusters for principals with more and more classes."""
    bands = [replace(band, cluster_ns=_cluster_ns(segment, band.share, questions)) for band in segment.traits.bands]
    return replace(segment.traits, bands=tuple(bands))


def _cluster_ns(segment: Segment, share: float, questions: _Questions) -> float:
    plan = Planner(segment, _classes(segment, share), way="clusters").plan()
    for query in questions.vectors[_TIMED : _TIMED + 4]:
        plan.search(query, _K)
    each = [_ns(partial(plan.search, query, _K), times=1) for query in questions.vectors[:_TIMED]]
    return float(np.median(each))


def _classes(segment: Segment, share: float) -> Flags:
    """Random classes that hold about this share of the rows."""
    sizes = np.diff(segment.bounds)
    order = np.random.default_rng(5).permutation(len(sizes))
    enough = int(np.searchsorted(np.cumsum(sizes[order]), share * len(segment))) + 1
    flags = np.zeros(int(segment.ranked[-1]) + 2, bool)
    flags[segment.ranked[order[:enough]]] = True
    return flags


def _run(segment: Segment) -> Slots:
    start = int(np.random.default_rng().integers(0, max(1, len(segment) - 2048)))
    return np.arange(start, min(start + 2048, len(segment)))


def _ns(work: Callable[[], object], times: int = 7) -> float:
    taken = []
    for _ in range(times):
        start = time.thread_time_ns()
        work()
        taken.append(time.thread_time_ns() - start)
    return float(np.median(taken))
