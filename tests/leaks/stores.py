"""The stores that the properties are tried on, each searched through what is special about it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from ringwall import MemoryStore
from ringwall.bridge import Bridged, function_filter
from ringwall.data import Match, Query, StoreOfRecord
from ringwall.principal import Grants
from ringwall_index import Indexed
from ringwall_sql import SqlDocuments

DIMENSION: Final = 4


class Digests(Embeddings):
    """A direction for each text, by its digest: near to nothing in particular, and the same every time."""

    principal = None

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [byte / 128 - 1 for byte in hashlib.sha256(text.encode()).digest()[:DIMENSION]]


class EagerIndex(Indexed):
    """Waits for the index before each search, so that it is the index that answers."""

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        if await self._ready() is None:
            await self.build()
        return await super().search(query, readable, k)


class EagerBridge(Bridged):
    """Waits for the vector store before each search, so that it is the vector store that answers."""

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        if not await self._is_current():
            await self.build()
        return await super().search(query, readable, k)


@dataclass(frozen=True)
class Kind:
    """How a store is opened, and how many examples it is worth, of a hundred."""

    opens: Callable[[Path], StoreOfRecord]
    percent: int

    @contextmanager
    def opened(self) -> Iterator[StoreOfRecord]:
        """A new store, in a folder that goes; whoever uses it closes it."""
        with tempfile.TemporaryDirectory() as folder:
            yield self.opens(Path(folder))

    def examples(self, of: int) -> int:
        return of * self.percent // 100


STORES: Final[Mapping[str, Kind]] = {
    "memory": Kind(lambda folder: MemoryStore(), 100),
    "sqlite": Kind(lambda folder: SqlDocuments(folder / "documents.db"), 10),
    "indexed": Kind(lambda folder: EagerIndex(MemoryStore()), 20),
    "bridged": Kind(
        lambda folder: EagerBridge(MemoryStore(), InMemoryVectorStore, filter=function_filter, dimension=DIMENSION), 20
    ),
}
