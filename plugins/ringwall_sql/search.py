"""One search in one transaction: as `ringwall.MemoryStore` does it, in arrays."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import sqlalchemy as sa

from ringwall.data.base import Condition, Match, Query, Scalar
from ringwall.data.feedback import PASSAGES, asked, expanded
from ringwall.data.lexical import words
from ringwall_sql import postings
from ringwall_sql.chunks import chunk_of, whole
from ringwall_sql.database import restored
from ringwall_sql.tables import CHUNKS, among
from ringwall_sql.vectors import Vectors
from ringwall_sql.view import Integers, Scores, View, best, fused

_FIRST_LOOK: Final = 256
_WIDER: Final = 8
_MOST_VALUES: Final = 50
_PLAIN: Final = 10**15

Ranked = list[tuple[float, str, int]]
"""The score, negative, the id, and the number of each chunk: sorted, it is best first, and equals are in one order."""


@dataclass(frozen=True)
class Search:
    """What one reader asks at one moment."""

    connection: sa.Connection
    view: View
    vectors: Vectors
    query: Query
    dense_weight: float
    _weights: postings.Weights = field(default_factory=dict)

    def matches(self, k: int) -> list[Match]:
        """The best `k`."""
        vector = self.query.vector
        if vector is not None and self.vectors.has_index(self.connection, self.view):
            ranked = self._looked_twice(k, None)
            if len(ranked) >= k:
                return self._matches(ranked[:k])
        dense = self._nothing() if vector is None else self.vectors.exact(self.connection, self.view, vector)
        return self._matches(self._looked_twice(k, dense)[:k])

    def _looked_twice(self, k: int, dense: Scores | None) -> Ranked:
        """The best `k`, or all there are if that is fewer; `dense` None: an index finds it."""
        question = asked(words(self.query.text))
        ranked = self._ranked(question, dense, max(k + 1, PASSAGES))
        if len(ranked) <= k:
            return ranked
        texts = self._texts(ranked[:PASSAGES])
        seen = [(Counter(words(texts[number])), -score) for score, _, number in ranked[:PASSAGES]]
        return self._ranked(expanded(question, seen), dense, k)

    def _ranked(self, question: Mapping[str, float], dense: Scores | None, n: int) -> Ranked:
        lexical = postings.bm25(self.connection, self.view, question, self._weights) if question else self._nothing()
        if dense is None:
            assert self.query.vector is not None
            dense = self.vectors.near(self.connection, self.view, self.query.vector, lexical)
        scores = fused(lexical, dense, dense_weight=self.dense_weight)
        found = int(scores.found.sum())
        look = max(n, _FIRST_LOOK) if self.query.where else n
        while True:
            rows = best(scores, look)
            ranked = self._admitted(scores, rows)
            if len(ranked) >= n or len(rows) == found:
                return sorted(ranked)[:n]
            look *= _WIDER

    def _admitted(self, scores: Scores, rows: Integers) -> Ranked:
        """Those of the rows that meet the query's conditions."""
        numbers = self.view.numbers(rows).tolist()
        score = dict(zip(numbers, (-scores.of[rows]).tolist(), strict=True))
        where = self.query.where
        likely = [_likely(condition, self.connection) for condition in where]
        these = sa.select(CHUNKS.c.number, CHUNKS.c.id, CHUNKS.c.metadata)
        found = self.connection.execute(these.where(among(CHUNKS.c.number, numbers, self.connection), *likely))
        return [
            (score[number], restored(id), number)
            for number, id, metadata in found
            if not where or self.query.admits(json.loads(metadata))
        ]

    def _texts(self, ranked: Ranked) -> dict[int, str]:
        these = among(CHUNKS.c.number, [number for _, _, number in ranked], self.connection)
        rows = self.connection.execute(sa.select(CHUNKS.c.number, CHUNKS.c.text).where(these))
        return {number: restored(text) for number, text in rows}

    def _matches(self, ranked: Ranked) -> list[Match]:
        these = among(CHUNKS.c.number, [number for _, _, number in ranked], self.connection)
        chunks = {row.number: chunk_of(row) for row in self.connection.execute(whole(these))}
        return [Match(chunks[number], -score) for score, _, number in ranked]

    def _nothing(self) -> Scores:
        return Scores(np.zeros(self.view.rows), np.zeros(self.view.rows, dtype=bool))


def _likely(condition: Condition, connection: sa.Connection) -> sa.ColumnElement[bool]:
    """Whether the text of the metadata holds what it must hold to meet the condition; it may do so and not meet it."""
    find = sa.func.instr if connection.dialect.name == "sqlite" else sa.func.strpos
    values = condition.values if condition.operator in ("==", "in") else ()
    starts = [_start(value) for value in values] if 0 < len(values) <= _MOST_VALUES else [""]
    return sa.or_(*(find(CHUNKS.c.metadata, f"{json.dumps(condition.key)}: {start}") > 0 for start in starts))


def _start(value: Scalar) -> str:
    """How the JSON text of any value that equals this one begins."""
    if isinstance(value, str | bool) or not math.isfinite(value) or value % 1:
        return json.dumps(value)
    return str(int(value)) if 0 < abs(value) < _PLAIN else ""  # others are written in more than one way
