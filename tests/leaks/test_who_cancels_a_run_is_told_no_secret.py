"""Cancelling is a way into somebody else's run: it tells nothing of what the run has read, was asked or did."""

from __future__ import annotations

import asyncio

import pytest

from ringwall import App, Principal, Rules, RunStatus, ScriptedModel, call, tool
from ringwall.errors import UnknownRun
from ringwall.model.scripted import Line

ANA = Principal.user("ana", "guest")
GUARD = Principal.user("gus", "guard")
SECRET = "the code is 4711"
RULES = """
allow role:guest ask app:app
allow role:guest call tool:*
allow tool:* call tool:*
grant tool:* collection:questions
grant tool:* user:ana
allow role:guard cancel app:app
allow role:guard approve tool:*
"""


async def test_who_may_cancel_but_not_read_is_not_shown_what_the_undo_is_about() -> None:
    @tool(effect="write")
    async def note(text: str) -> str:
        """Note a text."""
        return f"noted: {text}"

    @note.undone_by
    async def unnote(result: str) -> str:
        return f"forgot {result}"

    @tool(effect="write")
    async def book() -> str:
        """Book."""
        return "booked"

    asks = "ask role:guest call tool:book\nask role:guest call tool:note.undo\n"
    script: list[Line] = [call("note", text=SECRET), call("book"), "Done."]
    app = App(policy=Rules(RULES + asks), model=ScriptedModel(script), tools=[note, book])
    assert (await app.ask(f"Note that {SECRET}", as_=ANA, run="r")).waiting
    await cancelled_by_a_guard(app)
    (question,) = (await app.resume("r")).waiting  # as the one who asked is shown it
    assert (question.tool, SECRET in question.arguments) == ("note.undo", True)


async def test_who_may_cancel_but_not_read_is_not_shown_what_is_in_doubt() -> None:
    begun = asyncio.Event()

    @tool(effect="write")
    async def note(text: str) -> str:
        """Never return."""
        begun.set()
        await asyncio.Event().wait()
        return text

    app = App(policy=Rules(RULES), model=ScriptedModel([call("note", text=SECRET)]), tools=[note], lease=0)
    task = asyncio.ensure_future(app.ask(f"Note that {SECRET}", as_=ANA, run="r"))
    await begun.wait()
    other = App(policy=Rules(RULES), model=ScriptedModel(["-"]), tools=[note], journal=app.journal)
    await cancelled_by_a_guard(other)
    (question,) = (await other.resume("r")).waiting
    assert (question.in_doubt, SECRET in question.arguments) == (True, True)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def cancelled_by_a_guard(app: App) -> None:
    result = await app.cancel("r", by=GUARD, why="closing time")
    assert (result.status, result.waiting, result.text) == (RunStatus.WAITING, (), "")
    assert await app.waiting(as_=GUARD) == []
    with pytest.raises(UnknownRun):
        await app.events("r", as_=GUARD)
