"""Stages that work at the same time: the next thing is made while the last one is being used."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import TypeVar

T = TypeVar("T")


async def ahead(items: AsyncGenerator[T, None], room: int = 2) -> AsyncGenerator[T, None]:
    """The same items in the same order, up to `room` of them made before they are asked for.

    What `items` raises is raised in its place; leaving early cancels what was begun, and closes `items`.
    """
    queue: asyncio.Queue[T | BaseException | None] = asyncio.Queue(room)

    async def fill() -> None:
        try:
            async with contextlib.aclosing(items):
                async for item in items:
                    await queue.put(item)
        except Exception as error:  # noqa: BLE001 (it is raised where the item would have been used)
            await queue.put(error)
        else:
            await queue.put(None)

    work = asyncio.create_task(fill())
    try:
        while (item := await queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
