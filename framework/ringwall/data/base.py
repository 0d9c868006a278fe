"""The data ring: what a chunk is, and what a document store must promise.

A plugin author reads this file alone. Subclass `DocumentStore`, then run `ringwall.data.contract` on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Final, NamedTuple, Protocol, Self, runtime_checkable

from ringwall.label import Label, Source
from ringwall.principal import ACL, Grants

Scalar = str | int | float | bool
Vector = tuple[float, ...]

_NO_METADATA: Final[Mapping[str, Scalar]] = MappingProxyType({})


@dataclass(frozen=True)
class Chunk:
    """A passage of a document: the unit that is stored, found and cited.

    `document` is the id of the document it was cut from, `start` and `end` the character range there
    (end exclusive), `readers` who may read it, `vector` its embedding or None for lexical search only.
    """

    id: str
    document: str
    text: str
    readers: ACL
    start: int = 0
    end: int = 0
    vector: Vector | None = field(default=None, repr=False)
    metadata: Mapping[str, Scalar] = field(default_factory=lambda: _NO_METADATA, hash=False)

    @property
    def source(self) -> Source:
        """The source that whatever is made from this chunk was influenced by."""
        return f"doc:{self.document}"

    @cached_property
    def label(self) -> Label:
        return Label.of(self.readers, self.source)

    def read_by(self, readers: ACL) -> Self:
        """The same chunk with other readers."""
        return replace(self, readers=readers)


class Match(NamedTuple):
    """A chunk that answers a query; a higher `score` is better. Scores compare within one search only."""

    chunk: Chunk
    score: float

    @property
    def label(self) -> Label:
        return self.chunk.label


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: its words, and their embedding if the store was filled with embeddings."""

    text: str
    vector: Vector | None = None


class DocumentStore(ABC):
    """Keeps chunks and finds them again, for a reader.

    The caller relies on this:

    - access is part of the query: a chunk none of whose readers is in `readable` takes no place among the
      k, is not counted, and shows in no error. Filtering what a search returned is not an implementation.
    - `readable` empty finds nothing.
    - a search sees every `upsert`, `delete` and `set_readers` that returned before it began.

    Methods raise `StoreError` when the store itself fails; they never return a partial result instead.
    """

    @abstractmethod
    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        """Store chunks; one with a known id replaces it whole, readers included."""

    @abstractmethod
    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        """Return at most `k` matches, best first, of what somebody who holds `readable` may read."""

    @abstractmethod
    async def delete(self, documents: Sequence[str]) -> None:
        """Remove every chunk of these documents; unknown ids are fine."""

    @abstractmethod
    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        """Change who may read these documents; visible to the next search. Unknown ids are fine."""

    async def close(self) -> None:
        """Release what the store holds; called once, by the app that opened it."""


@runtime_checkable
class Embeddings(Protocol):
    """What turns text into vectors: LangChain's `Embeddings`, or anything with the same two methods.

    Each vector is a list of `d` floats, `d` the same for every text.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]: ...

    def embed_query(self, text: str) -> list[float]: ...
