"""The core's policy in lines."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall.deployment.base import Decision, Policy, Verdict
from ringwall.deployment.contract import STANDARD_RULES, PolicyContract
from ringwall.deployment.rules import Rules
from ringwall.errors import BadPolicy
from ringwall.principal import PUBLIC, Grants, Principal

DINNER = """
role staff includes guest                       # who is staff is also a guest
member user:bo role:staff
grant role:staff collection:kitchen

allow role:guest ask app:dinner
allow user:* call tool:search
ask   doc:*  call tool:book_table  because "a document may not book without a person's yes"
deny  web:*  call tool:*
allow role:manager approve tool:book_table in acme   # of acme alone
"""


def decide(policy: Policy, principal: Principal, action: str, resource: str) -> Decision:
    return asyncio.run(policy.decide(principal, action, resource))


def grants(policy: Policy, principal: Principal) -> Grants:
    return asyncio.run(policy.grants(principal))


class TestTheContract(PolicyContract):
    @pytest.fixture
    def policy(self) -> Policy:
        return Rules(STANDARD_RULES)

    async def revoke(self, policy: Policy) -> None:
        assert isinstance(policy, Rules)
        policy.replace(STANDARD_RULES.replace("member user:bo role:staff in acme\n", ""))


def test_a_decision_names_the_line_and_gives_its_reason() -> None:
    decision = decide(Rules(DINNER), Principal("doc:menu.md"), "call", "tool:book_table")
    assert decision == Decision(Verdict.ASK, "a document may not book without a person's yes", "rules:8")


def test_without_because_the_reason_is_the_line_itself() -> None:
    decision = decide(Rules(DINNER), Principal.user("mia", "manager", tenant="acme"), "approve", "tool:book_table")
    assert decision == Decision(Verdict.ALLOW, "allow role:manager approve tool:book_table in acme", "rules:10")


def test_among_rules_of_one_verdict_the_first_line_is_named() -> None:
    policy = Rules("allow user:* call *\nallow user:ana call tool:search")
    assert decide(policy, Principal.user("ana"), "call", "tool:search").rule == "rules:1"


def test_rules_may_come_as_lines() -> None:
    assert Rules(DINNER.split("\n")).version == Rules(DINNER).version


def test_a_collection_may_be_a_subject_and_public_is_everybody() -> None:
    policy = Rules(
        [
            "grant role:staff collection:kitchen",
            "allow collection:kitchen call tool:stove",
            "allow public ask app:x",
        ]
    )
    assert decide(policy, Principal.user("bo", "staff"), "call", "tool:stove")
    assert not decide(policy, Principal.user("ana"), "call", "tool:stove")
    assert decide(policy, Principal("web:example.org"), "ask", "app:x")


def test_only_the_star_is_a_wildcard() -> None:
    policy = Rules("allow doc:?[a-z].md call tool:b*k_*e")
    assert decide(policy, Principal("doc:?[a-z].md"), "call", "tool:book_table")
    assert not decide(policy, Principal("doc:xy.md"), "call", "tool:book_table")
    assert not decide(policy, Principal("doc:?[a-z].md"), "call", "tool:book_tables")


@pytest.mark.parametrize(
    ("pattern", "text", "verdict"),
    [
        ("tool:*", "tool:", Verdict.ALLOW),
        ("tool:*", "tool:x\ny", Verdict.ALLOW),
        ("a*a", "a", Verdict.DENY),
        ("a*b*c", "abbc", Verdict.ALLOW),
        ("a*b*c", "acb", Verdict.DENY),
        ("*ab*ab*", "abb ab", Verdict.ALLOW),
        ("*ab*ab*", "aab", Verdict.DENY),
    ],
)
def test_a_star_stands_for_any_text_and_what_is_around_it_must_not_overlap(
    pattern: str, text: str, verdict: Verdict
) -> None:
    policy = Rules(f"allow user:* call {pattern}")
    assert decide(policy, Principal.user("ana"), "call", text).verdict is verdict


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("\nalow role:guest ask app:dinner", 2, "role, member, grant, allow, ask, deny"),
        ("role staff includes role:guest", 1, "without `role:`"),
        ("member user:bo staff", 1, "role:<name>"),
        ("grant role:staff role:guest", 1, "roles are given with `member`"),
        ("grant role:staff collection:*", 1, "grant <subject> <grant>"),
        ("allow role:guest ask", 1, "<subject> <action> <resource>"),
        ("allow guest ask app:dinner", 1, "`kind:name`, or `public`"),
        ('ask doc:* call tool:x because "no end', 1, 'because "<reason>"'),
        ('role a includes b because "so"', 1, "includes <name> [in <tenant>]"),
        ("allow user:* call tool:x#y in", 1, "[in <tenant>]"),
        ("allow user:* call tool:x in *", 1, "[in <tenant>]"),
        ("deny role:* call tool:x", 1, "one grant, or a pattern of ids"),
        ("grant role:staff globex::collection:wages", 1, "grants without a tenant"),
        ("role a includes b\nrole c includes a\nrole b includes c", 3, "do not include each other"),
        ("role a includes a in acme", 1, "do not include each other"),
        ("role a includes b in acme\nrole b includes a", 2, "do not include each other"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_what_was_expected(text: str, line: int, expected: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        Rules(text)
    assert f"line {line}:" in str(caught.value)
    assert expected in caught.value.expected


def test_a_circle_that_no_tenant_closes_is_none() -> None:
    policy = Rules("role a includes b in acme\nrole b includes a in globex")
    assert "acme::role:b" in grants(policy, Principal.user("ana", "a", tenant="acme"))


def test_replaced_rules_are_obeyed_at_once_and_bad_ones_change_nothing() -> None:
    policy, ana = Rules("allow user:ana ask app:x"), Principal.user("ana")
    assert decide(policy, ana, "ask", "app:x")
    versions = [policy.version]

    with pytest.raises(BadPolicy):
        policy.replace("nonsense")
    assert policy.version == versions[0]
    assert decide(policy, ana, "ask", "app:x")

    for text in ("deny user:ana ask app:x", "allow user:ana ask app:x"):
        policy.replace(text)
        versions.append(policy.version)
        assert bool(decide(policy, ana, "ask", "app:x")) is text.startswith("allow")
    assert len(set(versions)) == 3


# Always and never: on generated rules. No deadline: time is not what these are about.

ROLES, TENANTS = [f"r{n}" for n in range(5)], ["acme", "globex"]
ENDS = st.sampled_from(["", *(f" in {tenant}" for tenant in TENANTS)])
INCLUSIONS = st.builds(
    # From a lower number to a higher one only: no circles.
    lambda pair, end: f"role r{min(pair)} includes r{max(pair)}{end}",
    st.lists(st.integers(0, 4), min_size=2, max_size=2, unique=True),
    ENDS,
)
HOLDERS = st.sampled_from([*(f"role:{role}" for role in ROLES), "user:ana", "user:*", "public"])
GRANTS = st.builds("grant {} collection:{}{}".format, HOLDERS, st.sampled_from("xyz"), ENDS)
MEMBERS = st.builds("member {} role:{}{}".format, st.sampled_from(["user:ana", "doc:*"]), st.sampled_from(ROLES), ENDS)
VERDICTS = st.builds(
    "{} {} {} {}{}".format,
    st.sampled_from(list(Verdict)),
    HOLDERS,
    st.sampled_from(["ask", "call", "*"]),
    st.sampled_from(["tool:a", "tool:*"]),
    ENDS,
)
TEXTS = st.lists(st.one_of(INCLUSIONS, GRANTS, MEMBERS, VERDICTS), max_size=12)
PRINCIPALS = st.builds(
    Principal,
    st.sampled_from(["user:ana", "user:bo", "doc:menu.md"]),
    st.sampled_from(["", *TENANTS]),
    st.frozensets(st.sampled_from(ROLES), max_size=2),
)


@settings(deadline=None)
@given(TEXTS, PRINCIPALS)
def test_never_a_grant_of_another_tenant_and_always_what_was_vouched_for(
    lines: list[str], principal: Principal
) -> None:
    held = grants(Rules(lines), principal)
    own = f"{principal.tenant}::" if principal.tenant else ""
    assert held >= principal.vouched_grants
    assert all(grant.startswith(own) and "::" not in grant.removeprefix(own) for grant in held - {PUBLIC})


@settings(deadline=None)
@given(TEXTS, PRINCIPALS)
def test_a_line_of_another_tenant_changes_nothing_for_a_principal(lines: list[str], principal: Principal) -> None:
    foreign = tuple(f" in {tenant}" for tenant in TENANTS if tenant != principal.tenant)
    without = Rules(["" if line.endswith(foreign) else line for line in lines])
    everything = Rules(lines)
    assert grants(everything, principal) == grants(without, principal)
    assert decide(everything, principal, "call", "tool:a") == decide(without, principal, "call", "tool:a")


@settings(deadline=None)
@given(TEXTS, PRINCIPALS, VERDICTS)
def test_one_more_rule_moves_a_decision_towards_its_own_verdict_only(
    lines: list[str], principal: Principal, rule: str
) -> None:
    before, after = (decide(Rules(text), principal, "call", "tool:a") for text in (lines, [*lines, rule]))
    if before.rule != "default":
        assert _severity(after) >= _severity(before)
    if after.verdict is not before.verdict:
        assert after.rule == f"rules:{len(lines) + 1}"


@settings(deadline=None)
@given(TEXTS, PRINCIPALS)
def test_what_is_remembered_is_what_a_fresh_policy_says(lines: list[str], principal: Principal) -> None:
    policy = Rules("allow * * *")
    for text in (lines, lines[1:], lines):
        decide(policy, principal, "call", "tool:a")
        grants(policy, principal)
        policy.replace(text)
        assert _answers(policy, principal) == _answers(Rules(text), principal)


def _answers(policy: Policy, principal: Principal) -> Iterable[object]:
    return [decide(policy, principal, "call", "tool:a"), grants(policy, principal)]


def _severity(decision: Decision) -> int:
    return list(Verdict).index(decision.verdict)
