"""An app whose model never answers: `asking_for_ever.py FOLDER LOCATION`. Says when the model has been asked.

Also the app of whoever picks up its run, with a model that answers.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path

from ringwall import App, Budget, Budgets, Principal, Rules
from ringwall.model.base import Delta, Location, ModelInfo, ModelProvider, ModelRequest, Usage
from ringwall_sql import SqlJournal, SqlLedger

ANA = Principal.user("ana", "guest")
BUDGET = Budget(2000, "tokens", per="principal", name="tokens")
RULES = "allow role:guest ask app:app\ngrant model:* collection:questions"
LEASE = 600.0


class Slow(ModelProvider):
    """Answers when it is told to, if ever."""

    def __init__(self, location: Location, *, answers: bool) -> None:
        self._location, self._answers = location, answers

    @property
    def info(self) -> ModelInfo:
        return ModelInfo("slow", 1000, self._location)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        if not self._answers:
            print("asked", flush=True)  # noqa: T201
            await asyncio.sleep(3600)
        yield Delta("Hello.", (), Usage(10, 2), "stop")


def app(folder: Path, location: Location, *, answers: bool, now: Callable[[], float] = time.time) -> App:
    """The app on the state in `folder`."""
    budgets = Budgets([BUDGET], ledger=SqlLedger(folder / "state.db"), lease=LEASE, now=now)
    model = Slow(location, answers=answers)
    return App(policy=Rules(RULES), model=model, journal=SqlJournal(folder / "state.db"), budgets=budgets)


if __name__ == "__main__":
    asyncio.run(app(Path(sys.argv[1]), Location(sys.argv[2]), answers=False).ask("Hello?", as_=ANA, run="r"))
