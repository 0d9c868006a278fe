"""Tests of a policy that whoever answers for it can read and write: a line each, in the words of the rules.

    allow user:ana (guest) ask app:dinner
    ask   user:ana (guest) with doc:menu.md call tool:book_table  because "a document may not book alone"
    deny  user:ana with web:example.org call tool:book_table in acme
    holds user:bo collection:kitchen
    lacks user:ana (guest) collection:kitchen     # `#` begins a comment

First what is expected, then of whom: a principal, in brackets the roles that whoever authenticates vouches for, and
after `with` what else had a part in it, as a document that the run had read. The strictest answer about all of them
counts, as in a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from ringwall.deployment.base import Decision, Policy, Verdict
from ringwall.deployment.gates import caused_by
from ringwall.deployment.ruleset import ANY
from ringwall.errors import BadPolicy, InvalidInput
from ringwall.principal import Grant, Principal, scoped


@dataclass(frozen=True, slots=True)
class Asker:
    """Somebody who asks a policy, and the policy."""

    policy: Policy
    principal: Principal


@dataclass(frozen=True, slots=True)
class Question:
    """May `principal`, shaped by `sources`, do `action` to `resource`? `sources` are further ones, by their names."""

    principal: Principal
    action: str
    resource: str
    sources: tuple[str, ...] = ()

    async def put_to(self, policy: Policy) -> Decision:
        """The strictest decision about the principal and each source."""
        sources = {self.principal.id, *self.sources}
        return await caused_by(Asker(policy, self.principal), sources, self.action, self.resource)


@dataclass(frozen=True, slots=True)
class Expectation:
    """One line: the verdict that `question` should get, and, unless `because` is empty, with which reason."""

    line: int
    text: str
    question: Question
    verdict: Verdict
    because: str = ""


@dataclass(frozen=True, slots=True)
class Possession:
    """One line: whether `principal` should hold `grant`."""

    line: int
    text: str
    principal: Principal
    grant: Grant
    held: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one line: `got` is empty if it was as expected. `rule` is the id of the rule that decided."""

    line: int
    text: str
    rule: str
    got: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What came of all lines, in their order."""

    outcomes: tuple[Outcome, ...]

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes if outcome.got)

    @property
    def rules(self) -> frozenset[str]:
        """The ids of the rules that decided something; those of no use to any line are not here."""
        return frozenset(outcome.rule for outcome in self.outcomes)


_WORD: Final = r'[^\s"#()][^\s"]*'
_WHO: Final = rf"(?P<who>{_WORD})(?:\s+\((?P<roles>[^()\"#]*)\))?"
_TAIL: Final = rf"(?:\s+in\s+(?P<tenant>{_WORD}))?(?:\s+#.*)?"
_DECISION: Final = re.compile(
    rf"(?P<verdict>allow|ask|deny)\s+{_WHO}(?P<sources>(?:\s+with\s+{_WORD})*)\s+(?P<action>{_WORD})\s+"
    rf'(?P<resource>{_WORD})(?:\s+because\s+"(?P<because>[^"]*)")?{_TAIL}'
)
_POSSESSION: Final = re.compile(rf"(?P<verdict>holds|lacks)\s+{_WHO}\s+(?P<grant>{_WORD}){_TAIL}")
_EXPECTED: Final = (
    "`allow|ask|deny <principal> [(<roles>)] [with <source>]... <action> <resource> [because \"<reason>\"] "
    "[in <tenant>]`, or `holds|lacks <principal> [(<roles>)] <grant> [in <tenant>]`"
)  # fmt: skip


def read_expectations(text: str) -> tuple[Expectation | Possession, ...]:
    """Read the lines of a test. Raises `BadPolicy` naming the line and what was expected there."""
    stripped = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    read = tuple(_read(number, line) for number, line in stripped if line and not line.startswith("#"))
    if not read:
        raise BadPolicy("a policy test without a line", expected=_EXPECTED)
    return read


async def run_expectations(policy: Policy, expected: Sequence[Expectation | Possession]) -> Report:
    """Ask a policy what each line says."""
    return Report(tuple([await _outcome(policy, each) for each in expected]))


def _read(number: int, text: str) -> Expectation | Possession:
    match = _DECISION.fullmatch(text) or _POSSESSION.fullmatch(text)
    if match is None:
        raise _bad(number, text, "cannot be read")
    part = {name: value for name, value in match.groupdict().items() if value is not None}
    for name in ("who", "action", "resource", "grant", "sources", "tenant"):
        if ANY in part.get(name, ""):
            raise _bad(number, text, "asks about a pattern", "one who exists, and one thing: `user:ana`, `tool:search`")
    try:
        return _made(number, text, part)
    except InvalidInput as error:
        raise _bad(number, text, f"cannot be asked: {error.what}", error.expected) from None


def _made(number: int, text: str, part: dict[str, str]) -> Expectation | Possession:
    roles = frozenset(part.get("roles", "").replace(",", " ").split())
    principal = Principal(part["who"], part.get("tenant", ""), frozenset(r.removeprefix("role:") for r in roles))
    if "grant" in part:
        return Possession(number, text, principal, part["grant"], part["verdict"] == "holds")
    sources = tuple(part["sources"].split()[1::2])
    for source in sources:
        Principal(source)
    question = Question(principal, part["action"], part["resource"], sources)
    return Expectation(number, text, question, Verdict(part["verdict"]), part.get("because", ""))


def _bad(number: int, text: str, what: str, expected: str = _EXPECTED) -> BadPolicy:
    return BadPolicy(f"policy test, line {number}: `{text}` {what}", expected=expected)


async def _outcome(policy: Policy, expected: Expectation | Possession) -> Outcome:
    if isinstance(expected, Possession):
        held = scoped(expected.grant, expected.principal.tenant) in await policy.grants(expected.principal)
        says = "is held" if held else "is not held"
        return Outcome(expected.line, expected.text, "", "" if held is expected.held else f"{expected.grant} {says}")
    decision = await expected.question.put_to(policy)
    return Outcome(expected.line, expected.text, decision.rule, "; ".join(_differences(expected, decision)))


def _differences(expected: Expectation, decision: Decision) -> Iterator[str]:
    if decision.verdict is not expected.verdict:
        yield f"{decision.verdict}, by {decision.rule}: {decision.reason}"
    elif expected.because not in ("", decision.reason):
        yield f"{decision.verdict}, but by {decision.rule}: {decision.reason}"


def untested(report: Report, rules: Iterable[str]) -> tuple[str, ...]:
    """Those of these ids of rules that decided no line."""
    return tuple(rule for rule in rules if rule not in report.rules)


__all__ = [
    "Expectation",
    "Outcome",
    "Possession",
    "Question",
    "Report",
    "read_expectations",
    "run_expectations",
    "untested",
]
