"""What every limiter must pass. Shipped to plugin authors; needs pytest with pytest-asyncio.

class TestMyLimiter(LimiterContract):
    @pytest.fixture
    def limiter(self) -> Limiter: ...          # that has counted nothing yet
"""

from __future__ import annotations

import asyncio
from typing import Final

import pytest

from ringwall.deployment.limiter import Limiter, Taken

_LONG: Final = 100_000_000
"""Seconds of a window that no test outlives."""


def taken(key: str, amount: int = 1, *, limit: int = 5, seconds: int = _LONG) -> Taken:
    """So much of five."""
    return Taken(key, amount, limit, seconds)


@pytest.mark.asyncio
class LimiterContract:
    """Bring a fixture `limiter`: one that has counted nothing yet."""

    async def test_as_much_as_the_limit_passes_and_then_no_more(self, limiter: Limiter) -> None:
        assert [await limiter.take([taken("a")]) for _ in range(5)] == [0] * 5
        assert await limiter.take([taken("a")]) > 0

    async def test_amounts_count(self, limiter: Limiter) -> None:
        assert await limiter.take([taken("a", 4)]) == 0
        assert await limiter.take([taken("a", 2)]) > 0
        assert await limiter.take([taken("a", 1)]) == 0

    async def test_an_amount_above_the_limit_is_never_granted(self, limiter: Limiter) -> None:
        assert await limiter.take([taken("a", 6)]) > 0

    @pytest.mark.parametrize("other", ["b", "a/1", "A", ""])
    async def test_keys_do_not_mix(self, limiter: Limiter, other: str) -> None:
        assert await limiter.take([taken("a", 5)]) == 0
        assert await limiter.take([taken(other, 5)]) == 0

    async def test_what_was_refused_is_not_counted(self, limiter: Limiter) -> None:
        assert await limiter.take([taken("b", 5)]) == 0
        assert await limiter.take([taken("a", 5), taken("b")]) > 0
        assert await limiter.take([taken("b"), taken("a", 5)]) > 0
        assert await limiter.take([taken("a", 5)]) == 0

    async def test_many_at_once_pass_no_more_than_the_limit(self, limiter: Limiter) -> None:
        waits = await asyncio.gather(*(limiter.take([taken("a")]) for _ in range(50)))
        assert waits.count(0) == 5

    async def test_it_passes_again_after_the_time_that_it_said(self, limiter: Limiter) -> None:
        async def until_granted() -> None:
            while wait := await limiter.take([taken("a", 5, seconds=1)]):
                assert wait <= 2
                await asyncio.sleep(wait)

        async with asyncio.timeout(30):
            await until_granted()
            assert await limiter.take([taken("a", 5, seconds=1)]) > 0
            await until_granted()

    async def test_nothing_asked_is_granted(self, limiter: Limiter) -> None:
        assert await limiter.take([]) == 0


__all__ = ["LimiterContract", "taken"]
