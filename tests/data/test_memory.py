"""The store in memory: the contract, its ranking, and what hidden chunks must not change."""

from __future__ import annotations

import pytest

from ringwall.data import Chunk, DocumentStore, Match, MemoryStore, Query
from ringwall.data.contract import StoreOfRecordContract
from ringwall.principal import ACL, PUBLIC, Principal

ANA = Principal.user("ana").vouched_grants
OPEN, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")


class TestMemoryStore(StoreOfRecordContract):
    @pytest.fixture
    def store(self) -> DocumentStore:
        return MemoryStore()


def chunk(id: str, text: str, readers: ACL = OPEN, vector: tuple[float, ...] | None = None) -> Chunk:
    return Chunk(id, id, text, readers, vector=vector)


async def found(store: MemoryStore, query: str, vector: tuple[float, ...] | None = None) -> list[Match]:
    return await store.search(Query(query, vector), ANA, 10)


async def test_a_chunk_that_shares_no_word_is_not_found() -> None:
    store = MemoryStore()
    await store.upsert([chunk("a", "wine and cheese"), chunk("b", "opening hours")])
    assert [m.chunk.id for m in await found(store, "Which WINES?")] == ["a"]


async def test_a_rare_word_counts_more_than_a_common_one() -> None:
    store = MemoryStore()
    await store.upsert([chunk(str(n), "table wine") for n in range(5)] + [chunk("rare", "table oysters")])
    assert (await found(store, "wine oysters"))[0].chunk.id == "rare"


async def test_equal_scores_come_in_the_order_of_their_ids() -> None:
    store = MemoryStore()
    await store.upsert([chunk(id, "wine") for id in "cab"])
    assert [m.chunk.id for m in await found(store, "wine")] == ["a", "b", "c"]


async def test_words_and_vectors_are_ranked_together() -> None:
    store = MemoryStore()
    await store.upsert(
        [
            chunk("word", "wine", vector=(0.0, 1.0)),
            chunk("meaning", "riesling", vector=(1.0, 0.0)),
            chunk("both", "wine", vector=(1.0, 0.1)),
            chunk("neither", "printer", vector=(0.0, 1.0)),
        ]
    )
    matches = await found(store, "wine", (1.0, 0.0))
    assert [m.chunk.id for m in matches] == ["both", "word", "meaning", "neither"]


async def test_chunks_without_vectors_are_found_by_their_words() -> None:
    store = MemoryStore()
    await store.upsert([chunk("plain", "wine"), chunk("vector", "cheese", vector=(1.0, 0.0))])
    assert [m.chunk.id for m in await found(store, "wine", (1.0, 0.0))] == ["plain", "vector"]


async def test_a_zero_vector_is_like_nothing() -> None:
    store = MemoryStore()
    await store.upsert([chunk("empty", "", vector=(0.0, 0.0)), chunk("a", "", vector=(1.0, 0.0))])
    assert [(m.chunk.id, m.score) for m in await found(store, "wine", (1.0, 0.0))] == [
        ("a", 1.0),
        ("empty", 0.0),
    ]


async def test_hidden_chunks_change_no_score_at_all() -> None:
    """Rarity, mean length and the bounds of fusion are those of the readable chunks alone."""
    alone, beside_hidden = MemoryStore(), MemoryStore()
    readable = [chunk("a", "wine and cheese", vector=(1.0, 0.2)), chunk("b", "wine", vector=(0.3, 1.0))]
    hidden = [chunk(f"h{n}", "wine " * n, STAFF, vector=(-1.0, float(n))) for n in range(1, 9)]
    await alone.upsert(readable)
    await beside_hidden.upsert([*hidden[:4], *readable, *hidden[4:]])
    for vector in (None, (1.0, 0.0)):
        assert await found(beside_hidden, "wine cheese", vector) == await found(alone, "wine cheese", vector)
