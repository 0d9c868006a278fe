"""A document store in memory, in plain Python: for tests, examples and small libraries."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from operator import mul
from typing import Final

from ringwall.data.base import Chunk, Match, Query, StoreOfRecord, Vector
from ringwall.data.feedback import PASSAGES, asked, expanded
from ringwall.data.fuse import DENSE_WEIGHT, fuse
from ringwall.data.lexical import rarity, saturation, words
from ringwall.data.vectors import check_vector, check_vectors, unit
from ringwall.principal import ACL, Grant, Grants

_VIEWS_KEPT: Final = 1024
_BATCH: Final = 1000


class MemoryStore(StoreOfRecord):
    """BM25 over words and cosine over vectors, fused; nothing survives the process.

    Chunks stand on shelves, one for each ACL, and a search walks the shelves that its reader may open and
    no others. So results, scores and time are those of a store in which hidden chunks do not exist.
    A chunk is found if it shares a word with the query, or has a vector when the query has one.
    Equal scores are in the order of their ids. Searching among some ten thousand vectors takes a tenth of
    a second and holds the event loop meanwhile: use a plugin for more.
    """

    def __init__(self, *, dense_weight: float = DENSE_WEIGHT) -> None:
        self._dense_weight = dense_weight
        self._dimension: int | None = None
        self._entries: dict[str, _Entry] = {}
        self._documents: dict[str, set[str]] = {}
        self._shelves: dict[ACL, _Shelf] = {}
        self._opens: dict[Grant, set[ACL]] = {}
        self._views: dict[Grants, _View] = {}
        self._changes = 0
        self._born = uuid.uuid4().hex

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        """As in `DocumentStore`. Raises `InvalidInput` for vectors not finite or not of one dimension."""
        self._dimension = check_vectors(chunks, self._dimension)
        self._changed()
        for chunk in chunks:
            self._take(chunk.id)
            self._put(_Entry(chunk))

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        """As in `DocumentStore`. Raises `InvalidInput` for a query vector of another dimension."""
        view = self._views.get(readable) or self._view(readable)
        if k < 1 or not view.shelves:
            return []
        dense: dict[_Entry, float] = {}
        if query.vector is not None:
            check_vector(query.vector, self._dimension, of="the query")
            dense = view.dense(query.vector)
        question = asked(words(query.text))
        ranked = self._ranked(view.lexical(question), dense, query)
        if len(ranked) > k:
            best = [(entry.words, -score) for score, _, entry in ranked[:PASSAGES]]
            ranked = self._ranked(view.lexical(expanded(question, best)), dense, query)
        return [Match(entry.chunk, -score) for score, _, entry in ranked[:k]]

    async def get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        entries = [self._entries[id] for id in dict.fromkeys(ids) if id in self._entries]
        return [entry.chunk for entry in entries if entry.chunk.readers.admits(readable)]

    async def scan(self) -> AsyncIterator[Sequence[Chunk]]:
        chunks = [entry.chunk for entry in self._entries.values()]
        for first in range(0, len(chunks), _BATCH):
            yield chunks[first : first + _BATCH]

    async def revision(self) -> str:
        return f"{self._born}-{self._changes}"

    async def delete(self, documents: Sequence[str]) -> None:
        self._changed()
        for chunk in self._chunks_of(documents):
            self._take(chunk)

    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        self._changed()
        for chunk in self._chunks_of(documents):
            entry = self._take(chunk)
            if entry is not None:
                entry.chunk = entry.chunk.read_by(readers)
                self._put(entry)

    def _ranked(
        self, lexical: Mapping[_Entry, float], dense: Mapping[_Entry, float], query: Query
    ) -> list[tuple[float, str, _Entry]]:
        """Best first; with the id, so that equal scores are in one order."""
        scores = fuse(lexical, dense, dense_weight=self._dense_weight)
        found = [(-score, entry.chunk.id, entry) for entry, score in scores.items()]
        if query.where:
            found = [row for row in found if query.admits(row[2].chunk.metadata)]
        return sorted(found)

    def _changed(self) -> None:
        self._changes += 1
        self._views.clear()

    def _chunks_of(self, documents: Iterable[str]) -> list[str]:
        return [chunk for document in set(documents) for chunk in self._documents.get(document, ())]

    def _put(self, entry: _Entry) -> None:
        chunk = entry.chunk
        self._entries[chunk.id] = entry
        self._documents.setdefault(chunk.document, set()).add(chunk.id)
        if chunk.readers not in self._shelves:
            self._shelves[chunk.readers] = _Shelf()
            for grant in chunk.readers:
                self._opens.setdefault(grant, set()).add(chunk.readers)
        self._shelves[chunk.readers].put(entry)

    def _take(self, id: str) -> _Entry | None:
        entry = self._entries.pop(id, None)
        if entry is None:
            return None
        chunk = entry.chunk
        self._documents[chunk.document].discard(id)
        if not self._documents[chunk.document]:
            del self._documents[chunk.document]
        self._shelves[chunk.readers].take(entry)
        if not self._shelves[chunk.readers].entries:
            del self._shelves[chunk.readers]
            for grant in chunk.readers:
                self._opens[grant].discard(chunk.readers)
        return entry

    def _view(self, readable: Grants) -> _View:
        if len(self._views) >= _VIEWS_KEPT:
            self._views.clear()
        acls = {acl for grant in readable for acl in self._opens.get(grant, ())}
        view = self._views[readable] = _View([self._shelves[acl] for acl in acls])
        return view


class _Entry:
    """A chunk with what a search needs of it."""

    __slots__ = ("chunk", "length", "unit", "words")

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self.words = Counter(words(chunk.text))
        self.length = self.words.total()
        self.unit = unit(chunk.vector) if chunk.vector is not None else None


class _Shelf:
    """The chunks of one ACL, by word."""

    __slots__ = ("entries", "length", "postings")

    def __init__(self) -> None:
        self.entries: set[_Entry] = set()
        self.postings: dict[str, dict[_Entry, int]] = {}
        self.length = 0

    def put(self, entry: _Entry) -> None:
        self.entries.add(entry)
        self.length += entry.length
        for word, count in entry.words.items():
            self.postings.setdefault(word, {})[entry] = count

    def take(self, entry: _Entry) -> None:
        self.entries.discard(entry)
        self.length -= entry.length
        for word in entry.words:
            del self.postings[word][entry]
            if not self.postings[word]:
                del self.postings[word]


class _View:
    """What one set of grants may read, with the statistics of exactly that; thrown away at any change."""

    __slots__ = ("_count", "_mean", "_weights", "shelves")

    def __init__(self, shelves: Sequence[_Shelf]) -> None:
        self.shelves = shelves
        self._count = sum(len(shelf.entries) for shelf in shelves)
        self._mean = (sum(shelf.length for shelf in shelves) / self._count if self._count else 0.0) or 1.0
        self._weights: dict[str, dict[_Entry, float]] = {}

    def lexical(self, question: Mapping[str, float]) -> dict[_Entry, float]:
        """BM25 of every readable chunk that shares a word with the question, each word counting what it says."""
        scores: dict[_Entry, float] = {}
        for word, counts in question.items():
            weights = self._weights.get(word)
            if weights is None:
                weights = self._weigh(word)
            for entry, weight in weights.items():
                scores[entry] = scores.get(entry, 0.0) + counts * weight
        return scores

    def dense(self, vector: Vector) -> dict[_Entry, float]:
        """Cosine of every readable chunk that has a vector."""
        direction = unit(vector)
        return {entry: sum(map(mul, direction, entry.unit)) for entry in self._entries() if entry.unit is not None}

    def _entries(self) -> Iterator[_Entry]:
        return (entry for shelf in self.shelves for entry in shelf.entries)

    def _weigh(self, word: str) -> dict[_Entry, float]:
        """What `word` adds to the score of each readable chunk that holds it, kept for the next search."""
        found = [item for shelf in self.shelves for item in shelf.postings.get(word, _NOWHERE).items()]
        if not found:
            return {}  # not kept: words that users invent must not fill the memory
        rare = rarity(len(found), self._count)
        weights = self._weights[word] = {
            entry: rare * saturation(times, entry.length, self._mean) for entry, times in found
        }
        return weights


_NOWHERE: Final[Mapping[_Entry, int]] = {}
