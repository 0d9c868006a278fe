"""A document store in memory, in plain Python: for tests, examples and small libraries."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import mul
from typing import Final

from ringwall.data.base import Chunk, DocumentStore, Match, Query, Vector
from ringwall.data.fuse import DENSE_WEIGHT, fuse
from ringwall.data.vectors import check_vector, check_vectors
from ringwall.principal import ACL, Grant, Grants

_K1: Final = 1.2
_B: Final = 0.75
_VIEWS_KEPT: Final = 1024
_WORD: Final = re.compile(r"\b\w+?(?=s?\b)")  # a plural and its singular are one word


class MemoryStore(DocumentStore):
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

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        """As in `DocumentStore`. Raises `InvalidInput` for vectors not finite or not of one dimension."""
        self._dimension = check_vectors(chunks, self._dimension)
        self._views.clear()
        for chunk in chunks:
            self._take(chunk.id)
            self._put(_Entry(chunk))

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        """As in `DocumentStore`. Raises `InvalidInput` for a query vector of another dimension."""
        view = self._views.get(readable) or self._view(readable)
        if k < 1 or not view.shelves:
            return []
        scores = view.lexical(query.text)
        if query.vector is not None:
            check_vector(query.vector, self._dimension, of="the query")
            scores = fuse(scores, view.dense(query.vector), dense_weight=self._dense_weight)
        ranked = sorted([(-score, entry.chunk.id, entry.chunk) for entry, score in scores.items()])
        return [Match(chunk, -score) for score, _, chunk in ranked[:k]]

    async def delete(self, documents: Sequence[str]) -> None:
        self._views.clear()
        for chunk in self._chunks_of(documents):
            self._take(chunk)

    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        self._views.clear()
        for chunk in self._chunks_of(documents):
            entry = self._take(chunk)
            if entry is not None:
                entry.chunk = entry.chunk.read_by(readers)
                self._put(entry)

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
        self.words = Counter(_words(chunk.text))
        self.length = self.words.total()
        self.unit = _unit(chunk.vector) if chunk.vector is not None else None


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

    def lexical(self, text: str) -> dict[_Entry, float]:
        """BM25 of every readable chunk that shares a word with `text`."""
        scores: dict[_Entry, float] = {}
        for word in _words(text):
            weights = self._weights.get(word)
            if weights is None:
                weights = self._weigh(word)
            for entry, weight in weights.items():
                scores[entry] = scores.get(entry, 0.0) + weight
        return scores

    def dense(self, vector: Vector) -> dict[_Entry, float]:
        """Cosine of every readable chunk that has a vector."""
        unit = _unit(vector)
        return {entry: sum(map(mul, unit, entry.unit)) for entry in self._entries() if entry.unit is not None}

    def _entries(self) -> Iterator[_Entry]:
        return (entry for shelf in self.shelves for entry in shelf.entries)

    def _weigh(self, word: str) -> dict[_Entry, float]:
        """What `word` adds to the score of each readable chunk that holds it, kept for the next search."""
        found = [item for shelf in self.shelves for item in shelf.postings.get(word, _NOWHERE).items()]
        if not found:
            return {}  # not kept: words that users invent must not fill the memory
        rarity = math.log(1.0 + (self._count - len(found) + 0.5) / (len(found) + 0.5))
        weights = self._weights[word] = {
            entry: rarity * n * (_K1 + 1.0) / (n + _K1 * (1.0 - _B + _B * entry.length / self._mean))
            for entry, n in found
        }
        return weights


_NOWHERE: Final[Mapping[_Entry, int]] = {}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _unit(vector: Vector) -> Vector:
    """The vector at length 1; one of only zeros stays as it is, and is like nothing."""
    length = math.hypot(*vector)
    return tuple(x / length for x in vector) if length else vector
