"""Ringwall on SQLite: `FOLDER steps | effects | concurrent`.

`steps` writes events as a pipeline that saves each step would; `effects` and `concurrent` are whole governed runs: a
model asks for five tools one after the other, each call decided on, and in the journal, synced to the disk, before it
is made and after.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

import durable_work
from ringwall import App, Principal, Rules, ScriptedModel, call, tool
from ringwall.deployment.journal import Draft
from ringwall.label import BOTTOM
from ringwall.model.scripted import Line
from ringwall_sql import SqlJournal

ANA: Final = Principal.user("ana", "guest")
RULES: Final = """
allow role:guest ask app:app
allow role:guest call tool:*
grant tool:* collection:questions
"""
BODY: Final = '{"next":1,"changed":{"n":1}}'


@tool(effect="write", label=BOTTOM)
async def act() -> str:
    """Do one thing."""
    return "done"


async def recorded(journal: SqlJournal, name: str) -> None:
    """A run of so many recorded steps, and nothing else."""
    head = await journal.start(name, ANA.own_grant, [Draft("run.started", BODY, "", time.time())])
    for _ in range(durable_work.STEPS):
        head = await journal.append(name, [Draft("turn.changed", BODY, "", time.time())], head)


def governed(journal: SqlJournal) -> App:
    script: list[Line] = [*[call("act")] * durable_work.EFFECTS, "Done."]
    return App(policy=Rules(RULES), model=ScriptedModel(script), tools=[act], journal=journal)


async def ask(app: App, name: str) -> None:
    assert (await app.ask("Do all five", as_=ANA, run=name)).text == "Done."


def main(folder: Path, what: str) -> None:
    """Measure, and tell."""
    journal = SqlJournal(folder / "journal.db")
    app = governed(journal)
    with asyncio.Runner() as runner:

        async def all_of(names: list[str]) -> None:
            await asyncio.gather(*(ask(app, name) for name in names))

        if what == "steps":
            cost = durable_work.one_by_one(lambda name: runner.run(recorded(journal, name)))
        elif what == "effects":
            cost = durable_work.one_by_one(lambda name: runner.run(ask(app, name)), steps=durable_work.EFFECTS)
        else:
            cost = durable_work.at_once(lambda names: runner.run(all_of(names)))
        durable_work.report(cost)
        runner.run(app.close())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
