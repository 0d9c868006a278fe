"""Ringwall as a subject: governed runs, every gate on and every event in the journal.

Store, policy and pipeline are the ordinary ones; only the model is a null model, as for the peers. The agent
turn retrieves the four documents too, which the peers' do not; `agent_without_documents` spares it that. The
tool writes, so that its intent must be on the disk before it runs and its result after, at either setting of
SQLite; in `..._reading_tool` it only reads, and nothing waits for the disk unless the setting says so.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import scene
from harness import OpenRun, Run
from ringwall import ACL, App, MemoryStore, Principal, Rules, tool
from ringwall.data.base import Chunk
from ringwall.deployment.journal import Journal
from ringwall.interface.base import Tool
from ringwall.model.base import (
    Ability,
    Delta,
    Location,
    ModelInfo,
    ModelProvider,
    ModelRequest,
    RequestedCall,
)
from ringwall_sql import SqlJournal
from ringwall_sql.database import Synchronous
from subject import serve

RULES: Final = """
role staff includes guest
member tool:weather role:staff
grant tool:weather collection:questions
allow role:guest ask app:*
allow role:guest call tool:weather
allow doc:* call tool:weather
"""

ANA: Final = Principal.user("ana", "staff")


class NullModel(ModelProvider):
    """Proposes the tool when offered one, then answers; `sleep` seconds each."""

    def __init__(self, sleep: float = 0.0) -> None:
        self._info = ModelInfo("null", 8192, Location.IN_PROCESS, frozenset((Ability.TOOLS,)))
        self._sleep = sleep

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        if self._sleep:
            await asyncio.sleep(self._sleep)
        if request.tools and request.messages[-1].type != "tool":
            call = RequestedCall(scene.CALL_ID, scene.TOOL_NAME, scene.TOOL_ARGUMENTS_JSON)
            yield Delta(calls=(call,), finish="tool_calls")
        else:
            yield Delta(scene.ANSWER, finish="stop")


async def weather(city: str) -> str:
    """Say what the weather is like in a city."""
    return scene.weather(city)


WRITING: Final = tool(effect="write")(weather)
READING: Final = tool(effect="read")(weather)


async def library() -> MemoryStore:
    """Four documents that the staff may read."""
    store = MemoryStore()
    readers = ACL.of("role:staff")
    await store.upsert([Chunk(f"{n}#0", str(n), text, readers) for n, text in enumerate(scene.DOCUMENTS)])
    return store


@asynccontextmanager
async def governed(
    *, tools: Sequence[Tool] = (), documents: bool = True, journal: Journal | None = None, sleep: float = 0.0
) -> AsyncIterator[Run]:
    """Open an app and yield a run that asks it."""
    store = await library() if documents else MemoryStore()
    model = NullModel(sleep)
    async with App(policy=Rules(RULES), model=model, documents=store, tools=tools, journal=journal) as app:

        async def run() -> str:
            return (await app.ask(scene.QUESTION, as_=ANA)).text

        yield run


@asynccontextmanager
async def durable(synchronous: Synchronous, *, tools: Sequence[Tool] = ()) -> AsyncIterator[Run]:
    """Open an app that keeps its journal in a SQLite file; the app closes it."""
    with tempfile.TemporaryDirectory() as folder:
        journal = SqlJournal(Path(folder, "journal.db"), synchronous=synchronous)
        async with governed(tools=tools, journal=journal) as run:
            yield run


def runs() -> dict[str, OpenRun]:
    """Name what is measured one run at a time."""
    in_memory: dict[str, OpenRun] = {
        "rag": governed,
        "agent": partial(governed, tools=[WRITING]),
        "agent_without_documents": partial(governed, tools=[WRITING], documents=False),
    }
    return in_memory | durable_runs("NORMAL") | durable_runs("FULL")


def durable_runs(synchronous: Synchronous) -> dict[str, OpenRun]:
    """The same runs, journaled on SQLite at this `synchronous` setting."""
    suffix = f"sqlite_{synchronous.lower()}"
    return {
        f"rag_{suffix}": partial(durable, synchronous),
        f"agent_{suffix}": partial(durable, synchronous, tools=[WRITING]),
        f"agent_{suffix}_reading_tool": partial(durable, synchronous, tools=[READING]),
    }


def bursts() -> dict[str, OpenRun]:
    """Name what is measured in bursts of concurrent runs."""
    sleeping = partial(governed, sleep=scene.MODEL_SLEEP_S)
    return {"rag": sleeping, "agent": partial(sleeping, tools=[WRITING])}


if __name__ == "__main__":
    serve(runs=runs(), bursts=bursts(), packages=["ringwall", "sqlalchemy"])
