"""The LangChain store as the bridge uses it: rows of one class each, and what is near among some classes."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings

from ringwall.bridge.handed import Handed
from ringwall.data.base import Chunk, Vector
from ringwall.data.vectors import unit
from ringwall.errors import ConfigurationError, RingwallError, StoreError
from ringwall.principal import ACL
from ringwall.schema import canonical, digest

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

T = TypeVar("T")

CLASS: Final = "ringwall_class"
"""The metadata key under which a row names the class of its readers: what a filter must compare."""

_ROW: Final = "ringwall_row"
_BATCH: Final = 500

Filter = Callable[[Sequence[str]], Mapping[str, Any]]
"""From the permitted classes to the arguments of the store's search that let rows of these pass and no others."""


def dictionary_filter(classes: Sequence[str]) -> Mapping[str, Any]:
    """For stores that take `filter={key: {"$in": [...]}}`: Chroma, PGVector, Pinecone and others."""
    return {"filter": {CLASS: {"$in": list(classes)}}}


def function_filter(classes: Sequence[str]) -> Mapping[str, Any]:
    """For stores that take a function of a document as `filter`: `InMemoryVectorStore` and others."""
    permitted = frozenset(classes)
    return {"filter": lambda document: document.metadata.get(CLASS) in permitted}


@dataclass(frozen=True, slots=True)
class Row:
    """All that the store is told: a direction under an opaque id, and an opaque name of its readers, if any."""

    id: str
    readers: str | None
    vector: Vector

    @classmethod
    def of(cls, chunk: Chunk, vector: Vector) -> Row:
        # Many stores want UUIDs, and measure by length or product: of unit vectors all say the same.
        return cls(row_id(chunk.id), class_of(chunk.readers), unit(vector))

    @property
    def text(self) -> str:
        """The same for the same direction of the same row; stores of record keep vectors to about 7 digits."""
        rough = array("h", [round(1000 * x) for x in self.vector])
        return hashlib.sha256(self.id.encode() + rough.tobytes()).hexdigest()

    @property
    def document(self) -> Document:
        metadata = {_ROW: self.id} if self.readers is None else {_ROW: self.id, CLASS: self.readers}
        return Document(id=self.id, page_content=self.text, metadata=metadata)


class Found(NamedTuple):
    """A row as the store returns it; both empty if it is none of ours."""

    id: str
    readers: str


def row_id(chunk: str) -> str:
    """The id of a chunk's row, a UUID whatever the chunk is called."""
    return str(uuid.UUID(digest(chunk)[:32], version=5))


def class_of(readers: ACL) -> str:
    """The name of the class that has these readers: it tells nobody who they are, and is the same in every process."""
    return digest(canonical(sorted(readers)))[:32]


class Outside:
    """The store that `make` returns, with vectors handed over. Whatever it raises comes out as `StoreError`."""

    def __init__(
        self, make: Callable[[Embeddings], VectorStore], filter: Filter, *, dimension: int, classes_at_once: int
    ) -> None:
        self.dimension = dimension
        self._filter, self._at_once = filter, classes_at_once
        self._handed = Handed(dimension)
        self._store = make(self._handed)

    @property
    def name(self) -> str:
        return type(self._store).__name__

    async def put(self, rows: Sequence[Row]) -> None:
        """Write rows; one with a known id replaces it. No two calls at a time."""
        for batch in batches(rows, _BATCH):
            documents = [row.document for row in batch]
            vectors = {row.text: row.vector for row in batch}
            with self._handed.over(vectors), self._explaining("write"):
                await self._store.aadd_documents(documents, ids=[row.id for row in batch])

    async def differing(self, rows: Sequence[Row]) -> list[Row]:
        """Those of these rows that the store has not, or has otherwise; all of them if it cannot be asked."""
        held: set[tuple[object, object, str]] = set()
        with self._explaining("read"), contextlib.suppress(NotImplementedError):
            for batch in batches(rows, _BATCH):
                documents = await self._store.aget_by_ids([row.id for row in batch])
                held |= {(d.metadata.get(_ROW), d.metadata.get(CLASS), d.page_content) for d in documents}
        return [row for row in rows if (row.id, row.readers, row.text) not in held]

    async def delete(self, ids: Sequence[str]) -> None:
        for batch in batches(ids, _BATCH):
            with self._explaining("delete"):
                await self._store.adelete(batch)

    async def near(self, vector: Vector, classes: Sequence[str], k: int) -> list[Found]:
        """The nearest `k` of each call that so many classes need; without classes the store is not called."""
        answers = [await self.ask(vector, some, k) for some in batches(classes, self._at_once)]
        return [found for answer in answers for found in answer]

    async def ask(self, vector: Vector, classes: Sequence[str], k: int) -> list[Found]:
        """The nearest `k` of these classes, in one call. Raises `ConfigurationError` for a filter that says nothing."""
        arguments = self._filter(classes)
        if not arguments or any(map(_says_nothing, arguments.values())):
            raise ConfigurationError(
                f"the filter of {self.name} says nothing of {len(classes)} classes",
                expected="search arguments that let only rows of these classes pass",
                hint="many stores take an empty filter for no filter",
            )
        question = uuid.uuid4().hex
        with self._handed.over({question: vector}), self._explaining("search"):
            documents = await self._store.asimilarity_search(question, k=k, **arguments)
        return [Found(str(d.metadata.get(_ROW, "")), str(d.metadata.get(CLASS, ""))) for d in documents]

    @contextlib.contextmanager
    def _explaining(self, what: str) -> Iterator[None]:
        try:
            yield
        except RingwallError:
            raise
        except Exception as error:  # a store of anybody's raises anything, and its words may tell anything
            raise StoreError(f"{self.name} could not {what}: {type(error).__name__}") from error


def batches(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most `size`."""
    return (list(items[first : first + size]) for first in range(0, len(items), size))


def _says_nothing(value: object) -> bool:
    return value is None or (isinstance(value, Sized) and not len(value))
