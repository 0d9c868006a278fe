"""Why a run did what it did, as far as each reader may know."""

from __future__ import annotations

import pytest

from ringwall import App, MemoryStore, call, tool
from ringwall.data.base import Chunk
from ringwall.deployment.checkpoints import CHECKPOINTS, checkpoint
from ringwall.deployment.explain import Explanation, Outcome, explain
from ringwall.deployment.guard import Crossing, Guard, Passing, Ruling
from ringwall.deployment.journal import Event
from ringwall.errors import GuardRefused, InvalidInput, RingwallError, UnknownRun
from ringwall.label import Label
from ringwall.model.base import ModelRequest
from ringwall.model.scripted import Line
from ringwall.personalization.base import Memory
from ringwall.personalization.memory import InMemoryMemories
from ringwall.principal import ACL, Principal
from ringwall_audit import SecretKey
from tests.scenes import ANA, BEN, CARLA, RULES, app_with, booking_tool, chunk, library

pytestmark = pytest.mark.asyncio

EVE = Principal.user("eve", "auditor")
AUDITED = f"""{RULES}
allow role:auditor audit app:app
grant role:guest collection:menus
grant tool:* collection:menus
grant role:manager collection:menus
"""
MENU = chunk("a corner table is free", "collection:menus", document="menu.md")
BOOKED: list[Line] = [call("book", table="corner"), "It is booked, see [1]."]


async def app_that(script: list[Line], *passages: Chunk, rules: str = AUDITED) -> App:
    documents = await library(*passages) if passages else MemoryStore()
    return app_with(script, rules=rules, documents=documents, tools=[booking_tool([])])


def outcome(explanation: Explanation, kind: str) -> Outcome:
    (found,) = [each for each in explanation.outcomes if each.kind == kind]
    return found


async def test_an_action_names_what_it_rests_on_which_rule_and_who_approved() -> None:
    async with await app_that(BOOKED, MENU) as app:
        await app.ask("book a corner table", as_=ANA, run="r")
        assert outcome(await app.explain("r", as_=ANA), "waiting").what.startswith("for an answer about book")
        await app.approve("r", by=CARLA, note="go on")
        await app.resume("r")
        told = await app.explain("r", as_=ANA)
    assert (told.asked, told.why) == ("user:ana: book a corner table", "the policy let user:ana ask app:app")
    passage, result = told.seen
    assert (passage.name, passage.what) == ("D1", "passage menu.md#0")
    assert passage.why == "for collection:menus: user:ana held collection:menus"
    assert (result.name, result.what) == ("T1", 'result of book {"table":"corner"}')
    action = outcome(told, "action")
    assert action.what == 'book {"table":"corner"}'
    assert (action.sources, action.rests_on) == (("doc:menu.md", "user:ana"), ("D1",))
    assert action.why == (
        "a person had to be asked by rules:4: a document may not book",
        "approved by user:carla: go on",
        "started, as approved",
        "done",
    )


async def test_an_answer_names_what_it_rests_on_and_cites() -> None:
    async with await app_that(BOOKED, MENU) as app:
        await app.ask("book a corner table", as_=ANA, run="r")
        await app.approve("r", by=CARLA)
        await app.resume("r")
        told = outcome(await app.explain("r", as_=ANA), "answer")
    assert told.what == "It is booked, see [1]."
    assert told.rests_on == ("D1", "T1")
    assert "cites menu.md 0-22" in told.why
    assert "for collection:menus: user:ana held collection:menus" in told.why[0]
    assert told.sources == ("doc:menu.md", "tool:book", "user:ana")


async def test_a_call_asked_for_before_anything_was_read_rests_on_the_question_alone() -> None:
    async with await app_that([call("book", table="corner"), "It is booked."], MENU) as app:
        await app.ask("book a corner table", as_=ANA, intent=["book"], run="r")
        told = await app.explain("r", as_=ANA)
    action = outcome(told, "action")
    assert (action.sources, action.rests_on) == (("user:ana",), ())
    assert action.why[0].startswith("allowed by rules:3: ")
    assert "the user's own action named: book" in told.why


async def test_a_refused_call_names_the_rule() -> None:
    rules = AUDITED.replace("ask   doc:*", "deny  doc:*")
    async with await app_that(BOOKED, MENU, rules=rules) as app:
        await app.ask("book a corner table", as_=ANA, run="r")
        (why,) = outcome(await app.explain("r", as_=ANA), "action").why
    assert why.startswith("refused by rules:4: book was refused: a document may not book")


async def test_memories_are_named_with_whose_they_are() -> None:
    memories = InMemoryMemories()
    label = Label.of(ACL((ANA.own_grant,)))
    await memories.add(ANA, [Memory("m1", ANA.own_grant, "likes a corner table", label)])
    async with app_with(["Noted."], memories=memories) as app:
        await app.ask("which table do I like?", as_=ANA, run="r")
        (seen,) = (await app.explain("r", as_=ANA)).seen
    assert seen.what == "memory m1"
    assert seen.why == "user:ana's own; for user:ana: user:ana held user:ana"


async def test_a_run_is_explained_to_its_owner_and_to_auditors_alone() -> None:
    async with await app_that(["hi"]) as app:
        await app.ask("hello", as_=ANA, run="r")
        for stranger in (BEN, CARLA):
            with pytest.raises(UnknownRun):
                await app.explain("r", as_=stranger)


async def test_an_auditor_is_told_nothing_that_the_labels_keep_from_it() -> None:
    secret = chunk("a corner table for SECRET guests", "collection:menus", document="secret-menu.md")
    async with await app_that(BOOKED, secret) as app:
        await app.ask("book a corner table", as_=ANA, run="r")
        told = await app.explain("r", as_=EVE)
        assert told.withheld == len(await app.events("r", as_=ANA))
        assert (told.asked, told.seen, told.outcomes) == ("", (), ())


async def test_an_auditor_who_may_read_the_question_is_told_of_nothing_after_the_secret_passage() -> None:
    rules = f"{AUDITED}\ngrant role:auditor collection:questions"
    secret = chunk("a corner table for SECRET guests", "collection:menus", document="secret-menu.md")
    async with await app_that(BOOKED, secret, rules=rules) as app:
        await app.ask("book a corner table", as_=ANA, run="r")
        told = await app.explain("r", as_=EVE)
    assert told.asked == "user:ana: book a corner table"
    assert "secret" not in repr(told).lower()
    assert told.withheld > 0


async def test_a_failed_run_says_what_went_wrong() -> None:
    def broken(_: ModelRequest) -> Line:
        raise RuntimeError("the model fell over")

    async with app_with(broken) as app:
        with pytest.raises(RingwallError):
            await app.ask("hello", as_=ANA, run="r")
        assert "fell over" in outcome(await app.explain("r", as_=ANA), "failed").what


async def test_the_checkpoints_are_no_run_of_an_app() -> None:
    async with await app_that(["hi"]) as app:
        await app.ask("hello", as_=ANA)
        assert await checkpoint(app.journal, SecretKey.generate())
        for ask in (app.explain(CHECKPOINTS, as_=ANA), app.events(CHECKPOINTS, as_=EVE), app.resume(CHECKPOINTS)):
            with pytest.raises(UnknownRun):
                await ask


async def test_what_another_version_wrote_is_refused() -> None:
    event = Event("r", 0, "run.started", 0.0, "", '{"app":"app"}', "", "")
    with pytest.raises(InvalidInput, match="not as this version writes it"):
        explain([event])
    with pytest.raises(InvalidInput):
        explain([])


# Guards


class Swap(Guard):
    """Puts one word in place of another, or refuses it."""

    def __init__(self, word: str, *crossings: Crossing, refuses: bool = False) -> None:
        self.word, self.crossings, self.refuses = word, frozenset(crossings), refuses
        self.name = f"no-{word.lower()}"

    async def inspect(self, passing: Passing) -> Ruling:
        count = passing.text.count(self.word)
        rest = passing.text.replace(self.word, "***")
        return Ruling(rest, {"word": count} if count else {}, refused=bool(count) and self.refuses)


def guarded(explanation: Explanation) -> list[tuple[object, ...]]:
    return [(g.guard, g.did, g.at, g.receiver, dict(g.found), g.mattered) for g in explanation.guarded]


async def test_it_tells_what_each_guard_found_and_did_and_nothing_of_the_text() -> None:
    guards = [Swap("KEY", Crossing.QUESTION, Crossing.ANSWER), Swap("GIFT", Crossing.PROMPT)]
    async with app_with(["your KEY and the other KEY"], rules=AUDITED, guards=guards) as app:
        await app.ask("is my KEY good?", as_=ANA, run="r")
        told = await app.explain("r", as_=ANA)
    assert guarded(told) == [
        ("no-key", "rewrote", "question", "user:ana", {"word": 1}, True),
        ("no-gift", "passed", "prompt", "model:scripted", {}, False),
        ("no-key", "rewrote", "answer", "user:ana", {"word": 2}, True),
    ]
    assert "KEY" not in repr(told)


async def test_it_tells_which_guard_let_nothing_pass() -> None:
    async with app_with(["a KEY"], rules=AUDITED, guards=[Swap("KEY", Crossing.ANSWER, refuses=True)]) as app:
        with pytest.raises(GuardRefused):
            await app.ask("hello", as_=ANA, run="r")
        told = await app.explain("r", as_=ANA)
    assert guarded(told) == [("no-key", "refused", "answer", "user:ana", {"word": 1}, True)]
    assert "no-key" in outcome(told, "failed").what


async def test_what_a_guard_found_in_a_result_is_told_to_nobody_who_may_not_read_the_result() -> None:
    """Also where the run had read nothing of that kind before, and only one field of the result is restricted."""
    rules = f"{AUDITED}\nallow user:* call tool:*\ngrant role:auditor collection:questions"
    anas = Label.of(ACL((ANA.own_grant,)))
    for label, fields in ((anas, {}), (Label(), {"key": anas})):

        @tool(effect="read", label=label, fields=fields)
        async def look() -> str:
            return '{"key": "KEY"}'

        guards = [Swap("KEY", Crossing.RESULT)]
        async with app_with([call("look"), "fine"], rules=rules, tools=[look], guards=guards) as app:
            await app.ask("hello", as_=ANA, run="r")
            mine, eves = await app.explain("r", as_=ANA), await app.explain("r", as_=EVE)
        assert guarded(mine) == [("no-key", "rewrote", "result", "tool:look", {"word": 1}, True)]
        assert eves.asked == "user:ana: hello"
        assert eves.guarded == ()
