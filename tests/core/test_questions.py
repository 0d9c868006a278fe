"""What people are asked, who of them may answer, and until when: by the terms of the rule that asks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ringwall import ACL, App, InMemoryJournal, Label, Principal, RunStatus, call, tool
from ringwall.errors import ActionDenied, JournalConflict, NotWaiting
from ringwall.interface import Change
from ringwall.model import Reply, RequestedCall
from ringwall.model.scripted import Line
from ringwall_sql import SqlJournal
from tests.scenes import ANA, BEN, CARLA, app_with, booking_tool

DORA = Principal.user("dora", "manager")
EVE = Principal.user("eve", "director")
RULES = """
allow role:guest ask app:app
grant tool:* collection:questions
grant role:manager collection:questions
grant role:director collection:questions
allow role:manager approve tool:*
allow role:director approve tool:*
allow role:guest approve tool:*
"""
BOOK: list[Line] = [call("book", table="7"), "Done."]
THREE = Reply(calls=tuple(RequestedCall(f"x{n}", "book", f'{{"table": "{n}"}}') for n in range(3)), finish="tool_calls")


class Clock:
    """A clock that is moved by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def scene(booked: list[str], terms: str = "", *, script: Sequence[Line] = BOOK, rules: str = "", **parts: Any) -> App:
    asks = f'ask role:guest call tool:* because "a guest must ask" {terms}\n'
    return app_with(script, rules=RULES + rules + asks, **{"tools": [booking_tool(booked)], **parts})


async def who_is_asked(app: App, *people: Principal) -> list[str]:
    return [who.id for who in people if await app.waiting(as_=who)]


# Who


async def test_a_rule_names_who_is_asked() -> None:
    async with scene([], "of role:director,user:dora") as app:
        await app.ask("book", as_=ANA, run="r")
        assert await who_is_asked(app, ANA, CARLA, DORA, EVE) == ["user:dora", "user:eve"]
        with pytest.raises(ActionDenied, match="not among those who are asked"):
            await app.approve("r", by=CARLA)


async def test_whoever_is_named_needs_the_right_all_the_same() -> None:
    async with scene([], "of role:staff", rules="deny role:staff approve tool:*\n") as app:
        await app.ask("book", as_=ANA, run="r")
        assert await who_is_asked(app, BEN, CARLA) == []


async def test_the_one_who_asked_answers_itself_only_where_the_rule_says_so() -> None:
    for terms, expected in (("", []), ("or asker", ["user:ana"])):
        async with scene([], terms) as app:
            await app.ask("book", as_=ANA, run="r")
            assert await who_is_asked(app, ANA) == expected


async def test_as_many_different_people_say_yes_as_the_rule_wants() -> None:
    booked: list[str] = []
    async with scene(booked, "needing 2") as app:
        await app.ask("book", as_=ANA, run="r")
        await app.approve("r", by=CARLA)
        with pytest.raises(ActionDenied, match="has answered already"):
            await app.approve("r", by=CARLA)
        (question,) = await app.waiting(as_=DORA)
        assert (question.yes, question.lacking) == (("user:carla",), 1)
        assert (await app.resume("r")).status is RunStatus.WAITING
        assert booked == []
        await app.approve("r", by=DORA)
        await app.resume("r")
    assert booked == ["7"]


async def test_one_no_is_enough_however_many_said_yes() -> None:
    booked: list[str] = []
    async with scene(booked, "needing 2") as app:
        await app.ask("book", as_=ANA, run="r")
        await app.approve("r", by=CARLA)
        await app.deny("r", by=DORA)
        await app.resume("r")
        with pytest.raises(NotWaiting):
            await app.approve("r", by=EVE)
    assert booked == []


async def test_each_rule_that_asks_because_of_another_source_wants_its_own_yes() -> None:
    rules = "ask tool:look call tool:book of role:director\n"
    booked: list[str] = []

    @tool(effect="read", label=Label.of(None, "tool:look"))
    def look() -> str:
        "Look."
        return "a table"

    script: list[Line] = [call("look"), call("book", table="7"), "Done."]
    tools = [booking_tool(booked), look]
    async with scene(booked, "of role:manager", rules=rules, script=script, tools=tools) as app:
        await app.ask("book", as_=ANA, run="r")
        await app.approve("r", by=CARLA)  # to look
        (question,) = (await app.resume("r")).waiting
        assert {ask.rule: ask.terms.of for ask in question.asks} == {
            "rules:9": {"role:director"},
            "rules:10": {"role:manager"},
        }
        assert question.influences == {"table": ("tool:look", "user:ana")}
        await app.approve("r", by=CARLA)
        assert (await app.resume("r")).status is RunStatus.WAITING
        await app.approve("r", by=EVE)
        assert (await app.resume("r")).status is RunStatus.DONE
    assert booked == ["7"]


# When


async def test_a_question_that_nobody_answers_in_time_counts_as_declined_also_after_a_restart() -> None:
    booked: list[str] = []
    clock, journal = Clock(), InMemoryJournal()
    async with scene(booked, "within 1h", clock=clock, journal=journal) as app:
        await app.ask("book", as_=ANA, run="r")
    async with scene(booked, "within 1h", clock=clock, journal=journal, script=["Pity."]) as later:
        (question,) = await later.waiting(as_=CARLA)
        assert question.expires == clock.now + 3600
        clock.now += 3600
        assert await later.waiting(as_=CARLA) == []
        assert await later.desk.lapsed() == ["r"]
        for _ in range(2):
            with pytest.raises(NotWaiting):
                await later.approve("r", by=CARLA)
        assert (await later.resume("r")).text == "Pity."
        told = [event.body for event in await later.events("r", as_=ANA) if event.kind == "call.refused"]
        assert "nobody approved it in time" in told[0]
    assert booked == []


async def test_who_looks_at_a_question_that_lapsed_has_that_written_down_and_workers_go_on_at_once() -> None:
    booked: list[str] = []
    clock, journal = Clock(), InMemoryJournal()
    async with scene(booked, "within 1h", clock=clock, journal=journal, script=[*BOOK[:1], "Pity."]) as app:
        await app.ask("book", as_=ANA, run="r")
        working = asyncio.ensure_future(app.work(every=0.01))
        await asyncio.sleep(0.1)  # it has looked at the run, and looks again when something happened in it
        clock.now += 3600
        await asyncio.sleep(0.1)
        assert (await journal.record("r")).status is RunStatus.WAITING
        assert await app.waiting(as_=BEN) == []  # whoever looks, also one who may not answer
        async with asyncio.timeout(20):
            while (await journal.record("r")).status is not RunStatus.DONE:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        (told,) = [each for each in (await app.explain("r", as_=ANA)).outcomes if each.kind == "action"]
    assert "nobody answered in time" in told.why
    assert booked == []


async def test_a_question_that_lapsed_is_written_down_once_however_often_it_is_looked_at() -> None:
    clock = Clock()
    async with scene([], "within 1h", clock=clock) as app:
        await app.ask("book", as_=ANA, run="r")
        clock.now += 3600
        await asyncio.gather(*(app.waiting(as_=CARLA) for _ in range(5)))
        assert await app.waiting(as_=CARLA) == []
        kinds = [event.kind for event in await app.events("r", as_=ANA)]
        assert (kinds.count("call.expired"), kinds[-1]) == (1, "call.expired")
        assert await app.desk.lapsed() == ["r"]


async def test_a_yes_that_is_not_used_in_time_is_worth_nothing() -> None:
    booked: list[str] = []
    clock = Clock()
    async with scene(booked, "within 1h", clock=clock) as app:
        await app.ask("book", as_=ANA, run="r")
        clock.now += 3599
        await app.approve("r", by=CARLA)
        clock.now += 3600
        await app.resume("r")
    assert booked == []


async def test_an_answer_in_time_gives_time_to_use_it() -> None:
    booked: list[str] = []
    clock = Clock()
    async with scene(booked, "within 1h", clock=clock) as app:
        await app.ask("book", as_=ANA, run="r")
        clock.now += 3599
        await app.approve("r", by=CARLA)
        clock.now += 3599
        await app.resume("r")
    assert booked == ["7"]


@pytest.mark.parametrize(("only", "after"), [("", ["user:carla", "user:eve"]), ("only", ["user:eve"])])
async def test_after_a_time_others_may_or_must_answer_and_that_is_seen(only: str, after: list[str]) -> None:
    clock = Clock()
    async with scene([], f"of role:manager then {only} role:director after 30m", clock=clock) as app:
        await app.ask("book", as_=ANA, run="r")
        (before,) = await app.waiting(as_=CARLA)
        assert (before.escalates, before.escalated) == (clock.now + 1800, False)
        assert await who_is_asked(app, CARLA, EVE) == ["user:carla"]
        clock.now += 1800
        assert await who_is_asked(app, CARLA, EVE) == after
        assert all(question.escalated for question in await app.waiting(as_=EVE))


# Several


async def test_several_open_calls_are_approved_together_or_not_at_all() -> None:
    booked: list[str] = []
    async with scene(booked, script=[THREE, "Done."]) as app:
        await app.ask("book", as_=ANA, run="r")
        with pytest.raises(NotWaiting):
            await app.approve("r", by=CARLA, call=["0.0", "9.9"])
        assert len(await app.waiting(as_=CARLA)) == 3
        await app.approve("r", by=CARLA, call=["0.0", "0.2"])
        await app.deny("r", by=CARLA, call=["0.1"])
        await app.resume("r")
    assert booked == ["0", "2"]


async def test_of_two_answers_at_once_one_is_too_late(tmp_path: Path) -> None:
    async with scene([], "needing 2", journal=SqlJournal(tmp_path / "journal.db")) as app:
        await app.ask("book", as_=ANA, run="r")
        answers = await asyncio.gather(app.approve("r", by=CARLA), app.approve("r", by=DORA), return_exceptions=True)
        assert [type(answer) for answer in answers if answer] == [JournalConflict]
        assert [question.lacking for question in await app.waiting(as_=EVE)] == [1]


# What is shown

SECRET = ACL.of("role:director")


def editing_tool(notes: dict[str, str], label: Label | None = None) -> Any:
    def preview(name: str, text: str) -> Change:
        return Change(notes.get(name, ""), text, name, label)

    @tool(effect="write", label=Label(), preview=preview)
    def edit(name: str, text: str) -> str:
        "Write a note."
        notes[name] = text
        return "written"

    return edit


async def test_a_tool_that_can_say_it_shows_what_would_change_and_changes_nothing() -> None:
    notes = {"menu": "soup\nfish"}
    script: list[Line] = [call("edit", name="menu", text="soup\nmeat"), "Done."]
    async with scene([], script=script, tools=[editing_tool(notes)]) as app:
        await app.ask("edit", as_=ANA, run="r")
        (question,) = await app.waiting(as_=CARLA)
        assert question.preview.splitlines()[-2:] == ["-fish", "+meat"]
        assert not question.withheld
        assert notes == {"menu": "soup\nfish"}
        await app.approve("r", by=CARLA)
        await app.resume("r")
    assert notes == {"menu": "soup\nmeat"}


async def test_what_a_preview_shows_reaches_only_who_may_read_it_and_not_the_run() -> None:
    notes = {"menu": "the wine is secret"}
    script: list[Line] = [call("edit", name="menu", text="new"), "Done."]
    label = Label.of(SECRET, "doc:cellar")
    async with scene([], script=script, tools=[editing_tool(notes, label)]) as app:
        asked = await app.ask("edit", as_=ANA, run="r")
        (for_carla,), (for_eve,) = await app.waiting(as_=CARLA), await app.waiting(as_=EVE)
        assert [(q.preview, q.withheld) for q in (*asked.waiting, for_carla)] == [("", True)] * 2
        assert "the wine is secret" in for_eve.preview
        await app.approve("r", by=CARLA)
        done = await app.resume("r")
        assert done.text == "Done."
        assert "secret" not in repr(await app.events("r", as_=ANA))
        assert "cellar" not in repr(await app.events("r", as_=ANA))


async def test_a_preview_that_fails_leaves_the_question_as_it_is() -> None:
    def preview(table: str) -> str:
        raise KeyError(table)

    @tool(effect="write", label=Label(), preview=preview)
    def book(table: str) -> str:
        "Book."
        return "booked"

    async with scene([], tools=[book]) as app:
        await app.ask("book", as_=ANA, run="r")
        (question,) = await app.waiting(as_=CARLA)
        assert question.preview == "book could not say what it would change: KeyError"
