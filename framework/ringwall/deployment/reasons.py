"""Why a policy decided as it did: which rule, through which roles, and the smallest change that would allow it.

What changes are looked for, and in which order they come, is told in `ringwall.deployment.changes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ringwall.deployment.base import Decision, Policy
from ringwall.deployment.changes import Book, Change, changes_for, removals_for_all
from ringwall.deployment.expectations import Question
from ringwall.deployment.gates import source_principal
from ringwall.principal import Grant, Principal


@dataclass(frozen=True, slots=True)
class Link:
    """`holder` got `grant` by a line of this number."""

    holder: Grant
    grant: Grant
    line: int


@dataclass(frozen=True, slots=True)
class Part:
    """What was decided about the asker, or about one source that had a part in it.

    `through` leads from what it is to the subject of the rule that decided; `overruled` are the ids of the other
    rules that speak of this question, strictest first.
    """

    who: str
    decision: Decision
    through: tuple[Link, ...] = ()
    overruled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reasons:
    """The decision, and of each part of the question why.

    `changes` are single changes of which each would allow it, the least broad first: empty if it is allowed, and if
    no single change would do; then `in_the_way` are the ids of the rules that object.
    """

    decision: Decision
    parts: tuple[Part, ...]
    changes: tuple[Change, ...] = ()
    in_the_way: tuple[str, ...] = ()


async def reasons(policy: Policy, question: Question) -> Reasons:
    """What any policy gives as its reasons: the rule that decided about each part of the question."""
    parts = [Part(who.id, await policy.decide(who, question.action, question.resource)) for who in _all_parts(question)]
    return Reasons(await question.put_to(policy), tuple(parts))


async def reasons_by_rules(rules: str | Iterable[str], question: Question) -> Reasons:
    """Why these rules decide so, with the lines and what to change. Raises `BadPolicy`."""
    book = Book(rules)
    whole = [(who, _part(book, who, question)) for who in _all_parts(question)]
    objecting = [(who, part) for who, part in whole if not part.decision]
    parts = tuple(part for _, part in whole)
    decision = await question.put_to(book)
    if len(objecting) != 1:
        askers = [(who, who is question.principal) for who, _ in objecting]
        removals = removals_for_all(book, askers, question.action, question.resource) if objecting else ()
        ways = () if removals else tuple(dict.fromkeys(part.decision.rule for _, part in objecting))
        return Reasons(decision, parts, removals, ways)
    (who, part) = objecting[0]
    found = changes_for(book, who, question.action, question.resource, asks=who is question.principal)
    stands = [rule.id for rule in book.applying(who, question.action, question.resource) if rule.verdict != "allow"]
    return Reasons(decision, parts, found, () if found else (*stands,) or (part.decision.rule,))


def _all_parts(question: Question) -> list[Principal]:
    """The asker and the sources, in the order in which a run asks about them."""
    asker = question.principal
    return [
        asker if source == asker.id else source_principal(source, asker.tenant)
        for source in sorted({asker.id, *question.sources})
    ]


def _part(book: Book, who: Principal, question: Question) -> Part:
    decision = book.index.decide(who, question.action, question.resource)
    applying = book.applying(who, question.action, question.resource)
    overruled = tuple(rule.id for rule in applying if rule.id != decision.rule)
    subject = next((rule.subject for rule in applying if rule.id == decision.rule), "")
    return Part(who.id, decision, _through(book, who, subject), overruled)


def _through(book: Book, who: Principal, subject: str) -> tuple[Link, ...]:
    steps, links = book.held(who), list[Link]()
    while holding := steps.get(subject):
        links.append(Link(holding.holder, holding.grant, book.line_of(holding).number))
        subject = holding.holder
    return tuple(reversed(links))


__all__ = ["Link", "Part", "Reasons", "reasons", "reasons_by_rules"]
