"""Declassification: another right than approval, over each list of readers in the way, for one exact call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from ringwall import ACL, App, Principal, RunStatus, call, tool
from ringwall.deployment import Objection
from ringwall.errors import ActionDenied, FlowDenied, NotWaiting
from ringwall.model.scripted import Line
from tests.core.test_questions import Clock
from tests.scenes import ANA, CARLA, app_with, chunk, library

DPO = Principal.user("dan", "dpo")
HALF = Principal.user("hal", "half")
BLIND = Principal.user("bea", "blind")
RULES = """
allow role:guest ask app:app
allow role:guest call tool:*
allow doc:* call tool:*
allow tool:* call tool:*
grant role:guest collection:hr
grant role:dpo collection:hr
grant role:half collection:hr
grant role:dpo collection:questions
grant role:half collection:questions
grant role:manager collection:hr
grant role:manager collection:questions
allow role:manager approve tool:*
allow role:dpo declassify *
allow role:blind declassify *
allow role:half declassify collection:*
"""
MAY_ASK = """
ask role:guest declassify tool:mail because "it leaves the house"
ask doc:* declassify tool:mail because "it leaves the house"
"""
MAIL: list[Line] = [call("mail", to="bo", text="a raise"), "Done."]


async def scene(
    sent: list[tuple[str, str]],
    *,
    rules: str = MAY_ASK,
    script: Sequence[Line] | Callable[..., Line] = MAIL,
    clock: Clock | None = None,
) -> App:
    @tool(effect="write", recipients=("to",))
    def mail(to: str, text: str) -> str:
        "Send a mail."
        sent.append((to, text))
        return "sent"

    documents = await library(chunk("the raise is secret", "collection:hr", document="pay.md"))
    return app_with(script, rules=RULES + rules, tools=[mail], documents=documents, clock=clock or Clock())


async def test_without_a_rule_that_lets_people_be_asked_a_secret_is_refused_at_once() -> None:
    sent: list[tuple[str, str]] = []
    async with await scene(sent, rules="") as app:
        assert (await app.ask("the raise?", as_=ANA, run="r")).status is RunStatus.DONE
    assert sent == []


async def test_whoever_holds_the_right_over_every_list_lets_one_exact_call_through() -> None:
    sent: list[tuple[str, str]] = []
    async with await scene(sent) as app:
        await app.ask("the raise?", as_=ANA, run="r")
        (question,) = await app.waiting(as_=DPO)
        assert question.reason == "it leaves the house"
        assert set(question.objections) == {
            Objection("to:bo", ACL.of("collection:hr")),
            Objection("to:bo", ACL.of("user:ana", "collection:questions")),
        }
        await app.declassify("r", by=DPO, note="agreed with ana")
        assert (await app.resume("r")).text == "Done."
        (told,) = [event.body for event in await app.events("r", as_=ANA) if event.kind == "call.declassified"]
        assert "agreed with ana" in told
        (action, _) = (await app.explain("r", as_=ANA)).outcomes
        assert "declassified by user:dan: agreed with ana" in action.why
    assert sent == [("bo", "a raise")]


@pytest.mark.parametrize(
    ("who", "error", "match"),
    [
        (CARLA, ActionDenied, "may not declassify"),
        (HALF, ActionDenied, "may not declassify"),
        (BLIND, FlowDenied, "may not be shown"),
        (ANA, ActionDenied, "cannot approve"),
    ],
    ids=["approver", "over one of the two", "may not read it", "asker"],
)
async def test_nobody_else_may(who: Principal, error: type[Exception], match: str) -> None:
    sent: list[tuple[str, str]] = []
    async with await scene(sent) as app:
        await app.ask("the raise?", as_=ANA, run="r")
        assert await app.waiting(as_=who) == []
        with pytest.raises(error, match=match):
            await app.declassify("r", by=who)
        await app.resume("r")
    assert sent == []


async def test_an_approval_is_no_declassification_and_the_other_way_round() -> None:
    sent: list[tuple[str, str]] = []
    rules = MAY_ASK + "ask role:guest call tool:mail\nallow role:dpo approve tool:*\n"
    async with await scene(sent, rules=rules) as app:
        await app.ask("the raise?", as_=ANA, run="r")
        with pytest.raises(FlowDenied, match="an approval lets nothing flow"):
            await app.approve("r", by=DPO)
        await app.declassify("r", by=DPO)
        (question,) = (await app.resume("r")).waiting
        assert question.objections == ()
        with pytest.raises(NotWaiting, match="waits for an approval"):
            await app.declassify("r", by=DPO)
        assert sent == []
        await app.approve("r", by=CARLA)
        await app.resume("r")
    assert sent == [("bo", "a raise")]


async def test_it_is_for_one_call_and_the_same_call_again_is_asked_about_again() -> None:
    sent: list[tuple[str, str]] = []
    rules = MAY_ASK + "ask tool:* declassify tool:mail\n"
    async with await scene(sent, rules=rules, script=[MAIL[0], MAIL[0], "Done."]) as app:
        await app.ask("the raise?", as_=ANA, run="r")
        await app.declassify("r", by=DPO)
        again = await app.resume("r")
        assert again.status is RunStatus.WAITING
        assert [question.call for question in again.waiting] == ["1.0"]
    assert sent == [("bo", "a raise")]


async def test_what_was_denied_is_told_to_the_model_and_not_asked_again() -> None:
    sent: list[tuple[str, str]] = []
    async with await scene(sent) as app:
        await app.ask("the raise?", as_=ANA, run="r")
        await app.deny("r", by=DPO)
        assert (await app.resume("r")).status is RunStatus.DONE
    assert sent == []


async def test_it_runs_out_also_while_the_call_waits_for_an_approval() -> None:
    sent: list[tuple[str, str]] = []
    clock = Clock()
    rules = MAY_ASK.replace('house"', 'house" within 1h') + "ask role:guest call tool:mail\n"
    async with await scene(sent, rules=rules, clock=clock) as app:
        await app.ask("the raise?", as_=ANA, run="r")
        await app.declassify("r", by=DPO)
        await app.resume("r")
        clock.now += 3600
        with pytest.raises(NotWaiting):
            await app.approve("r", by=CARLA)
        await app.resume("r")
    assert sent == []


async def test_what_the_policy_forbids_is_not_asked_about() -> None:
    sent: list[tuple[str, str]] = []
    async with await scene(sent, rules=MAY_ASK + "deny doc:* call tool:mail\n") as app:
        assert (await app.ask("the raise?", as_=ANA, run="r")).status is RunStatus.DONE
    assert sent == []
