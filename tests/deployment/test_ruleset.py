"""The index of rules finds what trying every rule would."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall.deployment.base import Decision, Verdict
from ringwall.deployment.ruleset import Holding, Rule, RuleSet, matches
from ringwall.principal import PUBLIC, Grants, Principal, scoped

TEXTS = st.text("ab*:", min_size=1, max_size=5)
NAMES = st.text("ab", min_size=1, max_size=3)
IDS = st.builds("{}:{}".format, NAMES, NAMES)
TENANTS = st.sampled_from(["", "acme", "globex"])
OF_SOME = st.one_of(st.none(), TENANTS)
GRANTS = st.sampled_from([PUBLIC, "role:a", "role:b", "collection:x"])
RULES = st.lists(
    st.builds(Rule, st.just("r"), st.sampled_from(list(Verdict)), st.one_of(GRANTS, TEXTS), TEXTS, TEXTS, OF_SOME),
    max_size=12,
).map(lambda rules: [Rule(str(n), r.verdict, r.subject, r.action, r.resource, r.tenant) for n, r in enumerate(rules)])
HOLDINGS = st.lists(st.builds(Holding, st.one_of(GRANTS, TEXTS), GRANTS, OF_SOME), max_size=8)
PRINCIPALS = st.builds(Principal, IDS, TENANTS, st.frozensets(st.sampled_from("ab"), max_size=2))


def held(holdings: list[Holding], principal: Principal) -> set[str]:
    """What somebody holds, tried until nothing comes any more."""
    found = {PUBLIC, principal.id, *(f"role:{role}" for role in principal.roles)}
    while True:
        more = {
            each.grant
            for each in holdings
            if each.tenant in (None, principal.tenant)
            and (matches(each.holder, principal.id) if "*" in each.holder else each.holder in found)
        }
        if more <= found:
            return found
        found |= more


def decision(rules: list[Rule], grants: set[str], principal: Principal, action: str, resource: str) -> Decision:
    """Of the rules that apply the first that denies, else that asks, else that allows."""
    applying = [
        rule
        for rule in rules
        if rule.tenant in (None, principal.tenant)
        and matches(rule.action, action)
        and matches(rule.resource, resource)
        and (matches(rule.subject, principal.id) if "*" in rule.subject else rule.subject in grants)
    ]
    for verdict in (Verdict.DENY, Verdict.ASK, Verdict.ALLOW):
        for rule in applying:
            if rule.verdict is verdict:
                return Decision(verdict, rule.reason, rule.id)
    return Decision.no_rule(principal.id, action, resource)


@settings(deadline=None, max_examples=300)
@given(RULES, HOLDINGS, PRINCIPALS, NAMES, NAMES)
def test_decisions_and_grants_are_those_of_all_rules_tried(
    rules: list[Rule], holdings: list[Holding], principal: Principal, action: str, resource: str
) -> None:
    found = RuleSet(rules, holdings, version="1")
    grants = held(holdings, principal)
    expected: Grants = principal.vouched_grants | {scoped(grant, principal.tenant) for grant in grants}
    assert found.grants(principal) == expected
    assert found.decide(principal, action, resource) == decision(rules, grants, principal, action, resource)
