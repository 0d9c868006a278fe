"""A limiter on the library `limits`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.errors import ConfigurationError as UnusableStorage
from limits.errors import StorageError
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter

from ringwall.deployment.limiter import Limiter, Taken
from ringwall.errors import ConfigurationError, StoreError
from ringwall.schema import digest

_IN_MEMORY = "memory://"


class Limits(Limiter):
    """Counts where `url` says: `memory://` for this process, `redis://host:6379/0` for all that share a server.

    Whatever else `limits` can count in with a sliding window will do, if its client is installed. What was taken in
    the present window and, in proportion, in the one before it counts. In memory all is taken or nothing; elsewhere
    what another process takes at the very same moment can leave some of what was refused counted.

    Raises `ConfigurationError` for a URL that `limits` cannot count in.
    """

    def __init__(self, url: str = _IN_MEMORY) -> None:
        try:
            self._storage = storage_from_string(url, wrap_exceptions=True)
            self._window = SlidingWindowCounterRateLimiter(self._storage)
        except (UnusableStorage, NotImplementedError) as error:
            scheme = url.partition("://")[0]
            raise ConfigurationError(
                f"`limits` cannot count in {scheme!r}: {type(error).__name__}",
                expected="`memory://` or `redis://host:6379/0`, with its client installed",
            ) from None
        self._is_here = url.startswith(_IN_MEMORY)
        self._lock = threading.Lock()

    async def take(self, asked: Sequence[Taken]) -> float:
        return self._take(asked) if self._is_here else await asyncio.to_thread(self._take, asked)

    def _take(self, asked: Sequence[Taken]) -> float:
        items = [(RateLimitItemPerSecond(each.limit, each.seconds), digest(each.key), each.amount) for each in asked]
        try:
            with self._lock:
                return max((self._wait(*item) for item in items), default=0.0) or self._hit(items)
        except StorageError as error:
            kind = type(error.storage_error).__name__
            raise StoreError(
                f"the rates could not be counted: {kind}", hint="look whether their server is up"
            ) from None

    def _wait(self, item: RateLimitItem, key: str, amount: int) -> float:
        if self._window.test(item, key, cost=amount):
            return 0.0
        return max(0.001, self._window.get_window_stats(item, key).reset_time - time.time())

    def _hit(self, items: Sequence[tuple[RateLimitItem, str, int]]) -> float:
        for item, key, amount in items:
            if not self._window.hit(item, key, cost=amount):  # somebody else was quicker
                return self._wait(item, key, amount) or 0.001
        return 0.0
