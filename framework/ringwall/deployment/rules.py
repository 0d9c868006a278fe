"""The smallest real policy: rules, one a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError
from types import MappingProxyType
from typing import Final

from ringwall.deployment.base import Decision, Policy, Terms, Verdict
from ringwall.deployment.ruleset import ANY, Holding, Rule, RuleSet, longest_chain
from ringwall.deployment.terms import CLAUSES, EXPECTED_TERMS, read_terms
from ringwall.errors import BadPolicy, InvalidInput
from ringwall.principal import PUBLIC, TENANT_MARK, Grants, Principal
from ringwall.schema import digest

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Rules(Policy):
    """A policy written in lines; `#` begins a comment.

        role staff includes guest                     # whoever is staff is also a guest
        member user:bo role:staff                     # bo is staff
        grant role:staff collection:kitchen           # whoever is staff holds `collection:kitchen`
        allow role:guest ask app:dinner
        ask   doc:*  call tool:book_table  because "a document may not book without a person's yes"
        deny  web:*  call tool:*  in acme

    The subject of a rule is a grant that the principal holds (`role:guest`, `user:ana`, `collection:kitchen`,
    `public`) or, with a `*`, a pattern of the principal's id. Actions and resources may hold a `*`, which
    stands for any text. Nothing matched: denied. A deny beats an ask, an ask beats an allow; among equals the
    first line decides. A decision's `rule` is `rules:<line>`; its reason is what `because` says, or the line.

    An `ask` may say, after `because`, how people are asked (see `Terms`), in any order:

        of role:clerk,role:manager        # who may answer; otherwise whoever may approve the tool
        needing 2                         # so many different people
        or asker                          # the one who asked may be among them
        within 4h                         # until then: `s`, `m`, `h` or `d`
        then role:director after 30m      # who may answer too from then on; `then only`: nobody else

    `in acme` at the end of any line confines it to the tenant `acme`; without it the line holds in every
    tenant, each for itself: what a principal holds, it holds within its own tenant.

    Raises `BadPolicy`, which names the line and what was expected there.
    """

    def __init__(self, rules: str | Iterable[str]) -> None:
        self._state = _compile(rules, changes=0)
        self._changes = 0

    def replace(self, rules: str | Iterable[str]) -> None:
        """Swap in other rules; the next call sees them. Raises `BadPolicy` and keeps the present ones."""
        self._state = _compile(rules, changes=self._changes + 1)
        self._changes += 1

    async def decide(
        self, principal: Principal, action: str, resource: str, context: Mapping[str, str] = _NOTHING
    ) -> Decision:
        return self._state.decide(principal, action, resource)

    async def grants(self, principal: Principal) -> Grants:
        return self._state.grants(principal)

    @property
    def version(self) -> str:
        """A digest of the text, and the number of replacements so far."""
        return self._state.version


_VERDICTS: Final = frozenset(Verdict)
_WORD: Final = r'[^\s"#][^\s"]*'
_BECAUSE: Final = r'(?:\s+because\s+"(?P<because>[^"]*)")?'
_END: Final = rf"(?:\s+in\s+(?P<tenant>{_WORD}))?(?:\s+#.*)?"

_SHAPES: Final[Mapping[str, tuple[re.Pattern[str], str]]] = {
    "role": (
        re.compile(rf"role\s+(?P<holder>{_WORD})\s+includes\s+(?P<grant>{_WORD}){_END}"),
        "`role <name> includes <name> [in <tenant>]`, the names without `role:`",
    ),
    "member": (
        re.compile(rf"member\s+(?P<holder>{_WORD})\s+(?P<grant>role:{_WORD}){_END}"),
        "`member <principal id or pattern> role:<name> [in <tenant>]`",
    ),
    "grant": (
        re.compile(rf"grant\s+(?P<holder>{_WORD})\s+(?P<grant>(?!role:){_WORD}){_END}"),
        "`grant <subject> <grant> [in <tenant>]`; roles are given with `member` and `role ... includes`",
    ),
    **{
        str(verdict): (
            re.compile(
                rf"{verdict}\s+(?P<subject>{_WORD})\s+(?P<action>{_WORD})\s+(?P<resource>{_WORD}){_BECAUSE}"
                rf"{CLAUSES if verdict is Verdict.ASK else ''}{_END}"
            ),
            f'`{verdict} <subject> <action> <resource> [because "<reason>"]'
            f"{EXPECTED_TERMS if verdict is Verdict.ASK else ''} [in <tenant>]`",
        )
        for verdict in Verdict
    },
}


class _Line:
    """One line of the text, taken apart by the shape that its first word asks for."""

    def __init__(self, number: int, text: str) -> None:
        self.number, self.text, self.keyword = number, text, text.split(maxsplit=1)[0]
        shape, self.expected = _SHAPES.get(self.keyword, (None, f"a line that begins with {', '.join(_SHAPES)}"))
        match = shape.fullmatch(text) if shape else None
        if not match:
            raise self.bad("cannot be read")
        self.parts: dict[str, str] = {name: part for name, part in match.groupdict().items() if part is not None}
        self._check_words()

    def bad(self, what: str, *, expected: str = "") -> BadPolicy:
        return BadPolicy(f"rules, line {self.number}: `{self.text}` {what}", expected=expected or self.expected)

    def _check_words(self) -> None:
        for name, word in self.parts.items():
            if name != "because" and TENANT_MARK in word:
                raise self.bad(
                    f"has {TENANT_MARK!r} in {word!r}", expected="grants without a tenant, and `in <tenant>`"
                )
            if name in ("subject", "holder", "grant") and self.keyword != "role" and not _is_grant(word):
                raise self.bad(f"has {word!r}, which nobody can hold", expected="`kind:name`, or `public`")
            if name in ("grant", "tenant") and ANY in word:
                raise self.bad(f"has a pattern where one name belongs: {word!r}")
            # Patterns are matched against ids alone: such a rule would match nobody, fatal in a deny.
            if name in ("subject", "holder") and ANY in word and word.startswith(("role:", "collection:")):
                raise self.bad(
                    f"has a pattern that matches nobody: {word!r}", expected="one grant, or a pattern of ids"
                )

    def rule(self) -> Rule:
        part, tenant = self.parts, self.parts.get("tenant")
        plain = f"{self.keyword} {part['subject']} {part['action']} {part['resource']}"
        return Rule(
            f"rules:{self.number}",
            Verdict(self.keyword),
            subject=part["subject"],
            action=part["action"],
            resource=part["resource"],
            tenant=tenant,
            reason=part.get("because") or (f"{plain} in {tenant}" if tenant else plain),
            terms=self._terms(),
        )

    def _terms(self) -> Terms:
        try:
            return read_terms(self.parts.get("terms", ""))
        except InvalidInput as error:
            raise self.bad(f"has {error.what}", expected=error.expected) from None

    def holding(self) -> Holding:
        holder, grant = self.parts["holder"], self.parts["grant"]
        if self.keyword == "role":
            if ANY in holder or holder.startswith("role:") or grant.startswith("role:"):
                raise self.bad("does not name two roles")
            holder, grant = f"role:{holder}", f"role:{grant}"
        return Holding(holder, grant, self.parts.get("tenant"))


def _is_grant(word: str) -> bool:
    return ":" in word or ANY in word or word == PUBLIC


@dataclass(frozen=True, slots=True)
class Statement:
    """A line that says something: its number, counted from 1, its text, and what it says."""

    number: int
    text: str
    says: Rule | Holding


def read_statements(rules: str | Iterable[str]) -> list[Statement]:
    """What the lines say, one by one, for those who look at rules rather than obey them. Raises `BadPolicy`."""
    lines = _read(_text(rules))
    said = [(line, line.rule() if line.keyword in _VERDICTS else line.holding()) for line in lines]
    _refuse_circles([(line, says) for line, says in said if isinstance(says, Holding)])
    return [Statement(line.number, line.text, says) for line, says in said]


def _compile(rules: str | Iterable[str], *, changes: int) -> RuleSet:
    text = _text(rules)
    lines = _read(text)
    holdings = [(line, line.holding()) for line in lines if line.keyword not in _VERDICTS]
    _refuse_circles(holdings)
    return RuleSet(
        [line.rule() for line in lines if line.keyword in _VERDICTS],
        [holding for _, holding in holdings],
        version=f"{digest(text)[:16]}.{changes}",
    )


def _text(rules: str | Iterable[str]) -> str:
    return rules if isinstance(rules, str) else "\n".join(rules)


def _read(text: str) -> list[_Line]:
    stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [_Line(number, line) for number, line in stripped if line and not line.startswith("#")]


def _refuse_circles(holdings: list[tuple[_Line, Holding]]) -> None:
    try:
        longest_chain(holding for _, holding in holdings)
    except CycleError as error:
        circle: list[str] = error.args[1]
        line = next(line for line, h in reversed(holdings) if h.holder in circle and h.grant in circle)
        raise line.bad(
            f"closes a circle: {' → '.join(circle)}", expected="roles that do not include each other"
        ) from None


__all__ = ["Rules", "Statement", "read_statements"]
