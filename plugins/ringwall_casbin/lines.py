"""From casbin's policy lines to compiled rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError
from pathlib import Path
from typing import Final

from ringwall.deployment.base import Verdict
from ringwall.deployment.ruleset import ANY, Holding, Rule, RuleSet, longest_chain
from ringwall.errors import BadPolicy
from ringwall.principal import TENANT_MARK
from ringwall_casbin.model import Model, read_text

_FIELDS: Final = {"p": ("sub", "dom", "obj", "act", "eft"), "g": ("sub", "grant", "dom")}
_SHAPES: Final = {
    "p": "`p, <subject>, <tenant or *>, <resource>, <action>, <allow | ask | deny>`",
    "g": "`g, <holder>, <grant>, <tenant or *>`",
}
# Casbin splits at commas, but not within brackets: a field with either may come back from storage as another.
_FIELD: Final = re.compile(r"[^\s,()\[\]\"]+")
_DEEPEST: Final = 9
"""Links that casbin's role manager follows; beyond that it silently stops."""


@dataclass(frozen=True, slots=True)
class PolicyLine:
    """One line: `kind` is `p` or `g`. `where` names its place in a message and is no part of its identity."""

    kind: str
    fields: tuple[str, ...]
    where: str

    @property
    def text(self) -> str:
        return ", ".join((self.kind, *self.fields))

    def bad(self, what: str, expected: str = "") -> BadPolicy:
        return BadPolicy(f"{self.where}: `{self.text}` {what}", expected=expected or _SHAPES.get(self.kind, ""))


def read_lines(path: Path) -> Iterator[PolicyLine]:
    """Read a policy file, also what casbin would skip in silence: that is refused when compiled."""
    for number, text in enumerate(read_text(path).split("\n"), 1):
        kind, *fields = (field.strip() for field in text.split(","))
        if text.strip() and not kind.startswith("#"):
            yield PolicyLine(kind, tuple(fields), f"casbin policy {path}, line {number}")


def compile_lines(lines: Iterable[PolicyLine], model: Model, *, version: str) -> RuleSet:
    """Compile. Raises `BadPolicy` naming the line that casbin would ignore or understand in another way."""
    lines = list(lines)
    for line in lines:
        _check(line, model.patterns)
    grouping = [line for line in lines if line.kind == "g"]
    _check_depth(grouping)
    rules = (_rule(line) for line in lines if line.kind == "p")
    return RuleSet(rules, (_holding(line) for line in grouping), version=version)


def _check(line: PolicyLine, patterns: frozenset[str]) -> None:
    names = _FIELDS.get(line.kind)
    if not names:
        raise line.bad("is of a kind that the model does not define", " or ".join(_SHAPES.values()))
    if len(line.fields) != len(names):
        raise line.bad(f"has {len(line.fields)} fields after `{line.kind}`, not {len(names)}")
    for name, field in zip(names, line.fields, strict=True):
        if not _FIELD.fullmatch(field) or TENANT_MARK in field:
            raise line.bad(f"has {field!r} as {name}", "no space, comma, bracket, quote or `::`, and not nothing")
        if ANY in field:
            _check_pattern(line, name, field, patterns)
        elif name in ("sub", "grant") and ":" not in field:
            raise line.bad(f"has {field!r} as {name}", "`kind:name`, or `*` for everybody")
    if line.kind == "p" and line.fields[-1] not in tuple(Verdict):
        raise line.bad(f"has the effect {line.fields[-1]!r}", "allow, ask or deny")


def _check_pattern(line: PolicyLine, name: str, field: str, patterns: frozenset[str]) -> None:
    # keyMatch ignores what follows the first `*`: `tool:*_read` would match all that begins with `tool:`.
    if field.index(ANY) != len(field) - 1:
        raise line.bad(f"has {field!r} as {name}", "`*` at the end only")
    if name not in patterns or (line.kind == "g" and name == "sub"):
        raise line.bad(f"has the pattern {field!r} as {name}", "one name: here the model knows no wildcard")
    if name == "dom" and field != ANY:
        raise line.bad(f"has {field!r} as tenant", "one tenant, or `*` for every tenant")
    if name == "sub" and field.startswith(("role:", "collection:")):
        raise line.bad(f"has {field!r} as subject", "a role, or a pattern of principals' ids")


_SAID: Final = {Verdict.ALLOW: "may", Verdict.ASK: "must ask to", Verdict.DENY: "may not"}


def _tenant(dom: str) -> str | None:
    return None if dom == ANY else dom


def _rule(line: PolicyLine) -> Rule:
    subject, dom, resource, action, effect = line.fields
    verdict = Verdict(effect)
    reason = f"{subject} {_SAID[verdict]} {action} {resource}"
    return Rule(line.text, verdict, subject, action, resource, _tenant(dom), reason=reason)


def _holding(line: PolicyLine) -> Holding:
    holder, grant, dom = line.fields
    return Holding(holder, grant, _tenant(dom))


def _check_depth(grouping: list[PolicyLine]) -> None:
    try:
        depth = longest_chain(_holding(line) for line in grouping)
    except CycleError as error:
        circle: list[str] = error.args[1]
        last = next(line for line in reversed(grouping) if set(line.fields[:2]) <= set(circle))
        raise last.bad(f"closes a circle: {' → '.join(circle)}", "holders that do not hold each other") from None
    if depth > _DEEPEST:
        raise BadPolicy(
            f"casbin policy with a chain of {depth} grouping lines",
            expected=f"at most {_DEEPEST}: casbin follows no more",
        )
