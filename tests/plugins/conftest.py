"""What is started once for all tests of this folder: a loaded model."""

import asyncio
from collections.abc import Iterator

import pytest

from ringwall_llama import LlamaCpp


@pytest.fixture(scope="session")
def llama() -> Iterator[LlamaCpp]:
    # One thread: two wait for each other in a loop, which is slow while something else is running.
    model = LlamaCpp(threads=1)
    yield model
    asyncio.run(model.close())
