"""The smallest change of rules that would allow something.

Four kinds are looked for, of each the least broad: one more rule, for exactly this; one more role for the asker; one
rule less; one line less that gives a role or grant. A change that also opens something to others comes after one that
does not, and then the one that opens more after the one that opens less.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ringwall.deployment.base import Decision, Policy, Verdict
from ringwall.deployment.holders import Holders
from ringwall.deployment.rules import Rules, Statement, read_statements
from ringwall.deployment.ruleset import ANY, Holding, Rule, RuleSet, matches, overlap, rank
from ringwall.errors import BadPolicy
from ringwall.principal import Grant, Grants, Principal

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class ChangeKind(StrEnum):
    """What would be done to the rules."""

    ADD_RULE = "add a rule"
    ADD_ROLE = "add a role"
    REMOVE_RULE = "remove a rule"
    REMOVE_HOLDING = "remove a role or grant"


@dataclass(frozen=True, slots=True)
class Change:
    """One line more (`number` is 0), or the line of that number less, and what else that would do.

    `also_for` are others for whom it would open something. `grants` the asker would hold more, or fewer. `rules` are
    the ids of the rules by which more is opened than what was asked: those that would then speak of the asker as well,
    those that would not hold it back any more, or those that would decide where the removed one did.
    """

    kind: ChangeKind
    line: str
    number: int = 0
    also_for: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    rules: tuple[str, ...] = ()

    @property
    def breadth(self) -> tuple[int, int]:
        """To how many others, and how much, it opens besides what was asked."""
        return len(self.also_for), len(self.grants) + len(self.rules)

    def applied_to(self, rules: str) -> str:
        """The rules with this change; the other lines keep their numbers."""
        if not self.number:
            return f"{rules}\n{self.line}"
        return "\n".join("" if n == self.number else line for n, line in enumerate(rules.split("\n"), 1))


_Scope = tuple[str, str, str, str | None]


class Book(Policy):
    """Rules that decide, and to look things up in. Raises `BadPolicy`."""

    def __init__(self, rules: str | Iterable[str]) -> None:
        statements = read_statements(rules)
        self.rules = [statement.says for statement in statements if isinstance(statement.says, Rule)]
        self.holdings = [statement.says for statement in statements if isinstance(statement.says, Holding)]
        self.index, self.holders = RuleSet(self.rules, self.holdings, version=""), Holders(self.holdings)
        self.by_subject: dict[str, list[Rule]] = defaultdict(list)
        self._by_scope: dict[_Scope, list[Rule]] = defaultdict(list)
        for ranked in rank(self.rules):
            self.by_subject[ranked.rule.subject].append(ranked.rule)
            self._by_scope[_scope(ranked.rule)].append(ranked.rule)
        self._lines = {id(statement.says): statement for statement in statements}

    async def decide(
        self, principal: Principal, action: str, resource: str, context: Mapping[str, str] = _NOTHING
    ) -> Decision:
        return self.index.decide(principal, action, resource)

    async def grants(self, principal: Principal) -> Grants:
        return self.index.grants(principal)

    @property
    def version(self) -> str:
        return self.index.version

    def line_of(self, says: Rule | Holding) -> Statement:
        return self._lines[id(says)]

    def held(self, who: Principal, *more: Grant, without: Holding | None = None) -> dict[Grant, Holding | None]:
        """What somebody holds, and would with `more` or without a line, each with the line that gave it."""
        own = (who.id, *(f"role:{role}" for role in sorted(who.roles)), *more)
        return self.holders.steps(who.id, own, who.tenant, without=without)

    def applying(self, who: Principal, action: str, resource: str, held: Iterable[Grant] | None = None) -> list[Rule]:
        """All rules that speak of a question, the one that decides first; of somebody who holds `held`, if given."""
        grants = frozenset(self.held(who) if held is None else held)
        found = sorted(self.index.applying(who.id, grants, action, resource, who.tenant))
        # Of rules that differ in their verdict alone the index knows the strictest.
        rules = [rule for ranked in found for rule in self._by_scope[_scope(ranked.rule)]]
        return [ranked.rule for ranked in rank(rules)]


def _scope(rule: Rule) -> _Scope:
    return rule.subject, rule.action, rule.resource, rule.tenant


def changes_for(book: Book, who: Principal, action: str, resource: str, *, asks: bool = True) -> tuple[Change, ...]:
    """The single changes by which `who` may do `action` to `resource`, the least broad first.

    `asks=False`: it is no asker, but a source that had a part in somebody's call, and is given no roles.
    """
    search = _Search(book, who, action, resource, asks=asks)
    least = [min(of_kind, key=_order) for of_kind in search.kinds() if of_kind]
    return tuple(sorted(least, key=_order))


def removals_for_all(
    book: Book, parts: Iterable[tuple[Principal, bool]], action: str, resource: str
) -> tuple[Change, ...]:
    """The single lines less by which all of several may do it, the least broad first; of each, whether it asks."""
    each = [
        {
            change.number: change
            for of_kind in _Search(book, who, action, resource, asks=asks).kinds()
            for change in of_kind
        }
        for who, asks in parts
    ]
    common = set.intersection(*map(set, each)) - {0}
    both = [[found[number] for found in each] for number in sorted(common)]
    merged = [
        replace(
            changes[0],
            also_for=_together(change.also_for for change in changes),
            grants=_together(change.grants for change in changes),
            rules=_together(change.rules for change in changes),
        )
        for changes in both
    ]
    least = [min(of_kind, key=_order) for kind in ChangeKind if (of_kind := [c for c in merged if c.kind is kind])]
    return tuple(sorted(least, key=_order))


def _together(lists: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item for each in lists for item in each))


def _order(change: Change) -> tuple[tuple[int, int], str]:
    return change.breadth, change.line


class _Search:
    """The changes that would allow one thing, kind by kind."""

    def __init__(self, book: Book, who: Principal, action: str, resource: str, *, asks: bool) -> None:
        self._book, self._who, self._action, self._resource, self._asks = book, who, action, resource, asks
        self._held = book.held(who)
        applying = book.applying(who, action, resource)
        self._objecting = [rule for rule in applying if rule.verdict is not Verdict.ALLOW]
        self._allowing = [rule for rule in applying if rule.verdict is Verdict.ALLOW]
        self._end = f" in {who.tenant}" if who.tenant else ""

    def kinds(self) -> Iterator[list[Change]]:
        if self._allowing and not self._objecting:
            return
        if not self._objecting:
            yield list(self._rule())
            yield list(self._roles()) if self._asks else []
        if len(self._objecting) == 1 and self._allowing:
            yield [self._without_rule(self._objecting[0])]
        yield list(self._without_holdings())

    def _rule(self) -> Iterator[Change]:
        line = f"allow {self._who.id} {self._action} {self._resource}{self._end}"
        if ANY not in line and _readable(line):
            yield Change(ChangeKind.ADD_RULE, line, also_for=self._others())

    def _roles(self) -> Iterator[Change]:
        for role in sorted(self._roles_that_may()):
            line = f"member {self._who.id} {role}{self._end}"
            held = self._book.held(self._who, role)
            if self._allows(held) and _readable(line):
                gained = self._gained(held, self._held)
                rules = self._speaking_of(gained)
                yield Change(ChangeKind.ADD_ROLE, line, 0, self._others(), gained, rules)

    def _without_rule(self, rule: Rule) -> Change:
        statement = self._book.line_of(rule)
        others = () if rule.subject == self._who.id else (f"everybody who holds {rule.subject}",)
        if ANY in rule.subject:
            others = (f"everybody whose id matches {rule.subject}",)
        may = [other.id for other in self._book.rules if other is not rule and _opened_without(rule, other)]
        also = (*self._others(rule.tenant), *others)
        return Change(ChangeKind.REMOVE_RULE, statement.text, statement.number, also, (), tuple(may))

    def _without_holdings(self) -> Iterator[Change]:
        for holding in self._book.holdings:
            if holding.grant not in self._held or holding.tenant not in (None, self._who.tenant):
                continue
            if holding.holder not in self._held and not (
                ANY in holding.holder and matches(holding.holder, self._who.id)
            ):
                continue
            held = self._book.held(self._who, without=holding)
            if self._allows(held):
                yield self._without_holding(holding, held)

    def _without_holding(self, holding: Holding, held: Iterable[Grant]) -> Change:
        lost = self._gained(self._held, held)
        statement = self._book.line_of(holding)
        others = () if holding.holder == self._who.id else (f"everybody who is {holding.holder}",)
        also = (*self._others(holding.tenant), *others)
        rules = self._speaking_of(lost, objecting=True)
        return Change(ChangeKind.REMOVE_HOLDING, statement.text, statement.number, also, lost, rules)

    def _others(self, tenant: str | None = "") -> tuple[str, ...]:
        """Who else is meant when this one is named."""
        others = [] if self._asks else [f"every run that {self._who.id} had a part in"]
        if not self._who.tenant or tenant is None:
            others.append(f"{self._who.id} of every tenant")
        if given := [h for h in self._book.holdings if h.grant == self._who.id]:
            others.append(f"whoever is given {self._who.id} by line {self._book.line_of(given[0]).number}")
        return tuple(others)

    def _roles_that_may(self) -> set[Grant]:
        """The roles that somebody holds to whom a rule allows it, and those that include them."""
        reached = {
            rule.subject
            for rule in self._book.rules
            if rule.verdict is Verdict.ALLOW
            and rule.tenant in (None, self._who.tenant)
            and matches(rule.action, self._action)
            and matches(rule.resource, self._resource)
        }
        holders: dict[Grant, list[str]] = defaultdict(list)
        for holding in self._book.holdings:
            holders[holding.grant].append(holding.holder)
        found: set[Grant] = set()
        while reached:
            found |= reached
            reached = {holder for grant in reached for holder in holders[grant]} - found
        return {grant for grant in found if grant.startswith("role:") and grant not in self._held}

    def _allows(self, held: Iterable[Grant]) -> bool:
        applying = self._book.applying(self._who, self._action, self._resource, held)
        return bool(applying) and applying[0].verdict is Verdict.ALLOW

    def _gained(self, more: Iterable[Grant], fewer: Iterable[Grant]) -> tuple[Grant, ...]:
        return tuple(sorted(set(more) - set(fewer)))

    def _speaking_of(self, grants: Iterable[Grant], *, objecting: bool = False) -> tuple[str, ...]:
        """The rules of this tenant about who holds these; only those that object, if asked for."""
        return tuple(
            rule.id
            for grant in grants
            for rule in self._book.by_subject.get(grant, ())
            if rule.tenant in (None, self._who.tenant) and not (objecting and rule.verdict is Verdict.ALLOW)
        )


def _opened_without(rule: Rule, other: Rule) -> bool:
    """Whether `other` may decide something milder where `rule` did."""
    return (
        (other.verdict is Verdict.ALLOW or (rule.verdict is Verdict.DENY and other.verdict is Verdict.ASK))
        and (other.tenant == rule.tenant or None in (other.tenant, rule.tenant))
        and overlap(other.action, rule.action)
        and overlap(other.resource, rule.resource)
    )


def _readable(line: str) -> bool:
    try:
        Rules(line)
    except BadPolicy:
        return False
    return True


__all__ = ["Book", "Change", "ChangeKind", "changes_for", "removals_for_all"]
