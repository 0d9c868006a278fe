"""A yes that stands: within the bounds that were shown, until it is used up, runs out or is taken back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import App, InMemoryJournal, Journal, Label, Principal, RunStatus, call, tool
from ringwall.deployment import ANYTHING, Bounds, Limit, StandingRule
from ringwall.deployment.limits import Case
from ringwall.deployment.standing import StandingRules
from ringwall.errors import ActionDenied, InvalidInput, NotWaiting, RingwallError
from ringwall.model.scripted import Line
from ringwall.schema import JSON
from ringwall_sql import SqlJournal
from tests.core.test_questions import Clock
from tests.scenes import ANA, BEN, CARLA, app_with

RULES = """
allow role:guest ask app:app
ask   role:guest call tool:* because "a guest must ask"
grant tool:* collection:questions
grant role:manager collection:questions
allow role:manager approve tool:*
allow role:manager standing tool:*
grant role:clerk collection:questions
allow role:clerk approve tool:*
"""
KIM = Principal.user("kim", "clerk")
DAY = 86_400.0
UP_TO_FOUR = Bounds(uses=2, seconds=DAY, limits={"guests": Limit("<=", 4)})


def scene(
    booked: list[tuple[str, int]],
    *,
    guests: int = 2,
    table: str = "7",
    journal: Journal | None = None,
    clock: Clock | None = None,
    rules: str = RULES,
    script: Sequence[Line] | None = None,
) -> App:
    @tool(effect="write", label=Label())
    def book(table: str, guests: int) -> str:
        "Book a table."
        booked.append((table, guests))
        return "booked"

    lines = script or [call("book", table=table, guests=guests), "Done."]
    return app_with(lines, rules=rules, tools=[book], journal=journal or InMemoryJournal(), clock=clock or Clock())


async def let_stand(app: App, bounds: Bounds = UP_TO_FOUR, *, by: Principal = CARLA) -> StandingRule:
    await app.ask("book", as_=ANA, run="first")
    rule = await app.draft("first", by=by, bounds=bounds)
    await app.approve("first", by=by, standing=rule)
    await app.resume("first")
    return rule


async def test_later_calls_within_the_bounds_are_let_without_a_question_until_used_up() -> None:
    booked: list[tuple[str, int]] = []
    journal = InMemoryJournal()
    async with scene(booked, journal=journal) as app:
        rule = await let_stand(app)
        assert '"guests"' not in rule.line
        assert 'guests <= 4 and table = "7" from user:ana' in rule.line
    for expected in (RunStatus.DONE, RunStatus.DONE, RunStatus.WAITING):
        async with scene(booked, guests=4, journal=journal) as app:
            assert (await app.ask("book", as_=ANA)).status is expected
    assert booked == [("7", 2), ("7", 4), ("7", 4)]


@pytest.mark.parametrize(
    ("guests", "table", "who"), [(5, "7", ANA), (2, "8", ANA), (2, "7", BEN)], ids=["too many", "table", "who asks"]
)
async def test_what_lies_outside_is_asked_about(guests: int, table: str, who: Principal) -> None:
    booked: list[tuple[str, int]] = []
    journal = InMemoryJournal()
    async with scene(booked, journal=journal) as app:
        await let_stand(app)
    async with scene(booked, guests=guests, table=table, journal=journal) as app:
        assert (await app.ask("book", as_=who)).status is RunStatus.WAITING


async def test_for_this_run_it_is_for_no_other_and_needs_no_further_right() -> None:
    booked: list[tuple[str, int]] = []
    journal = InMemoryJournal()
    line = call("book", table="7", guests=2)
    async with scene(booked, journal=journal, script=[line, line, "Done."]) as app:
        await app.ask("book", as_=ANA, run="first")
        with pytest.raises(ActionDenied, match="may not let a rule stand"):
            await app.draft("first", by=KIM, bounds=Bounds(uses=9, seconds=DAY))
        rule = await app.draft("first", by=KIM, bounds=Bounds(uses=9, seconds=DAY, this_run=True))
        await app.approve("first", by=KIM, standing=rule)
        assert (await app.resume("first")).status is RunStatus.DONE
    assert booked == [("7", 2)] * 2
    async with scene(booked, journal=journal) as app:
        assert (await app.ask("book", as_=ANA)).status is RunStatus.WAITING


async def test_it_runs_out_and_can_be_taken_back_and_both_hold_from_the_next_call() -> None:
    for end in ("time", "revoked"):
        booked: list[tuple[str, int]] = []
        journal, clock = InMemoryJournal(), Clock()
        async with scene(booked, journal=journal, clock=clock) as app:
            await let_stand(app)
            (standing,) = await app.standing(as_=CARLA)
            assert await app.standing(as_=KIM) == []
            with pytest.raises(NotWaiting):
                await app.revoke(standing.id, by=KIM)
            if end == "time":
                clock.now += DAY
            else:
                await app.revoke(standing.id, by=CARLA)
                with pytest.raises(NotWaiting):
                    await app.revoke(standing.id, by=CARLA)
            assert await app.standing(as_=CARLA) == []
        async with scene(booked, journal=journal, clock=clock) as app:
            assert (await app.ask("book", as_=ANA)).status is RunStatus.WAITING
            assert await app.verify()


@pytest.mark.parametrize(
    "change",
    [RULES + "deny user:ana call tool:book", RULES.replace("a guest must ask", "a guest must ask a manager")],
    ids=["denied", "another rule asks"],
)
async def test_it_lifts_no_no_and_no_other_rule(change: str) -> None:
    booked: list[tuple[str, int]] = []
    journal = InMemoryJournal()
    async with scene(booked, journal=journal) as app:
        await let_stand(app)
    async with scene(booked, journal=journal, rules=change) as app:
        await app.ask("book", as_=ANA)
    assert booked == [("7", 2)]


async def test_where_several_people_must_see_each_call_none_can_let_them_pass() -> None:
    rules = RULES.replace('must ask"', 'must ask" needing 2')
    async with scene([], rules=rules) as app:
        await app.ask("book", as_=ANA, run="first")
        with pytest.raises(InvalidInput, match="several people"):
            await app.draft("first", by=CARLA, bounds=UP_TO_FOUR)


@pytest.mark.parametrize(
    "bounds",
    [
        Bounds(uses=0, seconds=DAY),
        Bounds(uses=1, seconds=0),
        Bounds(uses=1, seconds=DAY, limits={"guests": Limit("<=", 1)}),
        Bounds(uses=1, seconds=DAY, limits={"guests": []}),
        Bounds(uses=1, seconds=DAY, limits={"wine": ANYTHING}),
        Bounds(uses=1, seconds=DAY, sources=frozenset()),
    ],
    ids=["no use", "no time", "not this call", "an argument left out", "no such argument", "not its sources"],
)
async def test_a_rule_without_bounds_or_not_for_the_call_that_was_shown_is_refused(bounds: Bounds) -> None:
    async with scene([]) as app:
        await app.ask("book", as_=ANA, run="first")
        with pytest.raises(InvalidInput):
            await app.draft("first", by=CARLA, bounds=bounds)


async def test_the_run_tells_of_the_line_and_of_each_use() -> None:
    booked: list[tuple[str, int]] = []
    journal = InMemoryJournal()
    async with scene(booked, journal=journal) as app:
        rule = await let_stand(app)
        (action, _) = (await app.explain("first", as_=ANA)).outcomes
        assert f"approved by user:carla; lets stand: {rule.line}" in action.why
    async with scene(booked, journal=journal) as app:
        await app.ask("book", as_=ANA, run="second")
        (action, _) = (await app.explain("second", as_=ANA)).outcomes
        assert any(rule.line in why and "standing:" in why for why in action.why)


async def test_the_last_use_is_used_once_however_many_want_it(tmp_path: Path) -> None:
    booked: list[tuple[str, int]] = []
    path = tmp_path / "journal.db"
    async with scene(booked, journal=SqlJournal(path)) as app:
        await let_stand(app, Bounds(uses=3, seconds=DAY))
    apps = [scene(booked, journal=SqlJournal(path)) for _ in range(6)]
    results = await asyncio.gather(*(app.ask("book", as_=ANA) for app in apps))
    assert sorted(result.status for result in results) == [RunStatus.DONE] * 3 + [RunStatus.WAITING] * 3
    assert len(booked) == 4
    for app in apps:
        await app.close()


# The line is the rule

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(["and", "a b", '"', "x*"])
VALUES: st.SearchStrategy[JSON] = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXTS, v, max_size=2),
    max_leaves=4,
)
LIMITS = st.builds(Limit, st.sampled_from(["=", "in", "<=", ">=", "like"]), VALUES) | st.just(ANYTHING)
NAMES = st.sampled_from(["guests", "table", "a name", "and", ""])
SOURCES = st.frozensets(st.sampled_from(["user:ana", "doc:a b.md", "web:x", "and", '"']), min_size=1)
ASKS = st.frozensets(st.sampled_from(["rules:1/ab", "rules:2/cd", "p, x, *, y/ef"]), min_size=1)
STANDING = st.builds(
    StandingRule,
    st.sampled_from(["user:ana", "role:guest", "user:ana smith"]),
    st.sampled_from(["book", "wire"]),
    st.lists(st.tuples(NAMES, LIMITS), max_size=4).map(tuple),
    SOURCES,
    ASKS,
    st.integers(1, 99),
    st.integers(1, 4_000_000_000),
    st.sampled_from(["", "acme", "two words"]),
    st.sampled_from(["", "r1", "a run"]),
)
CASES = st.builds(
    Case,
    st.sampled_from(["", "r1", "a run", "r2"]),
    st.sampled_from(["book", "wire"]),
    st.dictionaries(NAMES, VALUES, max_size=3),
    st.sampled_from(["", "acme"]),
    st.frozensets(st.sampled_from(["user:ana", "role:guest", "acme::user:ana", "public"])),
    SOURCES,
    ASKS,
)


@settings(max_examples=300, deadline=None)
@given(STANDING)
def test_a_line_is_read_as_it_was_meant(rule: StandingRule) -> None:
    assert StandingRule.parse(rule.line) == rule


@settings(max_examples=300, deadline=None)
@given(STANDING, st.data())
def test_a_line_that_was_changed_is_another_rule_or_none(rule: StandingRule, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rule.line)))
    changed = rule.line[:place] + data.draw(st.text(max_size=2)) + rule.line[place + 1 :]
    try:
        read = StandingRule.parse(changed)
    except InvalidInput:
        return
    assert read.line == changed
    assert (read == rule) == (changed == rule.line)


@settings(max_examples=500, deadline=None)
@given(STANDING, CASES)
def test_what_the_bounds_exclude_is_never_covered(rule: StandingRule, case: Case) -> None:
    if rule.covers(case):
        holder = f"{rule.tenant}::{rule.who}" if rule.tenant else rule.who
        assert (rule.tool, rule.tenant, holder in case.grants) == (case.tool, case.tenant, True)
        assert rule.run in ("", case.run)
        assert case.sources <= rule.sources
        assert case.asks <= rule.asks
        assert set(case.arguments) == {name for name, _ in rule.limits}
        assert all(keeps_to(limit, case.arguments[name]) for name, limit in rule.limits)


def keeps_to(limit: Limit, value: JSON) -> bool:
    """The limits once more, said in another way."""
    is_number = type(value) in (int, float) and type(limit.value) in (int, float)
    match limit.operator:
        case "<=" | ">=":
            return is_number and min(value, limit.value) == (value if limit.operator == "<=" else limit.value)  # type: ignore[type-var]
        case "=":
            return json.dumps(value, sort_keys=True) == json.dumps(limit.value, sort_keys=True)
        case "in":
            return type(limit.value) is list and any(keeps_to(Limit("=", each), value) for each in limit.value)
        case "like":
            return type(value) is type(limit.value) is str
    return True


MADE = StandingRule(
    "user:ana", "book", (("guests", Limit("<=", 4)),), frozenset({"user:ana"}), frozenset({"a"}), 3, 9**9
)
MOVES = st.lists(st.tuples(st.sampled_from(["use", "use", "revoke"]), st.integers(0, 4)), max_size=12)


@settings(max_examples=50, deadline=None)
@given(MOVES)
def test_uses_and_revocations_in_any_order_leave_at_most_what_was_granted(moves: list[tuple[str, int]]) -> None:
    asyncio.run(live_through(moves))


async def live_through(moves: list[tuple[str, int]]) -> None:
    journal, used, revoked = InMemoryJournal(), set[str](), False
    id_ = await StandingRules(journal, "app", clock=Clock()).grant(MADE, by="x", run="r", call="0", label=Label())
    for what, which in moves:
        rules = StandingRules(journal, "app", clock=Clock())  # as another process has it
        if what == "revoke":
            try:
                await rules.revoke(id_, by="x")
            except RingwallError:
                assert revoked
            revoked = True
        else:
            could = not revoked and (f"{which}" in used or len(used) < MADE.uses)
            assert await rules.use(id_, "r", str(which)) == could
            used |= {f"{which}"} if could else set()
