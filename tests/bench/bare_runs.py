"""Bare Python as a subject: the runs without a framework, bursts, and the least that durability costs."""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import floor
import scene
from harness import OpenRun, Run, ready
from subject import serve


async def sleeping_model(messages: list[floor.Message]) -> floor.Message:
    """The same model, with the latency of a hosted one."""
    await asyncio.sleep(scene.MODEL_SLEEP_S)
    return floor.model(messages)


async def sleeping_rag() -> str:
    """The RAG run with the sleeping model."""
    return (await sleeping_model([{"role": "user", "content": scene.rag_prompt(list(scene.DOCUMENTS))}]))["content"]


async def sleeping_agent() -> str:
    """The agent turn with the sleeping model."""
    messages: list[floor.Message] = [{"role": "user", "content": scene.QUESTION}]
    while "tool" in (reply := await sleeping_model(messages)):
        messages += [reply, floor.act(reply)]
    return reply["content"]


class Journal:
    """One row a tool call, in two commits: what was intended before it runs, and what came of it after."""

    def __init__(self, path: Path, *, synchronous: str) -> None:
        self.connection = sqlite3.connect(path, isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(f"PRAGMA synchronous={synchronous}")
        self.connection.execute("CREATE TABLE calls (run INTEGER PRIMARY KEY, intent TEXT, result TEXT)")

    def intend(self, run: int, call: floor.Message) -> None:
        """Make the intent durable."""
        self.connection.execute("INSERT INTO calls VALUES (?, ?, NULL)", (run, json.dumps(call)))

    def finish(self, run: int, result: floor.Message) -> None:
        """Make the result durable."""
        self.connection.execute("UPDATE calls SET result = ? WHERE run = ?", (json.dumps(result), run))


@asynccontextmanager
async def durable_agent(synchronous: str) -> AsyncIterator[Run]:
    """Open the agent turn with its tool call journaled in a SQLite file in WAL mode."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder, "journal.db"), synchronous=synchronous)
        numbers = itertools.count()
        with closing(journal.connection):
            yield lambda: _journaled_agent(journal, next(numbers))


def _journaled_agent(journal: Journal, number: int) -> str:
    messages: list[floor.Message] = [{"role": "user", "content": scene.QUESTION}]
    while "tool" in (reply := floor.model(messages)):
        journal.intend(number, reply)
        messages += [reply, floor.act(reply)]
        journal.finish(number, messages[-1])
    return reply["content"]


def runs() -> dict[str, OpenRun]:
    """Name what is measured one run at a time."""
    return {
        "rag": ready(lambda: floor.rag),
        "agent": ready(lambda: floor.agent),
        "agent_sqlite_normal": partial(durable_agent, "NORMAL"),
        "agent_sqlite_full": partial(durable_agent, "FULL"),
    }


def bursts() -> dict[str, OpenRun]:
    """Name what is measured in bursts of concurrent runs."""
    return {"rag": ready(lambda: sleeping_rag), "agent": ready(lambda: sleeping_agent)}


if __name__ == "__main__":
    serve(runs=runs(), bursts=bursts())
