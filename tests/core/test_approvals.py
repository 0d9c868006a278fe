"""Approvals: for one call with exactly its arguments, by somebody who may, once; also in another process."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import App, Label, Principal, RunStatus, call
from ringwall.errors import ActionDenied, ChainBroken, FlowDenied, InvalidInput, NotWaiting, RingwallError, UnknownRun
from ringwall.model import Reply, RequestedCall
from ringwall.model.scripted import Line
from ringwall_sql import SqlJournal
from tests.scenes import ANA, BEN, CARLA, app_with, booking_tool

RULES = """
allow role:guest ask app:app
ask role:guest call tool:*
grant tool:* collection:questions
grant role:manager collection:questions
allow role:manager approve tool:*
"""
ANA_WHO_MANAGES = Principal.user("ana", "guest", "manager")
ELSEWHERE = Principal.user("carla", "manager", tenant="beta")
PEEKER = Principal.user("pia", "peeker")
BOOK: list[Line] = [call("book", table="7"), "Done."]
THREE = Reply(calls=tuple(RequestedCall(f"x{n}", "book", f'{{"table": "{n}"}}') for n in range(3)), finish="tool_calls")


def build(
    path: Path, booked: list[str], *, script: Sequence[Line] | Callable[..., Line] = BOOK, rules: str = RULES
) -> App:
    return app_with(script, rules=rules, tools=[booking_tool(booked)], journal=SqlJournal(path))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_a_call_that_must_be_asked_about_waits_and_is_made_once_after_a_yes(path: Path) -> None:
    booked: list[str] = []
    async with build(path, booked) as app:
        result = await app.ask("book", as_=ANA, run="r")
        (question,) = await app.waiting(as_=CARLA)
        assert result.waiting == (question,)
        assert (question.tool, question.arguments, question.requester) == ("book", '{"table":"7"}', "user:ana")
        assert (await app.resume("r")).status is RunStatus.WAITING
        assert booked == []
        await app.approve("r", by=CARLA, note="a birthday")
        assert await app.waiting(as_=CARLA) == []
        assert (await app.resume("r")).text == (await app.resume("r")).text == "Done."
        bodies = {event.kind: event.body for event in await app.events("r", as_=ANA)}
    assert booked == ["7"]
    assert "a birthday" in bodies["call.approved"]
    assert '"by":"user:carla"' in bodies["call.approved"].replace(" ", "")


@pytest.mark.parametrize("who", [ANA, ANA_WHO_MANAGES, BEN, ELSEWHERE], ids=lambda who: f"{who.tenant}{who.own_grant}")
async def test_neither_the_asker_nor_who_has_no_right_nor_another_tenant_may_see_or_answer(
    path: Path, who: Principal
) -> None:
    booked: list[str] = []
    async with build(path, booked) as app:
        await app.ask("book", as_=ANA, run="r")
        assert await app.waiting(as_=who) == []
        for answer in (app.approve, app.deny):
            with pytest.raises(ActionDenied):
                await answer("r", by=who)
        assert (await app.resume("r")).status is RunStatus.WAITING
    assert booked == []


async def test_who_may_approve_but_may_not_be_shown_the_arguments_is_not_asked(path: Path) -> None:
    rules = RULES + "allow role:peeker approve tool:*"
    async with build(path, [], rules=rules) as app:
        await app.ask("book", as_=ANA, run="r")
        assert await app.waiting(as_=PEEKER) == []
        with pytest.raises(FlowDenied, match="may not be shown"):
            await app.approve("r", by=PEEKER)


async def test_a_no_is_told_to_the_model_and_the_run_goes_on(path: Path) -> None:
    booked: list[str] = []

    def model(request: object) -> Line:
        last = request.messages[-1]  # type: ignore[attr-defined]
        return last.content if last.type == "tool" else BOOK[0]

    async with build(path, booked, script=model) as app:
        await app.ask("book", as_=ANA, run="r")
        await app.deny("r", by=CARLA)
        assert (await app.resume("r")).text == "book was refused: user:carla declined it"
    assert booked == []


async def test_a_question_is_answered_once(path: Path) -> None:
    async with build(path, []) as app:
        await app.ask("book", as_=ANA, run="r")
        await app.approve("r", by=CARLA)
        for answer in (app.approve, app.deny):
            with pytest.raises(NotWaiting):
                await answer("r", by=CARLA)
        with pytest.raises(NotWaiting, match="no such open question"):
            await app.resolve("r", by=CARLA, happened=True)


async def test_of_two_who_answer_at_the_same_time_one_is_too_late(path: Path) -> None:
    booked: list[str] = []
    async with build(path, booked) as app, build(path, booked) as other:
        await app.ask("book", as_=ANA, run="r")
        answers = await asyncio.gather(app.approve("r", by=CARLA), other.deny("r", by=CARLA), return_exceptions=True)
        assert sum(isinstance(answer, RingwallError) for answer in answers) == 1
        await app.resume("r")
    assert booked == ([] if answers[1] is None else ["7"])


async def test_an_approval_is_for_one_call_and_the_same_call_again_is_asked_about_again() -> None:
    booked: list[str] = []
    tool, rules = booking_tool(booked, label=Label.of(None, "tool:book")), RULES + "ask tool:* call tool:*"
    async with app_with([BOOK[0], BOOK[0], "Done."], rules=rules, tools=[tool]) as app:
        await app.ask("book", as_=ANA, run="r")
        await app.approve("r", by=CARLA)
        second = await app.resume("r")
        assert booked == ["7"]
        assert [question.call for question in second.waiting] == ["1.0"]


async def test_parallel_calls_are_asked_about_one_by_one_and_answered_in_any_order(path: Path) -> None:
    booked: list[str] = []
    async with build(path, booked, script=[THREE, "Done."]) as app:
        questions = (await app.ask("book", as_=ANA, run="r")).waiting
        assert [q.arguments for q in questions] == [f'{{"table": "{n}"}}' for n in range(3)]
        with pytest.raises(InvalidInput, match=r"several open questions.*`call=`"):
            await app.approve("r", by=CARLA)
        with pytest.raises(NotWaiting, match="no such open question"):
            await app.approve("r", by=CARLA, call="9.9")
        await app.approve("r", by=CARLA, call=questions[2].call)
        assert (await app.resume("r")).status is RunStatus.WAITING
        assert booked == ["2"]
        await app.deny("r", by=CARLA, call=questions[0].call)
        await app.approve("r", by=CARLA, call=questions[1].call)
        assert (await app.resume("r")).text == "Done."
    assert booked == ["2", "1"]


async def test_another_process_asks_answers_and_goes_on(path: Path) -> None:
    booked: list[str] = []
    async with build(path, booked) as first:
        await first.ask("book", as_=ANA, run="r")
    async with build(path, booked) as second:
        (question,) = await second.waiting(as_=CARLA)
        await second.approve(question.run, by=CARLA, call=question.call)
    async with build(path, booked, script=["Done."]) as third:
        assert (await third.resume("r")).text == "Done."
        assert await third.verify()
    assert booked == ["7"]


@pytest.mark.parametrize("change", ["deny role:guest call tool:book", "deny tool:book call x"])
async def test_a_policy_that_forbids_the_call_meanwhile_is_obeyed_whatever_was_approved(
    path: Path, change: str
) -> None:
    booked: list[str] = []
    async with build(path, booked) as app:
        await app.ask("book", as_=ANA, run="r")
        await app.approve("r", by=CARLA)
    async with build(path, booked, script=["Done."], rules=RULES + change) as later:
        await later.resume("r")
    assert booked == ([] if "role:guest" in change else ["7"])


async def test_an_approver_whose_right_was_taken_away_answers_nothing_any_more(path: Path) -> None:
    async with build(path, []) as app:
        await app.ask("book", as_=ANA, run="r")
    async with build(path, [], rules=RULES.replace("allow role:manager approve tool:*", "")) as later:
        with pytest.raises(ActionDenied):
            await later.approve("r", by=CARLA)


@pytest.mark.parametrize("after_the_yes", [False, True])
async def test_arguments_changed_in_the_database_are_noticed_and_nothing_is_done(
    path: Path,
    after_the_yes: bool,  # noqa: FBT001 (pytest passes it)
) -> None:
    booked: list[str] = []
    async with build(path, booked) as app:
        await app.ask("book", as_=ANA, run="r")
        if after_the_yes:
            await app.approve("r", by=CARLA)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("""update events set body = replace(body, '7', '8')""")
    async with build(path, booked, script=["Done."]) as later:
        with pytest.raises(ChainBroken, match="was changed"):
            await later.approve("r", by=CARLA)
        with pytest.raises(ChainBroken, match="was changed"):
            await later.resume("r")
    assert booked == []


async def test_a_run_that_nobody_asked_waits_for_nothing(path: Path) -> None:
    async with build(path, []) as app:
        for work in (app.approve("r", by=CARLA), app.deny("r", by=CARLA), app.resume("r")):
            with pytest.raises(UnknownRun):
                await work


WHO = st.sampled_from([ANA, ANA_WHO_MANAGES, BEN, CARLA, ELSEWHERE])
CALLS = st.sampled_from([None, "0.0", "0.1", "0.2", "1.0"])
STEPS = st.lists(st.tuples(st.sampled_from(["approve", "deny", "resume", "reopen"]), WHO, CALLS), max_size=14)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_a_call_is_made_at_most_once_and_only_after_a_yes_of_somebody_who_may(
    steps: list[tuple[str, Principal, str | None]],
) -> None:
    asyncio.run(live_through(steps))


async def live_through(steps: list[tuple[str, Principal, str | None]]) -> None:
    booked: list[str] = []
    yes: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal.db")
        app = build(path, booked, script=[THREE, "Done."])
        await app.ask("book", as_=ANA, run="r")
        for what, who, which in steps:
            if what == "reopen":
                await app.close()
                app = build(path, booked, script=["Done."])
                continue
            asked = [question.call for question in await app.waiting(as_=CARLA)]
            with suppress(NotWaiting, ActionDenied, InvalidInput):
                if what == "resume":
                    await app.resume("r")
                    continue
                await getattr(app, what)("r", by=who, call=which)
                # No error: it was a question that was open, and `who` was somebody who may answer it.
                assert who == CARLA
                (answered,) = asked if which is None else [which]
                assert answered in asked
                yes += [answered] if what == "approve" else []
            assert len(set(booked)) == len(booked)
            assert {f"0.{table}" for table in booked} <= set(yes)
        await app.resume("r")
        assert await app.verify()
        await app.close()
