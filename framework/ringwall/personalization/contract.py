"""What every profile store and every memory store must pass. Subclass, give an empty store, run pytest.

    class TestMyMemories(MemoryStoreContract):
        @pytest.fixture
        def store(self, tmp_path: Path) -> MemoryStore:
            return MyMemories(tmp_path / "memories.db")

Needs pytest, pytest-asyncio and hypothesis.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringwall.errors import InvalidInput
from ringwall.label import Label
from ringwall.personalization.base import Memory, MemoryStore, Profile, ProfileStore
from ringwall.principal import ACL, Principal

ANA = Principal.user("ana")
BEN = Principal.user("ben")
ANA_AT_ACME = Principal.user("ana", tenant="acme")
EVERYBODY = (ANA, BEN, ANA_AT_ACME)
EVERYTHING = frozenset((*(p.own_grant for p in EVERYBODY), "role:staff", "collection:hr"))
"""Grants enough to receive every memory of these tests."""

_owners = st.sampled_from(EVERYBODY)
_words = st.text(st.sampled_from("ab \x00é\ud800😀'%_\"*"), max_size=8) | st.text(max_size=8)
_ids = st.sampled_from(["1", "2", "3", "", "é\x00\ud800"])
_examples = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[
        HealthCheck.differing_executors,  # a contract is run by many classes,
        HealthCheck.function_scoped_fixture,  # and its examples are told apart within one store
        HealthCheck.too_slow,
    ],
)


def memory(owner: Principal, id_: str, text: str, *made_from: Label) -> Memory:
    """A memory of `owner`, labelled as such."""
    label = Label.of(ACL((owner.own_grant,)), owner.id)
    for other in made_from:
        label = label | other
    return Memory(id_, owner.own_grant, text, label)


class ProfileStoreContract:
    """A profile is handed out to the principal whose it is, and to nobody else."""

    pytestmark = pytest.mark.asyncio

    async def test_nobody_has_a_profile_at_first(self, store: ProfileStore) -> None:
        found = await store.get(ANA)
        assert found == Profile(ANA.own_grant)
        assert not found

    async def test_a_profile_comes_back_as_it_was_put(self, store: ProfileStore) -> None:
        profile = Profile(ANA.own_grant, "Ana 😀", "pt-BR", ("no fish", 'says "tu", not %s\x00\ud800'))
        await store.put(ANA, Profile(ANA.own_grant, "An"))
        await store.put(ANA, profile)
        assert await store.get(ANA) == profile

    async def test_the_same_name_in_another_tenant_is_somebody_else(self, store: ProfileStore) -> None:
        await store.put(ANA, Profile(ANA.own_grant, "Ana"))
        assert not await store.get(ANA_AT_ACME)
        assert not await store.get(BEN)

    async def test_the_profile_of_somebody_else_is_refused(self, store: ProfileStore) -> None:
        await store.put(BEN, Profile(BEN.own_grant, "Ben"))
        for other in (BEN, ANA_AT_ACME):
            with pytest.raises(InvalidInput):
                await store.put(ANA, Profile(other.own_grant, "Ana"))
        assert (await store.get(BEN)).name == "Ben"
        assert not await store.get(ANA)

    async def test_a_forgotten_profile_is_gone_and_no_other_is(self, store: ProfileStore) -> None:
        for principal in EVERYBODY:
            await store.put(principal, Profile(principal.own_grant, "x"))
        await store.forget(ANA)
        await store.forget(ANA)
        assert not await store.get(ANA)
        assert await store.get(BEN)
        assert await store.get(ANA_AT_ACME)


class MemoryStoreContract:
    """Memories are recalled for their owner alone, whatever the words."""

    pytestmark = pytest.mark.asyncio

    @_examples
    @given(added=st.lists(st.tuples(_owners, _ids, _words), max_size=12), asks=_owners, about=_words)
    async def test_recall_never_returns_what_another_owner_or_tenant_said(
        self, store: MemoryStore, added: list[tuple[Principal, str, str]], asks: Principal, about: str
    ) -> None:
        for owner in EVERYBODY:
            await store.forget(owner)
        newest: dict[str, Memory] = {}
        for owner, id_, text in added:
            await store.add(owner, [memory(owner, id_, text)])
            if owner == asks:
                newest[id_] = memory(owner, id_, text)
        found = await store.recall(asks, about, EVERYTHING, 20)
        assert sorted(found, key=lambda m: m.id) == sorted(newest.values(), key=lambda m: m.id)

    async def test_a_memory_comes_back_with_its_whole_label(self, store: MemoryStore) -> None:
        label = Label.of(ACL(("role:staff", "collection:hr")), "doc:hr/é.md", "web:example.org")
        kept = memory(ANA, "1", "allergic to nuts\x00 \ud800😀", label)
        await store.add(ANA, [kept])
        assert await store.recall(ANA, "nuts", EVERYTHING, 1) == [kept]

    async def test_what_the_owner_may_not_receive_any_more_takes_no_place(self, store: MemoryStore) -> None:
        held = ANA.vouched_grants
        for n in range(5):
            await store.add(ANA, [memory(ANA, f"hr {n}", "red wine", Label.of(ACL(("collection:hr",))))])
        await store.add(ANA, [memory(ANA, "own", "likes red wine")])
        assert [m.id for m in await store.recall(ANA, "red wine", held, 1)] == ["own"]
        assert len(await store.recall(ANA, "red wine", held | {"collection:hr"}, 9)) == 6
        assert await store.recall(ANA, "red wine", frozenset(), 9) == []

    async def test_what_shares_most_words_comes_first_and_k_is_a_bound(self, store: MemoryStore) -> None:
        texts = ["likes red wine", "red shoes", "plays the cello"]
        await store.add(ANA, [memory(ANA, str(i), text) for i, text in enumerate(texts)])
        found = await store.recall(ANA, "a red wine", EVERYTHING, 2)
        assert [m.text for m in found] == texts[:2]
        assert await store.recall(ANA, "a red wine", EVERYTHING, 0) == []

    async def test_a_known_id_is_replaced(self, store: MemoryStore) -> None:
        await store.add(ANA, [memory(ANA, "diet", "eats fish"), memory(ANA, "diet", "eats no fish")])
        await store.add(BEN, [memory(BEN, "diet", "eats all")])
        assert [m.text for m in await store.recall(ANA, "fish", EVERYTHING, 9)] == ["eats no fish"]

    async def test_the_memory_of_somebody_else_is_refused_and_nothing_of_the_call_is_kept(
        self, store: MemoryStore
    ) -> None:
        for other in (BEN, ANA_AT_ACME):
            with pytest.raises(InvalidInput):
                await store.add(ANA, [memory(ANA, "1", "mine"), memory(other, "2", "theirs")])
        for principal in EVERYBODY:
            assert await store.recall(principal, "mine theirs", EVERYTHING, 9) == []

    async def test_a_memory_that_is_not_labelled_as_its_owners_is_refused(self, store: MemoryStore) -> None:
        with pytest.raises(InvalidInput):
            await store.add(ANA, [Memory("1", ANA.own_grant, "secret", Label())])

    async def test_forgetting_removes_these_or_all_of_one_owner(self, store: MemoryStore) -> None:
        for principal in EVERYBODY:
            await store.add(principal, [memory(principal, str(i), f"fact {i}") for i in range(3)])
        await store.forget(ANA, ["1", "unknown"])
        assert {m.id for m in await store.recall(ANA, "fact", EVERYTHING, 9)} == {"0", "2"}
        await store.forget(ANA, [])
        assert len(await store.recall(ANA, "fact", EVERYTHING, 9)) == 2
        await store.forget(ANA)
        assert await store.recall(ANA, "fact", EVERYTHING, 9) == []
        assert len(await store.recall(BEN, "fact", EVERYTHING, 9)) == 3
        assert len(await store.recall(ANA_AT_ACME, "fact", EVERYTHING, 9)) == 3


__all__ = ["MemoryStoreContract", "ProfileStoreContract"]
