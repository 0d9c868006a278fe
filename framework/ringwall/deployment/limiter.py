"""Rate limits: how much in so many seconds, whoever counts.

A plugin author reads this file alone. Subclass `Limiter`, then run `ringwall.deployment.limiter_contract` on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple


class Taken(NamedTuple):
    """So much of `limit` in any `seconds`, counted under a key."""

    key: str
    amount: int
    limit: int
    seconds: int


class Limiter(ABC):
    """Counts what was taken under each key lately.

    The caller relies on this: what was refused is not counted, and counts of different keys do not mix.
    """

    @abstractmethod
    async def take(self, asked: Sequence[Taken]) -> float:
        """Take all that is asked and return 0, or none of it and return the seconds after which to try again.

        An amount above its limit is never granted. Raises `StoreError` when the counts cannot be reached.
        """

    async def close(self) -> None:
        """Release what the limiter holds; called once, by the app that opened it."""


__all__ = ["Limiter", "Taken"]
