"""Profiles and memories in this process, and the order in which memories are recalled."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from ringwall.errors import InvalidInput
from ringwall.personalization.base import Memory, MemoryStore, Profile, ProfileStore
from ringwall.principal import ACL, Grants, Principal

_WORD: Final = re.compile(r"\w+")


class InMemoryProfiles(ProfileStore):
    """Keeps profiles in this process: for tests, tutorials, and apps that may forget."""

    def __init__(self) -> None:
        self._profiles: dict[str, Profile] = {}

    async def get(self, principal: Principal) -> Profile:
        return self._profiles.get(principal.own_grant) or Profile(principal.own_grant)

    async def put(self, principal: Principal, profile: Profile) -> None:
        refuse_foreign_profile(principal, profile)
        self._profiles[principal.own_grant] = profile

    async def forget(self, principal: Principal) -> None:
        self._profiles.pop(principal.own_grant, None)


class InMemoryMemories(MemoryStore):
    """Keeps memories in this process, at most `limit` for each owner: the oldest make room.

    Relevance is the number of words shared with what is asked about; of equally relevant memories the newest
    comes first.
    """

    def __init__(self, *, limit: int = 1000) -> None:
        self._limit = limit
        self._memories: dict[str, dict[str, Memory]] = {}

    async def add(self, owner: Principal, memories: Sequence[Memory]) -> None:
        refuse_foreign_memories(owner, memories)
        kept = self._memories.setdefault(owner.own_grant, {})
        for memory in memories:
            kept.pop(memory.id, None)  # a replaced memory is the newest again
            kept[memory.id] = memory
        for oldest in list(kept)[: max(0, len(kept) - self._limit)]:
            del kept[oldest]

    async def recall(self, owner: Principal, about: str, readable: Grants, k: int) -> list[Memory]:
        return most_relevant(reversed(self._memories.get(owner.own_grant, {}).values()), about, readable, k)

    async def forget(self, owner: Principal, ids: Sequence[str] | None = None) -> None:
        kept = self._memories.get(owner.own_grant, {})
        for id_ in list(kept) if ids is None else ids:
            kept.pop(id_, None)


def most_relevant(newest_first: Iterable[Memory], about: str, readable: Grants, k: int) -> list[Memory]:
    """The `k` memories for a holder of `readable` that share most words with `about`; their order settles ties."""
    wanted = _words(about)
    allowed = [memory for memory in newest_first if memory.label.may_flow_to(readable)]
    ranked = sorted(allowed, key=lambda memory: -len(wanted & _words(memory.text)))
    return ranked[: max(0, k)]


def refuse_foreign_profile(principal: Principal, profile: Profile) -> None:
    """Raise `InvalidInput` unless the profile is the principal's own."""
    if profile.owner != principal.own_grant:
        raise InvalidInput(
            f"a profile of {profile.owner!r} was given for {principal.own_grant!r}",
            expected="a profile whose owner is the principal's own grant",
        )


def refuse_foreign_memories(owner: Principal, memories: Iterable[Memory]) -> None:
    """Raise `InvalidInput` unless every memory is the owner's, and labelled for the owner's eyes."""
    own = ACL((owner.own_grant,))
    for memory in memories:
        if memory.owner != owner.own_grant:
            raise InvalidInput(
                f"memory {memory.id!r} of {memory.owner!r} was given for {owner.own_grant!r}",
                expected="memories whose owner is the principal's own grant",
            )
        if own not in memory.label.secrecy:
            raise InvalidInput(
                f"memory {memory.id!r} is not labelled as its owner's",
                expected=f"a label whose secrecy holds {own!r}",
                hint="join `Label.of(ACL((owner.own_grant,)))` to what it was made from",
            )


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.casefold()))
