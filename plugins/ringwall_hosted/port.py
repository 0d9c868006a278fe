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


async def _keep(client: httpx.AsyncClient) -> AsyncGenerator[None, None]:
    """Close `client` when closed: a loop closes the generators that are left when it shuts down."""
    try:
        yield
    finally:
        await client.aclose()


async def _close(keeper: AsyncGenerator[None, None]) -> None:
    await keeper.aclose()


@final
class Clients:
    """An HTTP client for each event loop: connections belong to the loop that opened them.

    A client is made when it is first asked for, and closed by `close` or when its loop shuts down.
    """

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self._kept: dict[asyncio.AbstractEventLoop, tuple[httpx.AsyncClient, AsyncGenerator[None, None]]] = {}

    async def here(self) -> httpx.AsyncClient:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._kept or self._kept[loop][0].is_closed:
            self._kept = {other: kept for other, kept in self._kept.items() if not other.is_closed()}
            client = self._make()
            self._kept[loop] = client, _keep(client)
            await anext(self._kept[loop][1])
        return self._kept[loop][0]

    async def close(self) -> None:
        """Close every client, each on its own loop; one is made anew if asked for again."""
        here = asyncio.get_running_loop()
        while self._kept:
            loop, (_, keeper) = self._kept.popitem()
            if loop is here:
                await keeper.aclose()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_close(keeper), loop))
