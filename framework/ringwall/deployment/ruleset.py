"""Compiled rules: what the core's `Rules` and the casbin plugin turn their texts into.

A `RuleSet` never changes. A policy that changes makes another one and swaps it in, so a caller sees the old
rules or the new ones, never a mixture, and what was remembered of the old ones goes away with them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from graphlib import TopologicalSorter
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, TypeVar

from ringwall.deployment.base import ORDINARY, Decision, Terms, Verdict
from ringwall.principal import PUBLIC, Grant, Grants, Principal, scoped

ANY: Final = "*"
"""The only wildcard: any text, also none."""

K = TypeVar("K")
T = TypeVar("T")

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
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


def overlap(one: str, other: str) -> bool:
    """Whether some text matches both patterns."""
    if ANY not in one or ANY not in other:
        return matches(one, other) if ANY in one else matches(other, one)
    heads = one[: one.index(ANY)], other[: other.index(ANY)]
    tails = one[one.rindex(ANY) + 1 :], other[other.rindex(ANY) + 1 :]
    return max(heads, key=len).startswith(min(heads, key=len)) and max(tails, key=len).endswith(min(tails, key=len))


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may do what to what.

    `subject` is a grant that the principal holds or, with a `*`, a pattern of its id; `action` and
    `resource` may hold a `*`. `tenant=None` is every tenant. `terms` say how people are asked.
    """

    id: str
    verdict: Verdict
    subject: str
    action: str
    resource: str
    tenant: str | None = None
    reason: str = ""
    terms: Terms = ORDINARY


@dataclass(frozen=True, slots=True)
class Holding:
    """Whoever holds `holder` (a grant or, with a `*`, a pattern of the principal's id) also holds `grant`.

    Both are written without a tenant: a principal holds `grant` within its own tenant only.
    """

    holder: str
    grant: Grant
    tenant: str | None = None


class Ranked(NamedTuple):
    """A rule with its rank, which no other has: the lowest that applies decides."""

    rank: int
    rule: Rule
    decision: Decision


class _Patterns(Generic[T]):
    """Names and patterns, each with a value, found by a text that they match: never by trying all of them.

    A pattern is kept under what stands before its first `*` or behind its last one, whichever is longer.
    """

    __slots__ = ("_heads", "_names", "_tails")

    def __init__(self) -> None:
        self._names: dict[str, T] = {}
        self._heads: dict[int, dict[str, dict[str, T]]] = {}
        self._tails: dict[int, dict[str, dict[str, T]]] = {}

    def at(self, pattern: str, make: Callable[[], T]) -> T:
        """The value of exactly this name or pattern, made if there is none."""
        if ANY not in pattern:
            return _value(self._names, pattern, make)
        head, tail = pattern[: pattern.index(ANY)], pattern[pattern.rindex(ANY) + 1 :]
        ends, end = (self._tails, tail) if len(tail) > len(head) else (self._heads, head)
        return _value(ends.setdefault(len(end), {}).setdefault(end, {}), pattern, make)

    def matching(self, text: str) -> list[T]:
        """The values of all that match `text`."""
        name = self._names.get(text)
        found = [] if name is None else [name]
        for length, heads in self._heads.items():
            for pattern, value in heads.get(text[:length], _NOTHING).items():
                if matches(pattern, text):
                    found.append(value)
        for length, tails in self._tails.items():
            for pattern, value in tails.get(text[-length:], _NOTHING).items():
                if matches(pattern, text):
                    found.append(value)
        return found


def _value(values: dict[K, T], key: K, make: Callable[[], T]) -> T:
    value = values.get(key)
    if value is None:
        value = values[key] = make()
    return value


class _About:
    """The rules about one action on one resource (or one pattern of each): of each grant or pattern the first."""

    __slots__ = ("named", "patterned")

    def __init__(self) -> None:
        self.named: dict[Grant, Ranked] = {}
        self.patterned: _Patterns[Ranked] | None = None

    def add(self, ranked: Ranked) -> None:
        subject = ranked.rule.subject
        if ANY not in subject:
            self.named.setdefault(subject, ranked)
            return
        if self.patterned is None:
            self.patterned = _Patterns()
        self.patterned.at(subject, lambda: ranked)


class _Section:
    """The rules and holdings of one tenant, or those of every tenant."""

    __slots__ = ("exact", "given", "given_to_ids", "wild")

    def __init__(self) -> None:
        self.exact: dict[tuple[str, str], _About] = {}
        self.wild: _Patterns[_Patterns[_About]] = _Patterns()
        self.given: dict[Grant, list[Grant]] = {}
        self.given_to_ids: _Patterns[list[Grant]] = _Patterns()

    def add_rule(self, ranked: Ranked) -> None:
        rule = ranked.rule
        if ANY in rule.action or ANY in rule.resource:
            actions: _Patterns[_About] = self.wild.at(rule.resource, _Patterns)
            actions.at(rule.action, _About).add(ranked)
        else:
            _value(self.exact, (rule.action, rule.resource), _About).add(ranked)

    def add_holding(self, holding: Holding) -> None:
        if ANY in holding.holder:
            self.given_to_ids.at(holding.holder, list).append(holding.grant)
        else:
            self.given.setdefault(holding.holder, []).append(holding.grant)

    def about(self, action: str, resource: str) -> Iterator[_About]:
        exact = self.exact.get((action, resource))
        if exact is not None:
            yield exact
        for actions in self.wild.matching(resource):
            yield from actions.matching(action)


class RuleSet:
    """Rules and holdings, indexed once, with a memory of the last `remembered` answers of each kind.

    What a decision costs depends on what the principal holds and on how many patterns match the question, never
    on how many rules there are.
    """

    def __init__(
        self, rules: Iterable[Rule], holdings: Iterable[Holding], *, version: str, remembered: int = 16_384
    ) -> None:
        self.version = version
        self._sections: dict[str | None, _Section] = {None: _Section()}
        for ranked in rank(rules):
            self._section(ranked.rule.tenant).add_rule(ranked)
        for holding in holdings:
            self._section(holding.tenant).add_holding(holding)
        self.decide = lru_cache(remembered)(self._decide)
        self.grants = lru_cache(remembered)(self._grants)
        self._held = lru_cache(remembered)(self._held_by)
        # Rules are found by what they are about: principals are many (each page is one), tools are few.
        self._about = lru_cache(remembered)(self._find)

    def _section(self, tenant: str | None) -> _Section:
        section = self._sections.get(tenant)
        if section is None:
            section = self._sections[tenant] = _Section()
        return section

    def held(self, id: str, roles: Iterable[str], tenant: str | None) -> Grants:
        """What somebody of this id with these roles holds, without a tenant in front.

        By the holdings of every tenant and, unless that is None, those of `tenant`.
        """
        sections = self._of(tenant)
        held: set[Grant] = set()
        reached = {PUBLIC, id, *(f"role:{role}" for role in roles)}
        for section in sections:
            for given in section.given_to_ids.matching(id):
                reached.update(given)
        while new := reached - held:
            held |= new
            reached = {grant for each in new for section in sections for grant in section.given.get(each, ())}
        return frozenset(held)

    def applying(self, id: str, held: Grants, action: str, resource: str, tenant: str | None) -> list[Ranked]:
        """The rules that apply to a question of somebody who holds `held`, in no order.

        Of those that differ in nothing but verdict and reason the first alone. By the rules of every tenant
        and, unless that is None, those of `tenant`.
        """
        applying: list[Ranked] = []
        for about in self._about(action, resource, tenant):
            named = about.named
            applying += [named[grant] for grant in held & named.keys()]
            if about.patterned is not None:
                applying += about.patterned.matching(id)
        return applying

    def _decide(self, principal: Principal, action: str, resource: str) -> Decision:
        applying = self.applying(principal.id, self._held(principal), action, resource, principal.tenant)
        return min(applying).decision if applying else Decision.no_rule(principal.id, action, resource)

    def _find(self, action: str, resource: str, tenant: str | None) -> list[_About]:
        return [about for section in self._of(tenant) for about in section.about(action, resource)]

    def _of(self, tenant: str | None) -> tuple[_Section, ...]:
        every = self._sections[None]
        own = None if tenant is None else self._sections.get(tenant)
        return (every,) if own is None else (every, own)

    def _grants(self, principal: Principal) -> Grants:
        return principal.vouched_grants | {scoped(grant, principal.tenant) for grant in self._held(principal)}

    def _held_by(self, principal: Principal) -> Grants:
        return self.held(principal.id, principal.roles, principal.tenant)


def rank(rules: Iterable[Rule]) -> Iterator[Ranked]:
    """Rules by rank: the denying ones before the asking ones before the allowing ones, each kind in its order."""
    for number, rule in enumerate(sorted(rules, key=lambda rule: _SEVERITY[rule.verdict])):
        yield Ranked(number, rule, Decision(rule.verdict, rule.reason, rule.id, rule.terms))


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


__all__ = ["ANY", "Holding", "Ranked", "Rule", "RuleSet", "longest_chain", "matches", "overlap", "rank"]
