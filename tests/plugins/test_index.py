"""The index beside a store: the contract over each store, and what must hold when the store changes behind it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from ringwall.data import Chunk, MemoryStore, Query, StoreOfRecord
from ringwall.data.contract import QUESTION, StoreOfRecordContract, chunk
from ringwall.errors import StoreError
from ringwall.principal import ACL, PUBLIC
from ringwall_index import Indexed
from ringwall_sql import SqlDocuments

READER = frozenset((PUBLIC,))
OPEN, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")


class Eager(Indexed):
    """Waits for the index before each search, so that it is the index that answers."""

    async def search(self, query: Query, readable: frozenset[str], k: int) -> list:  # type: ignore[type-arg]
        await self.build()
        return await super().search(query, readable, k)


class TestBesideMemory(StoreOfRecordContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[StoreOfRecord]:
        store = Eager(MemoryStore())
        yield store
        await store.close()


class TestBesideSql(StoreOfRecordContract):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[StoreOfRecord]:
        store = Eager(SqlDocuments(tmp_path / "documents.db"))
        yield store
        await store.close()


class TestNotYetBuilt(StoreOfRecordContract):
    """While the index is made, the store itself answers."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[StoreOfRecord]:
        store = Indexed(MemoryStore())
        yield store
        await store.close()


async def ids(store: StoreOfRecord, k: int = 9) -> set[str]:
    return {match.chunk.id for match in await store.search(QUESTION, READER, k)}


async def test_what_another_writes_into_the_store_is_found_and_what_it_hides_is_not() -> None:
    record = MemoryStore()
    store = Eager(record)
    await store.upsert([chunk("a", OPEN), chunk("b", OPEN)])
    assert await ids(store) == {"a", "b"}
    await record.upsert([chunk("c", OPEN)])
    await record.set_readers(["a"], STAFF)
    assert await ids(store) == {"b", "c"}
    await store.close()


async def test_a_change_that_fails_halfway_is_looked_up_again() -> None:
    class Breaks(MemoryStore):
        broken = False

        async def upsert(self, chunks: Sequence[Chunk]) -> None:
            await super().upsert(chunks)
            if self.broken:
                raise StoreError("the line was cut")

    record = Breaks()
    store = Eager(record)
    await store.upsert([chunk("a", OPEN)])
    assert await ids(store) == {"a"}
    record.broken = True
    with pytest.raises(StoreError):
        await store.upsert([chunk("b", OPEN)])
    assert await ids(store) == {"a", "b"}
    await store.close()


async def test_ranks_are_those_of_the_store_in_memory() -> None:
    texts = [f"trout {'lake ' * (n % 5)}{'pond ' * (n % 3)}number {n}" for n in range(300)]
    chunks = [
        Chunk(f"c{n:03}", f"d{n}", text, STAFF if n % 7 == 0 else OPEN, vector=(1.0, n % 11 / 10, n % 4 / 4))
        for n, text in enumerate(texts)
    ]
    memory, store = MemoryStore(), Eager(MemoryStore())
    await memory.upsert(chunks)
    await store.upsert(chunks)
    for query in (Query("trout in the lake", (1.0, 0.3, 0.5)), Query("pond 42"), Query("", (0.2, 1.0, 0.0))):
        expected = [(m.chunk.id, m.score) for m in await memory.search(query, READER, 10)]
        found = [(m.chunk.id, m.score) for m in await store.search(query, READER, 10)]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-5)
    await store.close()


async def test_searches_go_on_while_documents_change() -> None:
    store = Eager(MemoryStore())
    await store.upsert([chunk(f"a{n}", OPEN) for n in range(50)])

    async def change() -> None:
        for n in range(50):
            await store.set_readers([f"a{n}"], STAFF)

    async def look() -> None:
        for _ in range(30):
            before = await store.revision()
            found = await ids(store, 100)
            if before == await store.revision():
                assert found == {c.id for c in await store.get([f"a{n}" for n in range(50)], READER)}

    await asyncio.gather(change(), look())
    assert await ids(store) == set()
    await store.close()
