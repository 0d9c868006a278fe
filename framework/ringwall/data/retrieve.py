"""From a question to passages: embed it if the library has embeddings, and search as the reader."""

from __future__ import annotations

import asyncio

from ringwall.data.base import DocumentStore, Embeddings, Match, Query
from ringwall.principal import Grants


class Retriever:
    """Finds what answers a question among what a reader may read.

    `embeddings` must be the ones the store was filled with; None searches by words alone.
    """

    def __init__(self, store: DocumentStore, embeddings: Embeddings | None = None) -> None:
        self._store, self._embeddings = store, embeddings

    async def retrieve(self, question: str, readable: Grants, k: int = 4) -> list[Match]:
        """Return at most `k` matches, best first, all readable to somebody who holds `readable`."""
        return await self._store.search(await self._query(question), readable, k)

    async def _query(self, question: str) -> Query:
        if self._embeddings is None:
            return Query(question)
        return Query(question, tuple(await asyncio.to_thread(self._embeddings.embed_query, question)))
