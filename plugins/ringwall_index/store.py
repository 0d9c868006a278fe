"""A search index beside a store of record: rebuildable, in memory, with the readers inside."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from ringwall.data.base import Chunk, Match, Query, StoreOfRecord, Vector
from ringwall.data.feedback import PASSAGES, asked, expanded
from ringwall.data.fuse import DENSE_WEIGHT, fuse
from ringwall.data.lexical import words
from ringwall.data.vectors import check_vector, check_vectors
from ringwall.principal import ACL, Grant, Grants
from ringwall_index.kernels import Flags, Floats, Slots, best
from ringwall_index.vectors import AuthorisedVectors, View
from ringwall_index.words import Words

_CANDIDATES: Final = 200
"""Rows that each half of a search hands on to be ranked together, at least."""

_VIEWS_KEPT: Final = 256
_SPARE: Final = 8
"""Matches fetched beyond `k`: some may lose their readers while a search is on its way."""


class Indexed(StoreOfRecord):
    """`store`, searched through an index of words and vectors that knows who may read what.

    Everything is kept by `store`; the index is made of it when the first search comes, again when something else has
    changed it, and follows what is written through this object. Meanwhile, and for queries with conditions on
    metadata, `store` searches itself. Every chunk that a search returns was read from `store` as the reader.

    Scores are BM25 and cosine of the readable chunks, fused as in `MemoryStore`; the nearest vectors are found
    approximately once there are some thousands. Work runs in threads.
    """

    def __init__(self, store: StoreOfRecord, *, dense_weight: float = DENSE_WEIGHT) -> None:
        self._store, self._dense_weight = store, dense_weight
        self._writing = asyncio.Lock()
        self._index: _Index | None = None
        self._revision = ""
        self._building: asyncio.Task[None] | None = None

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        """As in `DocumentStore`. Raises `InvalidInput` for a query vector of another dimension."""
        index = await self._ready()
        if index is None or query.where or k < 1:
            return await self._store.search(query, readable, k)
        if query.vector is not None:
            check_vector(query.vector, index.dimension, of="the query")
        question = asked(words(query.text))
        ranked = await asyncio.to_thread(index.ranked, question, query.vector, readable, k, self._dense_weight)
        if len(ranked) > k and question:
            expansion = await self._expanded(question, ranked, readable)
            ranked = await asyncio.to_thread(index.ranked, expansion, query.vector, readable, k, self._dense_weight)
        scores = dict(ranked[: k + _SPARE])
        chunks = await self._store.get(list(scores), readable)
        return [Match(chunk, scores[chunk.id]) for chunk in chunks[:k]]

    async def get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        return await self._store.get(ids, readable)

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        async with self._changing() as index:
            await self._store.upsert(chunks)
            if index is not None:
                await asyncio.to_thread(index.put, chunks)

    async def delete(self, documents: Sequence[str]) -> None:
        async with self._changing() as index:
            await self._store.delete(documents)
            if index is not None:
                await asyncio.to_thread(index.remove, documents)

    async def replace(self, documents: Sequence[str], chunks: Sequence[Chunk]) -> None:
        async with self._changing() as index:
            await self._store.replace(documents, chunks)
            if index is not None:
                await asyncio.to_thread(index.remove, documents)
                await asyncio.to_thread(index.put, chunks)

    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        async with self._changing() as index:
            await self._store.set_readers(documents, readers)
            if index is not None:
                await asyncio.to_thread(index.relabel, documents, readers)

    def scan(self) -> AsyncIterator[Sequence[Chunk]]:
        return self._store.scan()

    async def revision(self) -> str:
        return await self._store.revision()

    async def verify(self) -> list[str]:
        return await self._store.verify()

    async def close(self) -> None:
        """Forget the index and close the store."""
        building = self._building
        if building is not None and not building.done():
            loop = building.get_loop()
            if loop is asyncio.get_running_loop():
                building.cancel()
                await asyncio.gather(building, return_exceptions=True)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(building.cancel)
        self._index = None
        await self._store.close()

    async def build(self) -> None:
        """Make the index now, of all that the store holds."""
        async with self._writing:
            await self._build()

    async def _build(self) -> None:
        revision, index = await self._store.revision(), _Index()
        async for batch in self._store.scan():
            await asyncio.to_thread(index.put, batch)
        await asyncio.to_thread(index.compact)
        self._index, self._revision = index, revision

    async def _ready(self) -> _Index | None:
        """The index if it is up to date; else None, and it is being made."""
        if self._index is not None and self._revision == await self._store.revision():
            return self._index
        async with self._writing:  # perhaps only a write of our own is on its way
            if self._index is not None and self._revision == await self._store.revision():
                return self._index
            self._index = None
        if self._building is None or self._building.done():
            self._building = asyncio.create_task(self.build())
        return None

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[_Index | None]:
        """Change store and index together; if either fails, or something else changed the store, the index goes."""
        async with self._writing:
            index = self._index if self._revision == await self._store.revision() else None
            self._index = None
            yield index
            self._revision = await self._store.revision()
            self._index = index

    async def _expanded(
        self, question: dict[str, float], ranked: Sequence[tuple[str, float]], readable: Grants
    ) -> dict[str, float]:
        """The question with what the best passages say; see `ringwall.data.feedback`."""
        scores = dict(ranked[:PASSAGES])
        best = await self._store.get(list(scores), readable)
        return expanded(question, [(Counter(words(chunk.text)), scores[chunk.id]) for chunk in best])


class _Index:
    """Rows for chunks: their words, their vectors, their classes. A class is an ACL; a row belongs to one."""

    def __init__(self) -> None:
        self.dimension: int | None = None
        self._words, self._vectors = Words(), AuthorisedVectors()
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._documents: dict[str, dict[str, int]] = {}
        self._document_of: dict[str, str] = {}
        self._class_of: dict[ACL, int] = {}
        self._opens: dict[Grant, set[int]] = {}
        self._views: dict[Grants, tuple[Flags, View]] = {}

    def put(self, chunks: Sequence[Chunk]) -> None:
        """Take in chunks; of several with one id the last counts."""
        last = list({chunk.id: chunk for chunk in chunks}.values())
        self.dimension = check_vectors(last, self.dimension)
        self._forget([self._rows[chunk.id] for chunk in last if chunk.id in self._rows])
        classes = [self._class(chunk.readers) for chunk in last]
        rows = self._words.add([(Counter(words(c.text)), of) for c, of in zip(last, classes, strict=True)])
        for row, chunk in zip(rows, last, strict=True):
            self._ids.append(chunk.id)
            self._rows[chunk.id] = row
            self._documents.setdefault(chunk.document, {})[chunk.id] = row
            self._document_of[chunk.id] = chunk.document
        vectors = [(row, c.vector, of) for row, c, of in zip(rows, last, classes, strict=True) if c.vector is not None]
        if vectors:
            numbers, arrays, of_class = zip(*vectors, strict=True)
            self._vectors.upsert(numbers, np.array(arrays, np.float32), of_class)

    def remove(self, documents: Sequence[str]) -> None:
        """Take out all chunks of these documents."""
        self._forget([row for name in set(documents) for row in self._documents.get(name, {}).values()])

    def relabel(self, documents: Sequence[str], readers: ACL) -> None:
        """Give the chunks of these documents other readers."""
        rows = [row for name in set(documents) for row in self._documents.get(name, {}).values()]
        if rows:
            to = self._class(readers)
            self._words.reclass(rows, to)
            self._vectors.relabel(rows, to)

    def compact(self) -> None:
        """Make searches fast again after many changes."""
        if self._vectors.wants_compacting:
            self._vectors.compact()

    def ranked(
        self, question: Mapping[str, float], vector: Vector | None, readable: Grants, k: int, dense_weight: float
    ) -> list[tuple[str, float]]:
        """The best chunks by id with their scores, at least `k + 1` if there are so many."""
        permitted, view = self._view(readable)
        wanted = max(_CANDIDATES, 4 * k)
        rows, weights = self._words.scores(question, permitted)
        candidates = rows[best(weights, wanted)]
        dense: dict[int, float] = {}
        if vector is not None:
            near = self._vectors.search(vector, view, wanted)
            both = self._vectors.scores(vector, candidates)
            candidates = np.union1d(candidates, near.rows)
            for found in both, near:
                dense.update(zip(found.rows.tolist(), found.scores.tolist(), strict=True))
        scores = fuse(_at(candidates, rows, weights), dense, dense_weight=dense_weight)
        ranking = sorted((-score, self._ids[row]) for row, score in scores.items())
        return [(id, -score) for score, id in ranking]

    def _class(self, readers: ACL) -> int:
        """The number of an ACL, from 1: 0 is nobody's."""
        if readers not in self._class_of:
            number = self._class_of[readers] = len(self._class_of) + 1
            for grant in readers:
                self._opens.setdefault(grant, set()).add(number)
            self._views = {}
        return self._class_of[readers]

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

    def _forget(self, rows: Iterable[int]) -> None:
        gone = list(rows)
        self._words.reclass(gone)
        self._vectors.remove(gone)
        for row in gone:
            id = self._ids[row]
            del self._rows[id]
            document = self._document_of.pop(id)
            del self._documents[document][id]
            if not self._documents[document]:
                del self._documents[document]


def _at(wanted: Slots, rows: Slots, values: Floats) -> dict[int, float]:
    """The values of the wanted rows, of those that have one; `rows` ascend."""
    if not len(rows):
        return {}
    at = np.minimum(np.searchsorted(rows, wanted), len(rows) - 1)
    known = rows[at] == wanted
    return dict(zip(wanted[known].tolist(), values[at[known]].tolist(), strict=True))
