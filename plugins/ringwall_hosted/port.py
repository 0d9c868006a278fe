"""The port to the HTTP library: its clients, one for each event loop, and its errors."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable
from typing import final

import httpx


def http_errors(*names: str) -> tuple[type[Exception], ...]:
    """The library's exceptions of these names, and those of its successor if anybody loaded it."""
    libraries = [library for library in (httpx, sys.modules.get("httpx2")) if library is not None]
    return tuple(getattr(library, name) for library in libraries for name in names)


@final
class Clients:
    """An HTTP client for each event loop: connections belong to the loop that opened them.

    A client is made when it is first asked for, and closed by `close` or when its loop shuts down.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self._kept: dict[asyncio.AbstractEventLoop, _Kept] = {}

    async def here(self) -> httpx.AsyncClient:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        kept = self._kept.get(loop)
        if kept is None or kept.client.is_closed:
            self._kept = {other: kept for other, kept in self._kept.items() if not other.is_closed()}
            kept = self._kept[loop] = _Kept(self._make())
            await anext(kept.keeper)
        return kept.client

    async def close(self) -> None:
        here = asyncio.get_running_loop()
        while self._kept:
            loop, kept = self._kept.popitem()
            if loop is here:
                await kept.keeper.aclose()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(kept.close(), loop))


class _Kept:
    """A client, and the generator that closes it: a loop that shuts down closes its generators."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.keeper = self._keep()

    async def _keep(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.client.aclose()

    async def close(self) -> None:
        await self.keeper.aclose()
