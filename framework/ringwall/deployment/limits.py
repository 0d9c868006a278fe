"""Lines that a person may let stand: what one allows, within which limits, written so that it can be reviewed.

The line is all there is: what is kept, shown and obeyed is the same text, read by `StandingRule.parse`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast

from ringwall.deployment.base import Decision
from ringwall.deployment.ruleset import matches
from ringwall.deployment.terms import written
from ringwall.errors import InvalidInput
from ringwall.label import Source
from ringwall.principal import Grant, Grants, scoped
from ringwall.schema import JSON, canonical, digest

_PLAIN: Final = re.compile(r"[A-Za-z_][\w:./@+-]*")
_OPERATORS: Final = ("=", "in", "<=", ">=", "like", "any")


class Limit(NamedTuple):
    """What an argument may be: `=` a value, `in` a list, `<=` or `>=` a number, `like` a text with `*`, or `any`."""

    operator: str
    value: JSON = None

    def admits(self, value: JSON) -> bool:
        """Whether the argument keeps to it. Nothing is converted: `"4"` is no number."""
        match self.operator:
            case "any":
                return True
            case "=":
                return canonical(value) == canonical(self.value)
            case "in":
                return isinstance(self.value, list) and canonical(value) in map(canonical, self.value)
            case "like":
                return isinstance(value, str) and isinstance(self.value, str) and matches(self.value, value)
        if not _is_number(value) or not _is_number(self.value):
            return False
        number, bound = cast(float, value), cast(float, self.value)
        return number <= bound if self.operator == "<=" else number >= bound

    @property
    def text(self) -> str:
        return self.operator if self.operator == "any" else f"{self.operator} {canonical(self.value)}"


ANYTHING: Final = Limit("any")
"""No limit: the argument may be whatever the model writes."""


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)
class Case:
    """A call that a rule asks about: what a standing rule is held against.

    `grants` are what its requester holds, `asks` the marks of the rules that ask.
    """

    run: str
    tool: str
    arguments: Mapping[str, JSON]
    tenant: str
    grants: Grants
    sources: frozenset[Source]
    asks: frozenset[str]


@dataclass(frozen=True, slots=True)
class StandingRule:
    """A yes that stands, within its bounds.

    It lets `who` (a grant without a tenant, such as `user:ana`) have `tool` called, with arguments that each keep to
    their `limits`, influenced by nothing but `sources`, where only the rules marked in `asks` ask; `uses` times,
    until the Unix time `until` (whole seconds), and, unless it is empty, within `run` alone. It never lifts a no.
    """

    who: Grant
    tool: str
    limits: tuple[tuple[str, Limit], ...]
    sources: frozenset[Source]
    asks: frozenset[str]
    uses: int
    until: int
    tenant: str = ""
    run: str = ""

    def covers(self, case: Case) -> bool:
        """Whether the case lies within all bounds but use and time."""
        return (
            self.tool == case.tool
            and self.tenant == case.tenant
            and scoped(self.who, self.tenant) in case.grants
            and self.run in ("", case.run)
            and case.sources <= self.sources
            and case.asks <= self.asks
            and self._admits(case.arguments)
        )

    def _admits(self, arguments: Mapping[str, JSON]) -> bool:
        named = {name for name, _ in self.limits}
        return named == arguments.keys() and all(limit.admits(arguments[name]) for name, limit in self.limits)

    @property
    def line(self) -> str:
        """The rule as a line."""
        limits = " and ".join(f"{_word(name)} {limit.text}" for name, limit in self.limits) or "nothing"
        until = datetime.fromtimestamp(self.until, UTC).isoformat()
        line = (
            f"allow {_word(self.who)} call {_word(f'tool:{self.tool}')} where {limits}"
            f" from {_words(self.sources)} asked by {_words(self.asks)} uses {self.uses} until {until}"
        )
        line += f" in {_word(self.tenant)}" if self.tenant else ""
        return line + (f" within run {_word(self.run)}" if self.run else "")

    @classmethod
    def parse(cls, line: str) -> StandingRule:
        """Read back a line. Raises `InvalidInput` for what `line` would not have written."""
        try:
            rule = _Reader(line).rule()
        except (ValueError, OverflowError, OSError, RecursionError) as error:
            raise InvalidInput(
                f"a standing rule that cannot be read: {error}", expected="a line as it was shown"
            ) from None
        if rule.line != line:
            raise InvalidInput("a standing rule that is not written as it is meant", expected=f"`{rule.line}`")
        return rule


def mark(ask: Decision) -> str:
    """Names a rule that asks, and what it says: another text or other terms under the same number is another rule."""
    return f"{ask.rule}/{digest(f'{ask.reason} {written(ask.terms)}')[:12]}"


def _word(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)


def _words(texts: frozenset[str]) -> str:
    return " and ".join(map(_word, sorted(texts)))


class _Reader:
    """Reads a line from left to right."""

    def __init__(self, line: str) -> None:
        self._line, self._at = line, 0

    def rule(self) -> StandingRule:
        self._expect("allow")
        who = self._word()
        self._expect("call")
        tool = self._word()
        if not tool.startswith("tool:"):
            raise ValueError(f"{tool!r} is no tool")
        self._expect("where")
        limits = () if self._take("nothing") else self._limits()
        self._expect("from")
        sources = self._words()
        self._expect("asked", "by")
        asks = self._words()
        self._expect("uses")
        uses = self._json()
        self._expect("until")
        until = int(datetime.fromisoformat(self._until_space()).timestamp())
        tenant = self._word() if self._take("in") else ""
        run = self._word() if self._take("within", "run") else ""
        if self._at != len(self._line) or not isinstance(uses, int):
            raise ValueError("there is more than a rule")
        return StandingRule(who, tool.removeprefix("tool:"), limits, sources, asks, uses, until, tenant, run)

    def _limits(self) -> tuple[tuple[str, Limit], ...]:
        found = [self._limit()]
        while self._take("and"):
            found.append(self._limit())
        return tuple(found)

    def _limit(self) -> tuple[str, Limit]:
        name = self._word()
        operator = self._until_space()
        if operator not in _OPERATORS:
            raise ValueError(f"{operator!r} where {', '.join(_OPERATORS)} belongs")
        return name, Limit(operator) if operator == "any" else Limit(operator, self._json())

    def _words(self) -> frozenset[str]:
        found = [self._word()]
        while self._take("and"):
            found.append(self._word())
        return frozenset(found)

    def _word(self) -> str:
        if self._line[self._at : self._at + 1] == '"':
            return str(self._json())
        return self._until_space()

    def _json(self) -> JSON:
        value, end = json.JSONDecoder().raw_decode(self._line, self._at)
        self._at = end + 1 if self._line[end : end + 1] == " " else end
        return cast(JSON, value)

    def _until_space(self) -> str:
        end = self._line.find(" ", self._at)
        end = len(self._line) if end < 0 else end
        word, self._at = self._line[self._at : end], min(end + 1, len(self._line))
        return word

    def _take(self, *words: str) -> bool:
        text = " ".join(words)
        if not (self._line[self._at :] + " ").startswith(text + " "):
            return False
        self._at = min(self._at + len(text) + 1, len(self._line))
        return True

    def _expect(self, *words: str) -> None:
        if not self._take(*words):
            raise ValueError(f"{' '.join(words)!r} is missing at character {self._at}")
