"""The bridge: a store of record that lets a LangChain store find what is near."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from operator import mul
from typing import TYPE_CHECKING, Final

from langchain_core.embeddings import Embeddings

from ringwall.bridge.outside import Filter, Outside, Row, row_id
from ringwall.bridge.probe import probe
from ringwall.bridge.rows import Rows
from ringwall.data.base import Chunk, Match, Query, StoreOfRecord, Vector
from ringwall.data.fuse import DENSE_WEIGHT, fuse
from ringwall.data.vectors import check_vector, check_vectors, unit
from ringwall.errors import StoreError
from ringwall.principal import ACL, Grants

if TYPE_CHECKING:
    from langchain_core.vectorstores import VectorStore

_CANDIDATES: Final = 100
"""Passages that each half of a search hands on to be ranked together, at least."""


class Bridged(StoreOfRecord):
    """`record`, with a LangChain vector store beside it that finds what is near.

    `vectors` makes that store of the embeddings it is given, as in `lambda e: Chroma("near", e)`; it must be the
    bridge's alone. `filter` turns permitted classes into arguments of its search, at most `classes_at_once` in one
    call; `dimension` is that of the vectors. The vector store is told directions, under opaque ids with an opaque
    name of their readers: no text, no metadata, no id.

    The vector store is tried before the first search or write; see `check`. A filter lets permitted classes pass and
    is never empty: without one the store is not called. Every passage that a search returns was read from `record`
    as the reader, and its score is the exact cosine with what `record` finds by words. A row from outside the
    permitted classes fails the search with `StoreError`, and the store is tried again before it is used again.

    Everything is kept by `record`. The vector store is filled from it when the first search comes, and again when
    something else has changed it; until then, for conditions on metadata, and when the vector store finds fewer
    than there are, `record` searches itself. A vector of zeros is like nothing: it is found by its words alone.
    """

    def __init__(
        self,
        record: StoreOfRecord,
        vectors: Callable[[Embeddings], VectorStore],
        *,
        filter: Filter,
        dimension: int,
        dense_weight: float = DENSE_WEIGHT,
        classes_at_once: int = 10_000,
    ) -> None:
        self._record, self._dense_weight = record, dense_weight
        self._outside = Outside(vectors, filter, dimension=dimension, classes_at_once=classes_at_once)
        self._writing = asyncio.Lock()
        self._trusted = False
        self._rows: Rows | None = None
        self._revision = ""
        self._building: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Try the vector store with made-up rows, which are taken away again whatever happens.

        Raises `ConfigurationError` that names the promise it breaks: permitted classes alone pass a filter, and
        hidden rows take no places; a row without a class passes none; an unknown class, or none, finds nothing;
        writing replaces; deleting deletes; the next search sees it.
        """
        async with self._writing:
            await self._check()

    async def build(self) -> None:
        """Bring the vector store up to date now with all that the record holds."""
        await self._trust()
        async with self._writing:
            revision, rows = await self._record.revision(), Rows()
            async for batch in self._record.scan():
                check_vectors(batch, self._outside.dimension)
                await self._outside.put(await self._outside.differing(_entered(batch, rows)))
            self._rows, self._revision = rows, revision

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        """As in `DocumentStore`. Raises `InvalidInput` for a query vector of another dimension."""
        if query.vector is not None:
            check_vector(query.vector, self._outside.dimension, of="the query")
        rows = await self._ready()
        if rows is None or query.vector is None or not any(query.vector) or query.where or k < 1:
            return await self._record.search(query, readable, k)
        wanted = max(_CANDIDATES, 2 * k)
        permitted = rows.permitted(readable)
        near = await self._near(query.vector, permitted, wanted, rows)
        chunks = await self._record.get(near, readable)
        if len(chunks) < min(k, sum(permitted.values())):
            return await self._record.search(query, readable, k)
        by_words = await self._record.search(Query(query.text), readable, wanted)
        return self._ranked(query.vector, chunks, by_words)[:k]

    async def get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        return await self._record.get(ids, readable)

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        """As in `DocumentStore`. Raises `InvalidInput` for vectors not finite or not of the dimension."""
        await self.replace([], chunks)

    async def delete(self, documents: Sequence[str]) -> None:
        await self.replace(documents, [])

    async def replace(self, documents: Sequence[str], chunks: Sequence[Chunk]) -> None:
        check_vectors(chunks, self._outside.dimension)
        async with self._changing() as rows:
            await (self._record.replace(documents, chunks) if documents else self._record.upsert(chunks))
            if rows is not None:
                await self._take(rows.of(documents), rows)
                await self._put(chunks, rows)

    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        async with self._changing() as rows:
            await self._record.set_readers(documents, readers)
            if rows is not None:
                changed = await self._record.get(rows.chunks(rows.of(documents)), frozenset(readers))
                await self._put(changed, rows)

    def scan(self) -> AsyncIterator[Sequence[Chunk]]:
        return self._record.scan()

    async def revision(self) -> str:
        return await self._record.revision()

    async def verify(self) -> list[str]:
        return await self._record.verify()

    async def compact(self) -> None:
        """Leave nothing of what was deleted in the files of the record; the vector store's are its own affair."""
        await self._record.compact()

    async def close(self) -> None:
        """Close the record; the vector store is left to who made it."""
        building = self._building
        if building is not None and not building.done():
            loop = building.get_loop()
            if loop is asyncio.get_running_loop():
                building.cancel()
                await asyncio.gather(building, return_exceptions=True)
            elif not loop.is_closed():
                loop.call_soon_threadsafe(building.cancel)
        self._rows = None
        await self._record.close()

    async def _check(self) -> None:
        self._trusted = False
        await probe(self._outside)
        self._trusted = True

    async def _trust(self) -> None:
        if not self._trusted:
            async with self._writing:
                if not self._trusted:
                    await self._check()

    async def _ready(self) -> Rows | None:
        """What there is, if the vector store is up to date; else None, and it is being filled."""
        await self._trust()
        if await self._is_current():
            return self._rows
        async with self._writing:  # perhaps only a write of our own is on its way
            if await self._is_current():
                return self._rows
        if self._building is not None and self._building.done():
            finished, self._building = self._building, None
            finished.result()  # why it could not be filled is said once, and then it is tried again
        if self._building is None:
            self._building = asyncio.create_task(self.build())
        return None

    async def _is_current(self) -> bool:
        return self._rows is not None and self._revision == await self._record.revision()

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[Rows | None]:
        """Change both together; if either fails, or something else changed the record, it is all looked up again."""
        await self._trust()
        async with self._writing:
            rows = self._rows if await self._is_current() else None
            self._rows = None
            yield rows
            self._revision = await self._record.revision()
            self._rows = rows

    async def _put(self, chunks: Sequence[Chunk], rows: Rows) -> None:
        last = list({chunk.id: chunk for chunk in chunks}.values())
        entered = _entered(last, rows)
        await self._outside.put(entered)
        bare = {row_id(chunk.id) for chunk in last} - {row.id for row in entered}
        await self._take(sorted(bare), rows)

    async def _take(self, ids: Sequence[str], rows: Rows) -> None:
        known = rows.known(ids)
        rows.remove(known)
        await self._outside.delete(known)

    async def _near(self, vector: Vector, permitted: dict[str, int], wanted: int, rows: Rows) -> list[str]:
        """The chunks that the vector store finds; none if something has changed since."""
        revision = self._revision
        found = await self._outside.near(unit(vector), list(permitted), wanted)
        if all(row.readers in permitted for row in found):
            return rows.chunks(row.id for row in found)
        if revision != await self._record.revision():
            return []  # a row may come with the class that it got meanwhile
        self._trusted = False
        raise StoreError(
            f"{self._outside.name} returned a row that its filter excludes",
            hint="nothing of this search was returned; the next one tries the store first",
        )

    def _ranked(self, vector: Vector, near: Sequence[Chunk], by_words: Sequence[Match]) -> list[Match]:
        chunks = {chunk.id: chunk for chunk in (*near, *(match.chunk for match in by_words))}
        asked = unit(vector)
        dense = {c.id: sum(map(mul, asked, unit(c.vector))) for c in chunks.values() if c.vector is not None}
        lexical = {match.chunk.id: match.score for match in by_words}
        scores = fuse(lexical, dense, dense_weight=self._dense_weight)
        return [Match(chunks[id], scores[id]) for id in sorted(scores, key=lambda id: (-scores[id], id))]


def _entered(chunks: Sequence[Chunk], rows: Rows) -> list[Row]:
    """The rows of those chunks that have a direction, entered into `rows`; many stores choke on zeros."""
    entered = []
    for chunk in chunks:
        if chunk.vector is not None and any(chunk.vector):
            row = Row.of(chunk, chunk.vector)
            rows.put(row, chunk)
            entered.append(row)
    return entered
