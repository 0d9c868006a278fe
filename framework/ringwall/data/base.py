"""The data ring: what a chunk is, and what a document store must promise.

A plugin author reads this file alone. Subclass `DocumentStore`, then run `ringwall.data.contract` on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import eq, ge, gt, le, lt, ne
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple, Protocol, Self, cast, runtime_checkable

from ringwall.errors import InvalidInput
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


Operator = Literal["==", "!=", "<", "<=", ">", ">=", "in"]

_COMPARE: Final[Mapping[str, Callable[[Any, Any], bool]]] = MappingProxyType(
    {"==": eq, "!=": ne, "<": lt, "<=": le, ">": gt, ">=": ge}
)


@dataclass(frozen=True, slots=True)
class Condition:
    """What a chunk's metadata must say: `Condition("year", ">=", 2024)`, `Condition("kind", "in", ("menu", "wine"))`.

    A chunk without the key meets no condition on it, not even `!=`; a number and a text are never equal, and
    neither is less than the other. True and False compare with each other only.
    Raises `InvalidInput` for an operator there is none of, an empty `in`, NaN, or an order of truth values.
    """

    key: str
    operator: Operator
    value: Scalar | tuple[Scalar, ...]

    def __post_init__(self) -> None:
        among = isinstance(self.value, tuple)
        if self.operator not in (*_COMPARE, "in") or among != (self.operator == "in") or not self.key:
            raise InvalidInput(
                f"the condition {self.key!r} {self.operator!r} {self.value!r}",
                expected="a key, one of == != < <= > >= with a value, or `in` with a tuple of values",
            )
        ordered = self.operator in ("<", "<=", ">", ">=")
        if not self.values or any(v != v or (ordered and isinstance(v, bool)) for v in self.values):
            raise InvalidInput(f"the condition {self.key!r} {self.operator!r} {self.value!r} means nothing")

    @property
    def values(self) -> tuple[Scalar, ...]:
        """The value, or the values of `in`."""
        return self.value if isinstance(self.value, tuple) else (self.value,)

    def admits(self, metadata: Mapping[str, Scalar]) -> bool:
        """Whether a chunk with this metadata meets the condition."""
        found = metadata.get(self.key)
        if found is None:
            return False
        if self.operator == "in":
            return any(_same_kind(found, value) and found == value for value in self.values)
        if not _same_kind(found, cast(Scalar, self.value)):
            return self.operator == "!="
        return _COMPARE[self.operator](found, self.value)


def _same_kind(a: Scalar, b: Scalar) -> bool:
    return isinstance(a, str) is isinstance(b, str) and isinstance(a, bool) is isinstance(b, bool)


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for: its words, and their embedding if the store was filled with embeddings.

    Only chunks that meet every condition of `where` are found.
    """

    text: str
    vector: Vector | None = None
    where: tuple[Condition, ...] = ()

    def admits(self, metadata: Mapping[str, Scalar]) -> bool:
        """Whether a chunk with this metadata meets every condition."""
        return all(condition.admits(metadata) for condition in self.where)


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
    async def get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        """Return the chunks of these ids that somebody who holds `readable` may read, each once, in the order asked.

        Unknown ids and hidden ones are left out alike.
        """

    @abstractmethod
    async def delete(self, documents: Sequence[str]) -> None:
        """Remove every chunk of these documents; unknown ids are fine."""

    async def replace(self, documents: Sequence[str], chunks: Sequence[Chunk]) -> None:
        """Put `chunks` in the place of all that these documents had; a store with transactions does it in one."""
        await self.delete(documents)
        if chunks:
            await self.upsert(chunks)

    @abstractmethod
    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        """Change who may read these documents; visible to the next search. Unknown ids are fine."""

    async def close(self) -> None:
        """Release what the store holds; called once, by the app that opened it."""


class Section(NamedTuple):
    """Some of a store's chunks, all with the same readers, as they stand together.

    Each has a mark: a number below 2**64 that it keeps for as long as nothing but its readers changes, and that no
    other chunk of the store has. `chunks` holds, by their marks, those whose mark was not known.
    """

    name: int
    readers: ACL
    marks: Sequence[int]
    chunks: Mapping[int, Chunk]


class Sections(NamedTuple):
    """What all chunks of a store stand in: each in one section.

    `versions` has a text for each section that differs after any change in it, from those of other stores too;
    `sizes` how many chunks stand there. `read` yields those of the named sections that are still there, as they are
    by then; chunks whose marks are known need not be read.
    """

    versions: Mapping[int, str]
    sizes: Mapping[int, int]
    read: Callable[[Collection[int], Container[int]], AsyncIterator[Section]]


class StoreOfRecord(DocumentStore):
    """A store that can tell all it holds, so that indexes, checks and copies can be made of it.

    `scan`, `revision` and `sections` are the deployer's door: they ask about no reader, and no step is ever given them.
    """

    @abstractmethod
    def scan(self) -> AsyncIterator[Sequence[Chunk]]:
        """Every chunk with its vector, in batches, in no order; what changes meanwhile may be seen or not."""

    @abstractmethod
    async def revision(self) -> str:
        """Differs after any change, by whichever process, from what it was before."""

    async def sections(self) -> Sections | None:
        """What tells an index which parts it must read again; None: this store cannot tell, read all of it.

        Whatever changed before `revision` was asked shows in the versions that are asked for after it.
        """
        return None

    async def compact(self) -> None:
        """Leave nothing of what was deleted in any file; nothing to do unless the store keeps some."""

    async def verify(self) -> list[str]:
        """What is wrong with what a store keeps besides its chunks, a sentence each; empty if nothing is."""
        return []


@runtime_checkable
class Embeddings(Protocol):
    """What turns text into vectors: LangChain's `Embeddings`, or anything with the same two methods.

    Each vector is a list of `d` floats, `d` the same for every text. An attribute `principal` says who receives the
    texts: None if they stay in this process. Without it they are taken to leave (`ringwall.data.receiver_of`).
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]: ...

    def embed_query(self, text: str) -> list[float]: ...
