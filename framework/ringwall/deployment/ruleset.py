"""Compiled rules: what the core's `Rules` and the casbin plugin turn their texts into.

A `RuleSet` never changes. A policy that changes makes another one and swaps it in, so a caller sees the old
rules or the new ones, never a mixture, and what was remembered of the old ones goes away with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from graphlib import TopologicalSorter
from typing import Final, NamedTuple

from ringwall.deployment.base import Decision, Verdict
from ringwall.principal import PUBLIC, Grant, Grants, Principal, scoped

ANY: Final = "*"
"""The only wildcard: any text, also none."""

_SEVERITY: Final = {Verdict.DENY: 0, Verdict.ASK: 1, Verdict.ALLOW: 2}


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is `pattern`, where each `*` stands for any text. Never slow, whoever wrote the text."""
    head, *rest = pattern.split(ANY)
    if not rest:
        return pattern == text
    *middle, tail = rest
    at, end = len(head), len(text) - len(tail)
    if at > end or not text.startswith(head) or not text.endswith(tail):
        return False
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may do what to what.

    `subject` is a grant that the principal holds or, with a `*`, a pattern of its id; `action` and
    `resource` may hold a `*`. `tenant=None` is every tenant.
    """

    id: str
    verdict: Verdict
    subject: str
    action: str
    resource: str
    tenant: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """Whoever holds `holder` (a grant or, with a `*`, a pattern of the principal's id) also holds `grant`.

    Both are written without a tenant: a principal holds `grant` within its own tenant only.
    """

    holder: str
    grant: Grant
    tenant: str | None = None


class _Ranked(NamedTuple):
    """A rule with its rank, which no other has: the lowest that applies decides."""

    rank: int
    rule: Rule
    decision: Decision


class _About(NamedTuple):
    """The rules about one action on one resource: those of each grant, and those with a pattern of ids."""

    named: dict[Grant, list[_Ranked]]
    patterned: list[_Ranked]


class RuleSet:
    """Rules and holdings, indexed once, with a memory of the last `remembered` answers of each kind."""

    def __init__(
        self, rules: Iterable[Rule], holdings: Iterable[Holding], *, version: str, remembered: int = 16_384
    ) -> None:
        self.version = version
        self._exact: dict[tuple[str, str], list[_Ranked]] = defaultdict(list)
        self._wild: list[_Ranked] = []
        self._holdings: dict[Grant, list[Holding]] = defaultdict(list)
        self._wild_holdings: list[Holding] = []
        self._index_rules(rules)
        for holding in holdings:
            (self._wild_holdings if ANY in holding.holder else self._holdings[holding.holder]).append(holding)
        self.decide = lru_cache(remembered)(self._decide)
        self.grants = lru_cache(remembered)(self._grants)
        self._held = lru_cache(remembered)(self._close_over)
        # Rules are found by what they are about: principals are many (each page is one), tools are few.
        self._about = lru_cache(remembered // 16)(self._find)

    def _index_rules(self, rules: Iterable[Rule]) -> None:
        for rank, rule in enumerate(sorted(rules, key=lambda rule: _SEVERITY[rule.verdict])):
            ranked = _Ranked(rank, rule, Decision(rule.verdict, rule.reason, rule.id))
            wild = ANY in rule.action or ANY in rule.resource
            (self._wild if wild else self._exact[rule.action, rule.resource]).append(ranked)

    def _decide(self, principal: Principal, action: str, resource: str) -> Decision:
        held, about = self._held(principal), self._about(action, resource)
        applying = [ranked for grant in held & about.named.keys() for ranked in about.named[grant]]
        applying += [ranked for ranked in about.patterned if matches(ranked.rule.subject, principal.id)]
        here = (ranked for ranked in applying if ranked.rule.tenant in (None, principal.tenant))
        first = min(here, default=None)
        return first.decision if first else Decision.no_rule(principal.id, action, resource)

    def _find(self, action: str, resource: str) -> _About:
        about = _About(defaultdict(list), [])
        wild = (r for r in self._wild if matches(r.rule.action, action) and matches(r.rule.resource, resource))
        for ranked in (*self._exact.get((action, resource), ()), *wild):
            subject = ranked.rule.subject
            (about.patterned if ANY in subject else about.named[subject]).append(ranked)
        return about

    def _grants(self, principal: Principal) -> Grants:
        return principal.vouched_grants | {scoped(grant, principal.tenant) for grant in self._held(principal)}

    def _close_over(self, principal: Principal) -> Grants:
        held: set[Grant] = set()
        reached = [PUBLIC, principal.id, *(f"role:{role}" for role in principal.roles)]
        given = [holding for holding in self._wild_holdings if matches(holding.holder, principal.id)]
        while reached or given:
            reached += (holding.grant for holding in given if holding.tenant in (None, principal.tenant))
            new = set(reached) - held
            held |= new
            reached, given = [], [holding for grant in new for holding in self._holdings.get(grant, ())]
        return frozenset(held)


def longest_chain(holdings: Iterable[Holding]) -> int:
    """Links of the longest chain in any tenant. Raises `graphlib.CycleError` (the circle is `args[1]`)."""
    by_tenant: dict[str | None, list[Holding]] = defaultdict(list)
    for holding in holdings:
        by_tenant[holding.tenant].append(holding)
    shared = by_tenant.pop(None, [])
    return max(_chain_length([*shared, *own]) for own in (*by_tenant.values(), []))


def _chain_length(holdings: Iterable[Holding]) -> int:
    below: dict[str, list[str]] = defaultdict(list)
    for holding in holdings:
        below[holding.holder].append(holding.grant)
    length: dict[str, int] = {}
    for grant in TopologicalSorter(below).static_order():
        length[grant] = max((1 + length[given] for given in below.get(grant, ())), default=0)
    return max(length.values(), default=0)


__all__ = ["ANY", "Holding", "Rule", "RuleSet", "longest_chain", "matches"]
