"""`ringwall approvals`: with a journal and a policy, and none of the app's tools, people look and answer."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ringwall import RunStatus, call
from ringwall.cli import app as cli
from ringwall.errors import ActionDenied, NotWaiting
from ringwall.model.scripted import Line
from ringwall_sql import SqlJournal
from tests.core.test_questions import editing_tool
from tests.scenes import ANA, app_with

RULES = """
allow role:guest ask app:app
ask role:guest call tool:* because "a guest must ask" within 4h
grant tool:* collection:questions
grant role:manager collection:questions
allow role:manager approve tool:*
allow role:manager standing tool:*
"""
EDIT: list[Line] = [call("edit", name="menu", text="soup\nmeat"), "Done."]
CARLA = ("--as", "user:carla", "--role", "manager")


class Desk:
    """A journal with a run that waits, and the command line on it."""

    def __init__(self, folder: Path, journal: str) -> None:
        self.notes = {"menu": "soup\nfish"}
        self.journal, self.policy = journal, folder / "policy.txt"
        self.policy.write_text(RULES, encoding="utf-8")
        asyncio.run(self.ask("r"))

    def app(self) -> Any:
        tools = [editing_tool(self.notes)]
        return app_with(EDIT, rules=RULES, tools=tools, journal=SqlJournal(self.journal))

    async def ask(self, run: str) -> RunStatus:
        async with self.app() as app:
            return RunStatus((await app.ask("edit", as_=ANA, run=run)).status)

    async def resume(self) -> RunStatus:
        async with app_with(
            ["Done."], rules=RULES, tools=[editing_tool(self.notes)], journal=SqlJournal(self.journal)
        ) as app:
            return RunStatus((await app.resume("r")).status)

    def __call__(self, what: str, *more: str, who: tuple[str, ...] = CARLA) -> Result:
        run = () if what in ("list", "standing") else ("r",)
        arguments = ["approvals", what, self.journal, *run, *who, "--policy", str(self.policy), *more]
        return CliRunner().invoke(cli, arguments, env={"COLUMNS": "200"})


@pytest.fixture(params=["sqlite", "postgresql"])
def desk(request: pytest.FixtureRequest, tmp_path: Path) -> Desk:
    in_a_file = request.param == "sqlite"
    return Desk(tmp_path, str(tmp_path / "journal.db") if in_a_file else request.getfixturevalue("postgresql"))


def test_what_waits_is_listed_for_who_may_answer_it(desk: Desk) -> None:
    assert "a guest must ask" in desk("list").output
    assert "nothing waits for you" in desk("list", who=("--as", "user:ana", "--role", "guest")).output


def test_a_question_is_shown_with_its_reasons_and_what_would_change(desk: Desk) -> None:
    shown = desk("show").output
    for part in ("user:ana", "shaped by user:ana", "rules:3: a guest must ask within 4h", "-fish", "+meat", "expires"):
        assert part in shown


def test_a_yes_and_a_no_reach_the_run(desk: Desk) -> None:
    assert desk("approve", "--note", "fine").exit_code == 0
    assert isinstance(desk("approve").exception, NotWaiting)
    assert asyncio.run(desk.resume()) is RunStatus.DONE
    assert desk.notes["menu"] == "soup\nmeat"


def test_a_no_reaches_the_run(desk: Desk) -> None:
    assert desk("deny").exit_code == 0
    assert asyncio.run(desk.resume()) is RunStatus.DONE
    assert desk.notes["menu"] == "soup\nfish"


def test_who_may_not_answer_is_told_so_and_nothing_happens(desk: Desk) -> None:
    refused = desk("approve", who=("--as", "user:carla"))
    assert isinstance(refused.exception, ActionDenied)
    assert isinstance(desk("show", who=("--as", "user:ana")).exception, NotWaiting)
    assert "a guest must ask" in desk("list").output


def test_a_yes_stands_once_its_line_was_confirmed_and_can_be_taken_back(desk: Desk) -> None:
    bounds = ("--uses", "3", "--for", "2d", "--any", "text")
    asked = CliRunner().invoke(
        cli,
        ["approvals", "approve", desk.journal, "r", *CARLA, "--policy", str(desk.policy), *bounds],
        input="n\n",
    )
    assert 'allow user:ana call tool:edit where name = "menu" and text any from user:ana' in asked.output
    assert "nothing was answered" in asked.output
    assert desk("approve", *bounds, "--yes").exit_code == 0
    listed = desk("standing").output
    assert "0 of 3" in listed
    assert asyncio.run(desk.ask("second")) is RunStatus.DONE
    assert "1 of 3" in desk("standing").output
    id_ = listed.splitlines()[3].split()[1]
    assert desk("standing", "--revoke", id_).exit_code == 0
    assert asyncio.run(desk.ask("third")) is RunStatus.WAITING
