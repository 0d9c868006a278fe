"""A plan: the calls that the user's words ask for, and where each argument of each comes from.

A plan is made from the user's words alone, before anything else is read, and is fixed from then on. Its arguments
name their origins instead of holding values found later: so what a value may cause is carried from where it came, and
never guessed from what it looks like.

In JSON a plan is `{"calls": [{"name": ..., "tool": ..., "arguments": {...}}, ...], "answer": ...}`. An argument is a
value (the planner's own, from the user's words), or an object with one of these keys, or a list or object of such:

- `{"$from": "step", "field": "id", "where": {"sender": "bo@x"}, "pick": "last"}`: a field of an earlier result;
- `{"$read": ["step"], "ask": "the amount of the bill", "schema": {"type": "number"}, "fields": [...]}`: what a model
  that may do nothing else reads out of earlier results;
- `{"$item": "sender"}`: a field of what the call is made for, in a call that is made for `each` of several.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringwall.errors import InvalidInput
from ringwall.schema import JSON, JsonSchema, canonical


@dataclass(frozen=True, slots=True)
class Words:
    """A value that the planner wrote down from the user's words."""

    value: JSON


@dataclass(frozen=True, slots=True)
class Taken:
    """A field of an earlier result, taken by code.

    Of several records it is the one whose fields equal `where`, or the one that `pick` says: `first`, `last`, `all`,
    `largest <field>` or `smallest <field>`. Without `pick` there must be exactly one. `path` empty is the whole record.
    """

    step: str
    path: tuple[str, ...] = ()
    where: tuple[tuple[str, JSON], ...] = ()
    pick: str = ""


@dataclass(frozen=True, slots=True)
class Read:
    """What a quarantined model reads out of earlier results: it is shown them and `ask`, and can do nothing.

    What it says must fit `schema`, and carries the labels of all that it was shown. With `fields` it is shown those
    fields of the records alone.
    """

    steps: tuple[str, ...]
    ask: str
    schema: JsonSchema = field(default_factory=lambda: {"type": "string"})
    fields: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """The same for equal readings."""
        return canonical(origin_to_json(self))


@dataclass(frozen=True, slots=True)
class Item:
    """A field of the item that a call is made for; `path` empty is the item itself."""

    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listed:
    """A list of values, each with an origin of its own."""

    items: tuple[Origin, ...]


@dataclass(frozen=True, slots=True)
class Composed:
    """An object of values, each with an origin of its own."""

    items: tuple[tuple[str, Origin], ...]


Origin = Words | Taken | Read | Item | Listed | Composed
"""Where an argument comes from."""


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call that the user's words ask for, made once.

    With `each` it is made once for each item of that list, and returns all their results as one list. An `open` one
    names the tool alone: it may be called with any arguments, any number of times.
    """

    name: str
    tool: str
    arguments: Mapping[str, Origin] = field(default_factory=dict)
    open: bool = False
    each: Origin | None = None


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What a run may do. `answer` is what is told at the end; None tells what was done.

    Raises `InvalidInput` when two calls have one name, or an origin names no earlier call.
    """

    calls: tuple[PlannedCall, ...]
    answer: Origin | None = None

    def __post_init__(self) -> None:
        earlier: set[str] = set()
        for call in self.calls:
            if call.name in earlier:
                raise InvalidInput(f"two calls of the plan are named {call.name!r}")
            for origin in (*call.arguments.values(), *(() if call.each is None else (call.each,))):
                _check_steps(origin, earlier)
            earlier.add(call.name)
        if self.answer is not None:
            _check_steps(self.answer, earlier)

    @classmethod
    def of_tools(cls, *tools: str) -> TaskPlan:
        """The plan that names tools alone."""
        return cls(tuple(PlannedCall(tool, tool, open=True) for tool in tools))

    def call(self, name: str) -> PlannedCall:
        """The call of that name. Raises `InvalidInput`."""
        for call in self.calls:
            if call.name == name:
                return call
        raise InvalidInput(f"the plan has no call named {name!r}")

    def to_json(self) -> JSON:
        """The JSON form: see the module."""
        calls: list[JSON] = [_call_to_json(call) for call in self.calls]
        return {"calls": calls} | ({} if self.answer is None else {"answer": origin_to_json(self.answer)})

    @classmethod
    def from_json(cls, value: Any) -> TaskPlan:
        """Read what `to_json` or a planner wrote. Raises `InvalidInput` saying what does not fit."""
        if not isinstance(value, dict) or not isinstance(value.get("calls"), list):
            raise InvalidInput("this is no plan", expected='`{"calls": [...]}`')
        calls = tuple(_call_from_json(call, place) for place, call in enumerate(value["calls"]))
        return cls(calls, origin_from_json(value["answer"]) if value.get("answer") is not None else None)


def readings_of(origin: Origin) -> Iterator[Read]:
    """What must be read before an origin has a value."""
    match origin:
        case Read():
            yield origin
        case Listed(items):
            for item in items:
                yield from readings_of(item)
        case Composed(members):
            for _, item in members:
                yield from readings_of(item)


class Desk(ABC):
    """Where a run's plan is kept, and where its arguments are worked out.

    Behind it stands the gate: it alone fixes a plan, and computes what each argument is and carries.
    """

    @property
    @abstractmethod
    def plan(self) -> TaskPlan | None:
        """The run's plan, once it is fixed."""

    @abstractmethod
    async def fix(self, plan: TaskPlan, *, by_code: bool) -> None:
        """Make this the run's plan, which is executed `by_code`, or else by an agent that is held to it.

        Raises `ActionDenied` if there is a plan already, or the run has read what others wrote.
        """

    @abstractmethod
    async def calls(self, name: str) -> Sequence[tuple[str, Mapping[str, JSON]]]:
        """The ids and arguments of the calls that the plan has under `name`, read where they must be read.

        One, or with `each` as many as there are items. Raises `Unavailable`, `BadReply`.
        """

    @abstractmethod
    async def answer(self) -> str:
        """What the plan's answer comes to; empty without one. Raises `Unavailable`, `BadReply`."""


def _check_steps(origin: Origin, earlier: set[str]) -> None:
    match origin:
        case Taken(step):
            named = {step}
        case Read(steps):
            named = set(steps)
        case Listed(items):
            for item in items:
                _check_steps(item, earlier)
            return
        case Composed(members):
            for _, item in members:
                _check_steps(item, earlier)
            return
        case _:
            return
    if not named <= earlier:
        raise InvalidInput(f"the plan takes from {', '.join(sorted(named - earlier))}, which is no earlier call")


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(".") if part)


def _call_to_json(call: PlannedCall) -> JSON:
    arguments: dict[str, JSON] = {name: origin_to_json(origin) for name, origin in call.arguments.items()}
    told: dict[str, JSON] = {"name": call.name, "tool": call.tool, "arguments": arguments}
    told |= {} if call.each is None else {"each": origin_to_json(call.each)}
    return told | ({"open": True} if call.open else {})


def _call_from_json(value: Any, place: int) -> PlannedCall:
    if not isinstance(value, dict) or not isinstance(value.get("tool"), str):
        raise InvalidInput(f"call {place} of the plan names no tool", expected='`{"tool": ..., "arguments": {...}}`')
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict):
        raise InvalidInput(f"the arguments of call {place} of the plan are no object")
    origins = {name: origin_from_json(argument) for name, argument in arguments.items()}
    each = origin_from_json(value["each"]) if value.get("each") is not None else None
    name, is_open = str(value.get("name", place)), value.get("open") is True
    return PlannedCall(name, value["tool"], origins, open=is_open, each=each)


def origin_to_json(origin: Origin) -> JSON:
    """The JSON form of an origin: see the module."""
    match origin:
        case Words(value):
            return value
        case Taken(step, path, where, pick):
            told: dict[str, JSON] = {"$from": step, "field": ".".join(path), "where": dict(where), "pick": pick}
            return {name: item for name, item in told.items() if item or name == "$from"}
        case Read(steps, ask, schema, fields):
            told = {"$read": list(steps), "ask": ask, "schema": schema, "fields": list(fields)}
            return {name: item for name, item in told.items() if item or name == "$read"}
        case Item(path):
            return {"$item": ".".join(path)}
        case Listed(items):
            return [origin_to_json(item) for item in items]
        case Composed(members):
            return {name: origin_to_json(item) for name, item in members}


def origin_from_json(value: Any) -> Origin:
    """Read an origin. Raises `InvalidInput`."""
    if isinstance(value, list):
        return Listed(tuple(map(origin_from_json, value)))
    if not isinstance(value, dict):
        return Words(value)
    try:
        if "$from" in value:
            path = _path(value.get("field", ""))
            return Taken(value["$from"], path, tuple(value.get("where", {}).items()), value.get("pick", ""))
        if "$item" in value:
            return Item(_path(value["$item"]))
        if "$read" in value:
            schema = value.get("schema") or {"type": "string"}
            return Read(tuple(value["$read"]), value.get("ask", ""), schema, tuple(value.get("fields", ())))
    except (AttributeError, TypeError) as error:
        raise InvalidInput(f"an argument of the plan cannot be read: {json.dumps(value)[:200]}") from error
    return Composed(tuple((name, origin_from_json(item)) for name, item in value.items()))
