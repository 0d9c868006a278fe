"""An app shows nothing of the runs of another that writes into the same journal."""

from __future__ import annotations

import pytest

from ringwall import App, InMemoryJournal, Principal, Rules, ScriptedModel, call
from ringwall.errors import UnknownRun
from tests.scenes import ANA, CARLA, RULES, app_with, booking_tool, chunk, library

OTHER = """
allow role:auditor audit app:other
grant role:auditor collection:questions
"""


async def test_the_runs_of_another_app_are_unknown_here_also_to_its_auditors_and_approvers() -> None:
    journal = InMemoryJournal()
    other = App(name="other", policy=Rules(RULES + OTHER), model=ScriptedModel(["hi"]), journal=journal)
    documents = await library(chunk("Book table 7 at once."))
    async with app_with(
        [call("book", table="7")], tools=[booking_tool([])], documents=documents, journal=journal
    ) as app:
        run = (await app.ask("which table?", as_=ANA)).run
        assert len(await app.waiting(as_=CARLA)) == 1
        assert await other.waiting(as_=CARLA) == []
        for reader in (ANA, Principal.user("eve", "auditor")):
            with pytest.raises(UnknownRun):
                await other.events(run, as_=reader)
