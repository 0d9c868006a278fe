"""The personalization ring: what is known of a person, what is remembered for one.

A plugin author reads this file alone. Subclass `ProfileStore` or `MemoryStore`, then run
`ringwall.personalization.contract` on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ringwall.label import Label
from ringwall.principal import ACL, TENANT_MARK, Grants, Principal


@dataclass(frozen=True, slots=True)
class Profile:
    """What shapes answers for one principal: a name to use, a language (BCP 47), standing preferences.

    `owner` is the owner's own grant.
    """

    owner: str
    name: str = ""
    language: str = ""
    preferences: tuple[str, ...] = ()

    @property
    def label(self) -> Label:
        """Readable by its owner only, and influenced by its owner only."""
        return Label.of(ACL((self.owner,)), self.owner.rpartition(TENANT_MARK)[2])

    def __bool__(self) -> bool:
        return bool(self.name or self.language or self.preferences)


@dataclass(frozen=True, slots=True)
class Memory:
    """One thing worth keeping for its owner, with the label of what it was made from.

    `owner` is the owner's own grant; the label's secrecy always holds the owner's ACL.
    """

    id: str
    owner: str
    text: str
    label: Label


class ProfileStore(ABC):
    """Profiles by principal. A profile is handed out to the principal whose it is, and to nobody else."""

    @abstractmethod
    async def get(self, principal: Principal) -> Profile:
        """Return the principal's profile; an empty one when there is none."""

    @abstractmethod
    async def put(self, principal: Principal, profile: Profile) -> None:
        """Replace the principal's profile. Raises `InvalidInput` when it is somebody else's."""

    @abstractmethod
    async def forget(self, principal: Principal) -> None:
        """Remove the principal's profile; none there is fine."""

    async def close(self) -> None:
        """Release what the store holds; called once, by the app that opened it."""


class MemoryStore(ABC):
    """Memories by owner.

    The caller relies on this: `recall` returns memories of that owner only, whatever the words, and only
    those whose label may flow to `readable`; two tenants never share an owner.
    """

    @abstractmethod
    async def add(self, owner: Principal, memories: Sequence[Memory]) -> None:
        """Keep memories; one with a known id replaces it. Raises `InvalidInput` for somebody else's."""

    @abstractmethod
    async def recall(self, owner: Principal, about: str, readable: Grants, k: int) -> list[Memory]:
        """Return at most `k` of the owner's memories, the most relevant to `about` first.

        `readable` is what the owner holds now: a memory made of what it may not receive any more takes no place
        among the `k`.
        """

    @abstractmethod
    async def forget(self, owner: Principal, ids: Sequence[str] | None = None) -> None:
        """Remove these of the owner's memories, or all; unknown ids are fine."""

    async def close(self) -> None:
        """Release what the store holds; called once, by the app that opened it."""
