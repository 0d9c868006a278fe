"""The synchronous door keeps a thread as long as somebody holds it, and no longer."""

import asyncio
import gc
import threading
import time

import pytest

from ringwall.door import Door
from ringwall.errors import InvalidInput


async def twice(number: int) -> int:
    await asyncio.sleep(0)
    return 2 * number


def threads() -> int:
    return sum(thread.name == "ringwall" for thread in threading.enumerate())


def wait_for(count: int) -> None:
    until = time.monotonic() + 5
    while threads() != count and time.monotonic() < until:
        time.sleep(0.01)
    assert threads() == count


def test_work_is_done_before_and_after_a_close() -> None:
    before, door = threads(), Door()
    door.close()
    for _ in range(2):
        assert door.run(twice(2)) == 4
        assert threads() == before + 1
        door.close()
        door.close()
        assert threads() == before


def test_the_thread_of_a_door_that_nobody_holds_ends() -> None:
    before, door = threads(), Door()
    assert door.run(twice(1)) == 2
    del door
    gc.collect()
    wait_for(before)


async def test_a_door_is_not_opened_from_async_code() -> None:
    with pytest.raises(InvalidInput, match="async"):
        Door().run(twice(1))
