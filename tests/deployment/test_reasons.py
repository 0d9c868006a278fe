"""Why a policy decided so, and what would change it."""

from __future__ import annotations

import asyncio
from itertools import product

from hypothesis import assume, example, given, settings

from ringwall.deployment.base import Decision, Verdict
from ringwall.deployment.changes import Change, ChangeKind
from ringwall.deployment.expectations import Question
from ringwall.deployment.reasons import Link, Reasons, reasons, reasons_by_rules
from ringwall.deployment.rules import Rules
from ringwall.principal import Principal
from tests.deployment.generated import IDS, QUESTIONS, ROLES, TENANTS, TEXTS, TOOLS

BISTRO = """role staff includes guest
member user:bo role:staff in acme
grant role:staff collection:kitchen
allow role:guest ask app:dinner
allow role:staff call tool:*
allow role:chef call tool:stove
allow collection:kitchen call tool:fridge
deny role:banned call tool:*
member user:eve role:banned in acme
member user:eve role:staff in acme
ask doc:* call tool:book because "a document may not book"
"""
BO, EVE, ANA = (Principal(f"user:{name}", "acme") for name in ("bo", "eve", "ana"))


def why_by(text: str, question: Question) -> Reasons:
    return asyncio.run(reasons_by_rules(text, question))


def why(who: Principal, action: str, resource: str, *sources: str) -> Reasons:
    return why_by(BISTRO, Question(who, action, resource, sources))


def test_the_rule_is_named_with_the_way_to_it_and_what_it_overrules() -> None:
    (part,) = why(BO, "ask", "app:dinner").parts
    assert (part.decision.verdict, part.decision.rule) == (Verdict.ALLOW, "rules:4")
    assert part.through == (Link("user:bo", "role:staff", 2), Link("role:staff", "role:guest", 1))
    (part,) = why(EVE, "call", "tool:fridge").parts
    assert (part.decision.rule, part.overruled) == ("rules:8", ("rules:5", "rules:7"))


def test_the_smallest_change_is_a_rule_for_exactly_this_and_a_role_tells_what_else_it_opens() -> None:
    rule, role = why(ANA, "call", "tool:stove").changes
    assert rule == Change(ChangeKind.ADD_RULE, "allow user:ana call tool:stove in acme")
    assert role == Change(ChangeKind.ADD_ROLE, "member user:ana role:chef in acme", 0, (), ("role:chef",), ("rules:6",))


def test_where_a_deny_stands_what_would_fall_with_it_is_told() -> None:
    holding, rule = why(EVE, "call", "tool:stove").changes
    assert (holding.kind, holding.number, holding.rules) == (ChangeKind.REMOVE_HOLDING, 9, ("rules:8",))
    assert (rule.kind, rule.number) == (ChangeKind.REMOVE_RULE, 8)
    assert rule.also_for == ("user:eve of every tenant", "everybody who holds role:banned")
    assert rule.rules == ("rules:5", "rules:6", "rules:7", "rules:11")


def test_a_document_that_had_a_part_in_it_is_named_and_is_never_given_a_role() -> None:
    found = why(BO, "call", "tool:book", "doc:menu.md")
    assert (found.decision.verdict, found.decision.reason) == (Verdict.ASK, "a document may not book")
    assert [part.who for part in found.parts if not part.decision] == ["doc:menu.md"]
    assert found.changes == ()
    assert found.in_the_way == ("rules:11",)
    (change,) = why(BO, "call", "tool:stove", "doc:menu.md").changes
    assert change.line == "allow doc:menu.md call tool:stove in acme"
    assert change.also_for == ("every run that doc:menu.md had a part in",)


def test_an_id_that_no_rule_can_hold_gets_no_rule_that_means_more() -> None:
    assert why(Principal("user:*", "acme"), "ask", "app:y").changes == ()
    assert why(Principal("user:a b", "acme"), "ask", "app:y").changes == ()


def test_any_policy_gives_its_decision_about_each_part() -> None:
    found = asyncio.run(reasons(Rules(BISTRO), Question(BO, "call", "tool:book", ("doc:menu.md",))))
    assert [part.decision.rule for part in found.parts] == ["rules:11", "rules:5"]
    assert (found.decision.verdict, found.changes) == (Verdict.ASK, ())


# Always: on generated rules. No deadline: time is not what these are about.


@settings(deadline=None, max_examples=300)
@given(TEXTS, QUESTIONS)
def test_reasons_are_the_policys_own_and_every_change_allows_what_was_asked(
    lines: list[str], question: Question
) -> None:
    text = "\n".join(lines)
    found = why_by(text, question)
    assert found.decision == decide(text, question)
    if found.decision:
        assert (found.changes, found.in_the_way) == ((), ())
    for change in found.changes:
        assert decide(change.applied_to(text), question)
    assert bool(found.changes or found.in_the_way) is not bool(found.decision)


@settings(deadline=None, max_examples=300)
@given(TEXTS, QUESTIONS)
@example(["role r0 includes r1", "allow role:r1 call tool:a"], Question(Principal.user("ana"), "call", "tool:a"))
def test_no_role_that_would_do_opens_less_than_the_one_that_is_named(lines: list[str], question: Question) -> None:
    text, who = "\n".join(lines), question.principal
    assume(not decide(text, question) and not question.sources)
    end = f" in {who.tenant}" if who.tenant else ""
    roles = {change.line: change for change in why_by(text, question).changes if change.kind == "add a role"}
    would_do = {}
    for role in ROLES:
        line = f"member {who.id} role:{role}{end}"
        if decide(f"{text}\n{line}", question):
            would_do[line] = held(f"{text}\n{line}", who) - held(text, who)
    assert bool(roles) is bool(would_do)
    for line in roles:
        assert not any(gained < would_do[line] for gained in would_do.values())


@settings(deadline=None, max_examples=300)
@given(TEXTS, QUESTIONS)
@example(
    ["allow public ask tool:a", "ask public ask tool:a"],
    Question(Principal.user("ana"), "ask", "tool:a", ("doc:menu.md",)),
)
def test_a_line_is_named_to_be_removed_whenever_there_is_one_that_would_do(
    lines: list[str], question: Question
) -> None:
    text = "\n".join(lines)
    assume(not decide(text, question))
    would_do = {n for n in range(1, len(lines) + 1) if decide(without(text, n), question)}
    named = {change.number for change in why_by(text, question).changes if change.number}
    assert named <= would_do
    assert bool(named) is bool(would_do)


@settings(deadline=None, max_examples=300)
@given(TEXTS, QUESTIONS)
@example(["allow role:r1 call tool:a", "allow role:r1 call tool:b"], Question(Principal.user("ana"), "call", "tool:a"))
def test_whatever_else_a_change_opens_is_told(lines: list[str], question: Question) -> None:
    text = "\n".join(lines)
    for change in why_by(text, question).changes:
        changed = change.applied_to(text)
        new_line = f"rules:{len(changed.splitlines())}" if not change.number else ""
        for who in everybody(question.principal):
            for action, resource in product(("ask", "call"), TOOLS):
                asked = Question(who, action, resource)
                was, now = decide(text, asked), decide(changed, asked)
                if _MILDER[now.verdict] <= _MILDER[was.verdict]:
                    continue
                assert change.also_for or who.id == question.principal.id
                if who == question.principal and (action, resource) != (question.action, question.resource):
                    assert now.rule in (*change.rules, new_line) or was.rule in change.rules


_MILDER = {verdict: number for number, verdict in enumerate((Verdict.DENY, Verdict.ASK, Verdict.ALLOW))}


def everybody(asker: Principal) -> list[Principal]:
    return [asker, *(Principal(id_, tenant) for id_ in IDS for tenant in ("", *TENANTS))]


def decide(text: str, question: Question) -> Decision:
    return asyncio.run(question.put_to(Rules(text)))


def held(text: str, who: Principal) -> frozenset[str]:
    return asyncio.run(Rules(text).grants(who))


def without(text: str, number: int) -> str:
    return "\n".join("" if n == number else line for n, line in enumerate(text.split("\n"), 1))
