"""What another policy would have decided of what is in a journal, and who is told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import astuple, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import ACL, App, InMemoryJournal, Label, Principal, Rules, ScriptedModel, call, tool
from ringwall.deployment import Journal
from ringwall.deployment.simulation import Difference, Outcome, Simulation, simulate
from ringwall.errors import RingwallError
from ringwall.model.scripted import Line
from tests.deployment.generated import TEXTS

RULES = """allow role:guest ask app:app
allow role:guest call tool:*
ask   doc:* call tool:book because "a document may not book"
grant tool:* collection:questions
grant to:* collection:questions
grant role:manager collection:questions
allow role:manager approve tool:*
allow role:auditor audit app:app
grant role:auditor collection:questions
grant role:guest collection:menus
grant role:auditor collection:menus
grant tool:* collection:menus
grant role:manager collection:menus
"""
ANA, MIA = Principal.user("ana", "guest"), Principal.user("mia", "manager")
AUDITOR = Principal.user("uta", "auditor")


RESULT = Label.of(ACL(("collection:menus",)), "tool:any")


@tool(effect="write", recipients=("to",), label=RESULT)
async def send(to: str, text: str) -> str:
    """Send a text."""
    return f"sent to {to}"


@tool(effect="write", label=RESULT)
async def book(table: str) -> str:
    """Book a table."""
    return f"booked {table}"


async def ran(rules: str, *, asker: Principal = ANA, intent: Sequence[str] | None = None) -> Journal:
    """The journal of two runs that read the menu, would send, book once somebody approved, and answer."""
    journal = InMemoryJournal()
    script: list[Line] = [call("send", to="bo", text="hi"), call("book", table="Lucia"), "Done.", "Booked."]
    async with App(policy=Rules(rules), model=ScriptedModel(script), tools=[send, book], journal=journal) as app:
        await app.ingest([("menu.md", "Lucia's menu: fish")], ACL.of("collection:menus"))
        for run in ("r0", "r1"):
            try:
                result = await app.ask("what is on the menu of Lucia?", as_=asker, run=run, intent=intent)
                for question in result.waiting:
                    await app.approve(run, call=question.call, by=replace(MIA, tenant=asker.tenant))
                    await app.resume(run)
            except RingwallError:
                continue
    return journal


def tried(rules: str, new: str, *, as_: Principal = AUDITOR, intent: Sequence[str] | None = None) -> Simulation:
    async def go() -> Simulation:
        journal = await ran(rules, intent=intent)
        return await simulate(journal, Rules(new), policy=Rules(rules), as_=as_)

    return asyncio.run(go())


def changed(found: Simulation) -> set[tuple[str, str, Outcome, Outcome]]:
    return {(each.kind, each.what, each.was, each.now) for each in found.differences}


@pytest.mark.parametrize("intent", [None, ["book"], []])
def test_the_same_policy_would_decide_the_same(intent: Sequence[str] | None) -> None:
    found = tried(RULES, RULES, intent=intent)
    assert (found.runs, found.withheld, found.differences) == (2, 0, ())
    assert found.decisions > 5


def test_calls_that_would_be_denied_or_allowed_are_listed_with_the_rule() -> None:
    found = tried(RULES, RULES.replace("ask   doc:* call tool:book", "allow doc:* call tool:book"))
    assert [each.run for each in found.differences] == ["r0", "r1"]
    told = ("call", "user:ana", "tool:book", "ask", "allow", "rules:3", "a document may not book")
    assert {astuple(each)[2:] for each in found.differences} == {told}
    assert changed(tried(RULES, RULES + "deny user:ana call tool:book")) == {
        ("call", "tool:book", Outcome.ASK, Outcome.DENY)
    }


def test_receivers_that_would_not_be_told_are_found() -> None:
    less = RULES + "grant to:* collection:menus\nallow doc:* call tool:send\n"
    lost = less.replace("grant to:* collection:menus", "")
    told = {(each.was, each.now, each.rule) for each in tried(less, lost).differences if each.what == "tool:send"}
    assert told == {(Outcome.ALLOW, Outcome.DENY, "flow")}


def test_searches_that_would_find_less_or_could_find_more_are_found_and_so_are_answers() -> None:
    found = tried(RULES, RULES.replace("grant role:guest collection:menus\n", ""))
    assert ("search", "data.searched", Outcome.AS_FOUND, Outcome.LESS) in changed(found)
    assert ("answer", "user:ana", Outcome.ALLOW, Outcome.DENY) in changed(found)
    more = tried(RULES, RULES + "grant role:guest collection:cellar\n")
    assert changed(more) == {("search", "data.searched", Outcome.AS_FOUND, Outcome.MORE)}
    assert {each.reason for each in more.differences} == {"with collection:cellar"}
    assert more.counted == {("search", Outcome.AS_FOUND, Outcome.MORE): 2}


def test_whoever_would_not_be_let_in_is_found() -> None:
    assert ("ask", "app:app", Outcome.ALLOW, Outcome.DENY) in changed(tried(RULES, "deny * * *"))


def test_runs_of_another_time_are_left_out() -> None:
    async def go() -> Simulation:
        journal = await ran(RULES)
        return await simulate(journal, Rules(""), policy=Rules(RULES), as_=AUDITOR, until=1.0)

    assert asyncio.run(go()) == Simulation(0, 0, 0, ())


def test_who_may_not_audit_sees_nothing_and_the_policy_that_is_tried_lets_nobody_in() -> None:
    assert tried(RULES, "allow user:eve audit app:*", as_=Principal.user("eve")) == Simulation(0, 0, 0, ())
    assert tried(RULES, RULES, as_=ANA).runs == 2


def test_what_is_withheld_is_not_asked_again_so_that_no_policy_finds_out_what_it_is() -> None:
    rules = RULES.replace("grant role:auditor collection:menus\n", "")
    probes = [rules, rules + "deny doc:menu.md call tool:*", rules.replace("grant role:guest collection:menus\n", "")]
    told = [tried(rules, probe) for probe in probes]
    assert told[0] == told[1] == told[2]
    assert told[0].withheld > 0
    assert "menu" not in str(told)


# Always: on generated rules. No deadline: time is not what these are about.


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.sampled_from([None, ("book",), ()]), st.sampled_from(["", "acme"]))
def test_no_policy_differs_from_itself(lines: list[str], intent: Sequence[str] | None, tenant: str) -> None:
    rules = "\n".join((RULES, *lines))
    asker = Principal("user:ana", tenant, frozenset(("guest", "r0")))
    auditor = Principal("user:uta", tenant, frozenset(("auditor", "guest", "r0")))

    async def go() -> tuple[Difference, ...]:
        journal = await ran(rules, asker=asker, intent=intent)
        return (await simulate(journal, Rules(rules), policy=Rules(rules), as_=auditor)).differences

    assert asyncio.run(go()) == ()
