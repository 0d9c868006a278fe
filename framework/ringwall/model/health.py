"""How providers did lately: who is left alone for a while, and who answers first."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

_NEWEST = 0.3
"""What the last answer counts in the mean."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """A provider that failed so many times in a row is not asked for so many seconds; then one request tries it.

    (The circuit breaker of Nygard, "Release It!", 2007.)
    """

    failures: int = 3
    seconds: float = 30.0


class Health:
    """What is remembered of one provider, for all runs of a process."""

    def __init__(self, breaker: Breaker, now: Callable[[], float] = time.monotonic) -> None:
        self._breaker, self._now = breaker, now
        self._failed = 0
        self._closed_until = 0.0
        self.latency: float | None = None
        """Seconds to the first delta, a mean in which the last count most; None before the first."""

    @property
    def well(self) -> bool:
        """Whether it is not left alone at this moment; to look changes nothing."""
        return self._failed < self._breaker.failures or self._now() >= self._closed_until

    def may_be_asked(self) -> bool:
        """Whether a request may be sent; when the pause is over, the first who asks may and others wait for it."""
        if self._failed < self._breaker.failures:
            return True
        if self._now() < self._closed_until:
            return False
        self._closed_until = self._now() + self._breaker.seconds
        return True

    def answered(self, seconds: float) -> None:
        """Note that it began to answer after so long."""
        self._failed = 0
        before = seconds if self.latency is None else self.latency
        self.latency = before + _NEWEST * (seconds - before)

    def failed(self) -> None:
        """Note that it was busy, down, or made no sense."""
        self._failed += 1
        self._closed_until = self._now() + self._breaker.seconds
