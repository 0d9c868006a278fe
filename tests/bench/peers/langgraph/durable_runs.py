"""LangGraph with `SqliteSaver`, which saves each step before the next: `FOLDER steps | concurrent | kill | recover`."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

os.environ["LANGSMITH_TRACING"] = "false"

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import END, START, StateGraph

import durable_work


class Count(TypedDict):
    """How many steps were done."""

    n: int


def graph(folder: Path, steps: int, *, kill_in: int = 0):
    """So many steps in a line; one may kill its process once its effect is done."""
    connection = sqlite3.connect(folder / "checkpoints.db", check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    built = StateGraph(Count)

    def node(number: int):
        def step(state: Count) -> Count:
            if kill_in:
                durable_work.effect(folder, number)
                if number == kill_in:
                    os.kill(os.getpid(), signal.SIGKILL)
            return {"n": state["n"] + 1}

        return step

    names = [f"step {number}" for number in range(1, steps + 1)]
    for number, name in enumerate(names, 1):
        built.add_node(name, node(number))
    for before, after in zip([START, *names], [*names, END], strict=True):
        built.add_edge(before, after)
    return built.compile(checkpointer=SqliteSaver(connection))


def main(folder: Path, what: str) -> None:
    if what in ("kill", "recover"):
        durable = graph(folder, 5, kill_in=3 if what == "kill" else 99)
        durable.invoke({"n": 0} if what == "kill" else None, thread("r"), durability="sync")
        return
    steps = durable_work.STEPS if what == "steps" else durable_work.EFFECTS
    durable = graph(folder, steps)

    def run(name: str) -> None:
        assert durable.invoke({"n": 0}, thread(name), durability="sync")["n"] == steps

    if what == "steps":
        durable_work.report(durable_work.one_by_one(run))
    else:
        with ThreadPoolExecutor(durable_work.CONCURRENT) as pool:
            durable_work.report(durable_work.at_once(lambda names: list(pool.map(run, names))))


def thread(name: str) -> dict[str, dict[str, str]]:
    return {"configurable": {"thread_id": name}}


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
