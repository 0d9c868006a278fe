"""What is wrong with rules that can be read: lines that decide nothing, lines that open too much, names nobody has.

Of a rule is said that it decides nothing when one other rule decides all that it could: that is certain. A rule that
only several others make useless together is not found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Final

from ringwall.deployment.base import Verdict
from ringwall.deployment.gates import QUESTIONS
from ringwall.deployment.holders import ANYBODY, Holders
from ringwall.deployment.rules import Statement, read_statements
from ringwall.deployment.ruleset import ANY, Holding, Rule, RuleSet, matches
from ringwall.principal import PUBLIC


class Severity(StrEnum):
    """`WARNING` is a line to mend or remove; `NOTE` is one to look at, which may well be meant."""

    WARNING = "warning"
    NOTE = "note"


class FindingKind(StrEnum):
    """What is wrong with a line.

    The first four can be removed: no verdict changes, and of those before `REDUNDANT` not even a reason.
    """

    DUPLICATE = "duplicate"
    SHADOWED = "shadowed"
    UNREACHABLE = "unreachable"
    REDUNDANT = "redundant"
    OVER_BROAD = "over-broad"
    HELD_BY_NOBODY = "held-by-nobody"
    UNKNOWN_NAME = "unknown-name"


REMOVABLE: Final = frozenset(
    (FindingKind.DUPLICATE, FindingKind.SHADOWED, FindingKind.UNREACHABLE, FindingKind.REDUNDANT)
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one line; `because_of` is the line that makes it so, 0 if none does."""

    line: int
    kind: FindingKind
    severity: Severity
    text: str
    what: str
    because_of: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """The names that exist, as far as they are known; None: not known, so that nothing is said about them.

    All without their kind: `book_table`, `dinner`, `hr`. `irreversible` are those tools whose effect cannot be undone.
    `roles` are those that whoever authenticates vouches for.
    """

    tools: frozenset[str] | None = None
    apps: frozenset[str] | None = None
    collections: frozenset[str] | None = None
    roles: frozenset[str] | None = None
    irreversible: frozenset[str] = field(default_factory=frozenset)


NOTHING_KNOWN: Final = Known()


def check(rules: str | Iterable[str], *, known: Known = NOTHING_KNOWN) -> tuple[Finding, ...]:
    """Look for what is wrong with rules, in the order of their lines. Raises `BadPolicy` if they cannot be read."""
    statements = read_statements(rules)
    found = [*_useless(statements), *_useless_holdings(statements)]
    for look in (_over_broad, _held_by_nobody, _unknown):
        found += look(statements, known)
    return tuple(sorted(found, key=lambda finding: finding.line))


# Lines that decide nothing


def _useless(statements: Sequence[Statement]) -> Iterator[Finding]:
    rules = [(statement, statement.says) for statement in statements if isinstance(statement.says, Rule)]
    holdings = [statement.says for statement in statements if isinstance(statement.says, Holding)]
    # Each rule's scope is asked about like a question, of an index that holds all of them.
    index, holders = RuleSet([rule for _, rule in rules], holdings, version=""), Holders(holdings)
    lines = {rule.id: statement for statement, rule in rules}
    without_effect: set[str] = set()
    spared: list[tuple[Statement, Rule, list[Rule]]] = []
    for statement, rule in rules:
        as_id, held = holders.whoever(rule.subject, rule.tenant)
        covering = index.applying(as_id, held, rule.action, rule.resource, rule.tenant)
        first = min(covering).rule
        if first is not rule:
            without_effect.add(rule.id)
            yield _decides_nothing(statement, rule, first, lines[first.id])
        elif len(covering) > 1:
            spared.append((statement, rule, [ranked.rule for ranked in sorted(covering)[1:]]))
    for statement, rule, others in spared:
        alike = (o for o in others if (o.verdict, o.terms) == (rule.verdict, rule.terms))
        same = next((o for o in alike if o.id not in without_effect), None)
        if same and 'because "' not in statement.text:  # whoever gave a reason wants it told
            yield _redundant(statement, lines[same.id])


def _decides_nothing(statement: Statement, rule: Rule, first: Rule, by: Statement) -> Finding:
    if first.verdict is not rule.verdict:
        kind, what = FindingKind.SHADOWED, f"line {by.number} decides all of it: {first.verdict}"
    elif (_scope(first), first.terms) == (_scope(rule), rule.terms):
        kind, what = FindingKind.DUPLICATE, f"line {by.number} says the same"
    else:
        kind, what = FindingKind.UNREACHABLE, f"line {by.number} decides all of it before"
    return _warning(statement, kind, f"{what}: `{by.text}`", by.number)


def _redundant(statement: Statement, by: Statement) -> Finding:
    what = f"line {by.number} says this and more: `{by.text}`"
    return Finding(statement.number, FindingKind.REDUNDANT, Severity.NOTE, statement.text, what, by.number)


def _useless_holdings(statements: Sequence[Statement]) -> Iterator[Finding]:
    """Lines that give what another line gives already: the same, or the same in every tenant."""
    first: dict[Holding, Statement] = {}
    given = [(statement, statement.says) for statement in statements if isinstance(statement.says, Holding)]
    for statement, holding in given:
        by = first.setdefault(holding, statement)
        if by is not statement:
            yield _warning(statement, FindingKind.DUPLICATE, f"line {by.number} says the same", by.number)
    for statement, holding in given:
        everywhere = first.get(Holding(holding.holder, holding.grant)) if holding.tenant else None
        if everywhere and first[holding] is statement:
            yield _redundant(statement, everywhere)


def _scope(rule: Rule) -> tuple[str, ...]:
    return rule.subject, rule.action, rule.resource, rule.tenant or ""


# Lines that open too much


def _over_broad(statements: Sequence[Statement], known: Known) -> Iterator[Finding]:
    for statement in statements:
        what = _opens(statement.says, known)
        if what:
            yield _warning(statement, FindingKind.OVER_BROAD, what)


def _opens(says: Rule | Holding, known: Known) -> str:
    if isinstance(says, Holding):
        everybody = _everybody(says.holder)
        return f"everybody gets {says.grant}: each page and document that a run reads, too" if everybody else ""
    if says.verdict is not Verdict.ALLOW:
        return ""
    if matches(says.action, ANY):
        return "every action is allowed: to approve and to audit, too, and what comes with later versions"
    if matches(says.resource, "*:*"):
        return f"{says.action} is allowed on everything, whatever its kind"
    if says.action != "ask" and _everybody(says.subject) and ANY in says.resource:
        return f"everybody may {says.action} all of {says.resource}: each page and document that a run reads, too"
    return _opens_irreversible(says, known)


def _opens_irreversible(rule: Rule, known: Known) -> str:
    if rule.action != "call" or not (_everybody(rule.subject) or rule.subject.startswith("web:")):
        return ""
    tools = sorted(tool for tool in known.irreversible if matches(rule.resource, f"tool:{tool}"))
    return f"what a page says may cause what cannot be undone: {', '.join(tools)}" if tools else ""


def _everybody(subject: str) -> bool:
    return subject == PUBLIC or (ANY in subject and matches(subject, ANYBODY))


# Names nobody has


def _held_by_nobody(statements: Sequence[Statement], known: Known) -> Iterator[Finding]:
    given = {statement.says.grant for statement in statements if isinstance(statement.says, Holding)}
    for statement in statements:
        subject = statement.says.subject if isinstance(statement.says, Rule) else statement.says.holder
        kind, _, name = subject.partition(":")
        if subject in given or kind not in ("role", "collection"):
            continue
        if kind == "collection":
            yield _warning(statement, FindingKind.HELD_BY_NOBODY, f"no line grants {subject}")
        elif known.roles is None:
            what = f"no line gives {subject}: only whoever authenticates can, by vouching for it"
            yield Finding(statement.number, FindingKind.HELD_BY_NOBODY, Severity.NOTE, statement.text, what)
        elif name not in known.roles:
            what = f"no line gives {subject}, and nobody vouches for it{_nearest(name, known.roles)}"
            yield _warning(statement, FindingKind.HELD_BY_NOBODY, what)


def _unknown(statements: Sequence[Statement], known: Known) -> Iterator[Finding]:
    questions = frozenset((QUESTIONS.removeprefix("collection:"),))
    names = {
        "tool": known.tools,
        "app": known.apps,
        "collection": None if known.collections is None else known.collections | questions,
    }
    exists = {kind: _existing(of_kind) for kind, of_kind in names.items() if of_kind is not None}
    for statement in statements:
        for word in _words(statement.says):
            kind, _, name = word.partition(":")
            if kind in exists and name and not exists[kind](name):
                what = f"there is no {kind} {name!r}{_nearest(name, names[kind] or ())}"
                yield _warning(statement, FindingKind.UNKNOWN_NAME, what)


def _existing(names: frozenset[str]) -> Callable[[str], bool]:
    return lambda name: name in names or (ANY in name and any(matches(name, each) for each in names))


def _words(says: Rule | Holding) -> tuple[str, ...]:
    return (says.subject, says.resource) if isinstance(says, Rule) else (says.holder, says.grant)


def _nearest(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(names), 1)
    return f"; meant: {near[0]}?" if near else ""


def _warning(statement: Statement, kind: FindingKind, what: str, because_of: int = 0) -> Finding:
    return Finding(statement.number, kind, Severity.WARNING, statement.text, what, because_of)


__all__ = ["NOTHING_KNOWN", "REMOVABLE", "Finding", "FindingKind", "Known", "Severity", "check"]
