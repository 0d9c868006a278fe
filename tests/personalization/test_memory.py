"""Profiles and memories in this process."""

from __future__ import annotations

import pytest

from ringwall.personalization import InMemoryMemories, InMemoryProfiles, MemoryStore, ProfileStore
from ringwall.personalization.contract import ANA, BEN, EVERYTHING, MemoryStoreContract, ProfileStoreContract, memory

pytestmark = pytest.mark.asyncio


class TestInMemoryProfiles(ProfileStoreContract):
    @pytest.fixture
    def store(self) -> ProfileStore:
        return InMemoryProfiles()


class TestInMemoryMemories(MemoryStoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return InMemoryMemories()


async def test_of_equally_relevant_memories_the_newest_comes_first() -> None:
    store = InMemoryMemories()
    await store.add(ANA, [memory(ANA, "1", "red"), memory(ANA, "2", "blue"), memory(ANA, "1", "red")])
    assert [m.id for m in await store.recall(ANA, "green", EVERYTHING, 9)] == ["1", "2"]


async def test_the_oldest_memories_of_an_owner_make_room_for_new_ones() -> None:
    store = InMemoryMemories(limit=2)
    await store.add(BEN, [memory(BEN, "0", "ben's")])
    await store.add(ANA, [memory(ANA, str(i), "a fact") for i in range(5)])
    assert {m.id for m in await store.recall(ANA, "fact", EVERYTHING, 9)} == {"3", "4"}
    assert len(await store.recall(BEN, "fact", EVERYTHING, 9)) == 1
