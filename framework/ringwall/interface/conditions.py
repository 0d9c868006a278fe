"""When a planned call is made: comparisons of values, each with an origin, and all, any or none of several.

In JSON `{"left": ..., "is": "<", "right": ...}`, where left and right are written as arguments are; without `right`
for `empty`. And `{"all": [...]}`, `{"any": [...]}`, `{"not": ...}` of such.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ringwall.errors import Incomparable, InvalidInput
from ringwall.interface.origin import Item, Origin, Read, Taken, Words, origin_from_json, origin_to_json
from ringwall.label import Labelled, join
from ringwall.schema import JSON, canonical, dumps


class Operator(StrEnum):
    """How two values are compared. Numbers are in order with numbers, and texts with texts; nothing is converted."""

    EQUAL = "=="
    NOT_EQUAL = "!="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="
    CONTAINS = "contains"
    """A list has the item, or a text the other text."""
    EMPTY = "empty"
    """No text, item or member, or null."""


@dataclass(frozen=True, slots=True)
class Compared:
    """Two values, compared; `EMPTY` looks at the left one alone."""

    left: Origin
    operator: Operator
    right: Origin = Words(None)  # noqa: RUF009 (frozen)

    def __str__(self) -> str:
        told = f"{_told(self.left)} {'is ' * (self.operator is Operator.EMPTY)}{self.operator}"
        return told if self.operator is Operator.EMPTY else f"{told} {_told(self.right)}"


@dataclass(frozen=True, slots=True)
class AllOf:
    """Each of them holds."""

    parts: tuple[When, ...]

    def __str__(self) -> str:
        return " and ".join(map(_within, self.parts))


@dataclass(frozen=True, slots=True)
class AnyOf:
    """One of them holds."""

    parts: tuple[When, ...]

    def __str__(self) -> str:
        return " or ".join(map(_within, self.parts))


@dataclass(frozen=True, slots=True)
class Not:
    """It does not hold."""

    part: When

    def __str__(self) -> str:
        return f"not ({self.part})"


When = Compared | AllOf | AnyOf | Not
"""What must hold for a call to be made. As text it tells what is compared, not what the values are."""


def comparisons_of(when: When) -> Iterator[Compared]:
    """All that is compared."""
    match when:
        case Compared():
            yield when
        case Not(part):
            yield from comparisons_of(part)
        case AllOf(parts) | AnyOf(parts):
            for part in parts:
                yield from comparisons_of(part)


def origins_of(when: When | None) -> Iterator[Origin]:
    """The origins of all that is compared."""
    for compared in comparisons_of(when) if when is not None else ():
        yield compared.left
        yield compared.right


def holds(when: When, decide: Callable[[Compared], Labelled[bool]]) -> Labelled[bool]:
    """Whether it holds, with the label of everything in it.

    Nothing is left out because the rest settles it: which part does is told by the others.
    """
    match when:
        case Compared():
            return decide(when)
        case Not(part):
            found = holds(part, decide)
            return Labelled(not found.value, found.label)
        case AllOf(parts) | AnyOf(parts):
            each = [holds(part, decide) for part in parts]
            values = [one.value for one in each]
            return Labelled(all(values) if isinstance(when, AllOf) else any(values), join([one.label for one in each]))


def compare(left: JSON, how: Operator, right: JSON, same: Callable[[JSON, JSON], bool]) -> bool:
    """Whether two values compare so; `same` tells equal ones. Raises `Incomparable` for values of different types."""
    one, other = _kind(left), _kind(right)
    match how:
        case Operator.EQUAL | Operator.NOT_EQUAL if one == other or "null" in (one, other):
            return same(left, right) == (how is Operator.EQUAL)
        case Operator.EMPTY if isinstance(left, str | list | Mapping | None):
            return not left
        case Operator.CONTAINS if isinstance(left, list):
            return any(same(item, right) for item in left)
        case Operator.CONTAINS if isinstance(left, str) and isinstance(right, str):
            return right in left
        case _ if how in _ORDER and one == other and one in ("number", "text"):
            return bool(_ORDER[how](left, right))
    raise Incomparable(f"{one} {how} {other}" if how is not Operator.EMPTY else f"{one} is {how}")


_ORDER: Final[Mapping[Operator, Callable[[Any, Any], Any]]] = {
    Operator.LESS: operator.lt,
    Operator.AT_MOST: operator.le,
    Operator.GREATER: operator.gt,
    Operator.AT_LEAST: operator.ge,
}


def _kind(value: JSON) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "truth value"
        case int() | float():
            return "number"
        case str():
            return "text"
        case Mapping():
            return "object"
    return "list"


def _within(when: When) -> str:
    return f"({when})" if isinstance(when, AllOf | AnyOf) else str(when)


def _told(origin: Origin) -> str:
    match origin:
        case Words(value):
            return canonical(value)
        case Taken(step, path, where):
            chosen = "".join(f"[{name} == {canonical(value)}]" for name, value in where)
            return ".".join((step + chosen, *path))
        case Item(path):
            return ".".join(("item", *path))
        case Read(steps, ask):
            return f"{ask!r} of {', '.join(steps)}"
    return dumps(origin_to_json(origin))


def when_to_json(when: When) -> JSON:
    """The JSON form: see the module."""
    match when:
        case Compared(left, Operator.EMPTY):
            return {"left": origin_to_json(left), "is": "empty"}
        case Compared(left, how, right):
            return {"left": origin_to_json(left), "is": str(how), "right": origin_to_json(right)}
        case Not(part):
            return {"not": when_to_json(part)}
        case AllOf(parts):
            return {"all": [when_to_json(part) for part in parts]}
        case AnyOf(parts):
            return {"any": [when_to_json(part) for part in parts]}


def when_from_json(value: Any) -> When:
    """Read what `when_to_json` or a planner wrote. Raises `InvalidInput`: a condition is never taken for none."""
    match value:
        case {"not": part, **rest} if not rest:
            return Not(when_from_json(part))
        case {"all": [_, *_] as parts, **rest} if not rest:
            return AllOf(tuple(map(when_from_json, parts)))
        case {"any": [_, *_] as parts, **rest} if not rest:
            return AnyOf(tuple(map(when_from_json, parts)))
        case {"left": left, "is": "empty", **rest} if not rest:
            return Compared(origin_from_json(left), Operator.EMPTY)
        case {"left": left, "is": str(how), "right": right, **rest} if not rest and how in _TWO:
            return Compared(origin_from_json(left), Operator(how), origin_from_json(right))
    raise InvalidInput(
        f"a condition of the plan cannot be read: {dumps(value)[:200]}",
        expected=f'`{{"left": ..., "is": ..., "right": ...}}` with {", ".join(Operator)}; or `all`, `any`, `not`',
    )


_TWO: Final = frozenset(map(str, Operator)) - {"empty"}

__all__ = [
    "AllOf", "AnyOf", "Compared", "Not", "Operator", "When", "compare", "comparisons_of", "holds", "origins_of",
    "when_from_json", "when_to_json",
]  # fmt: skip
