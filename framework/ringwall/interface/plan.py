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
from types import MappingProxyType
from typing import Any, Final, cast

from ringwall.errors import InvalidInput, Unavailable
from ringwall.label import BOTTOM, Label, Labelled, join
from ringwall.schema import JSON, JsonSchema, canonical

_NO_FIELDS: Final[Mapping[str, Label]] = MappingProxyType({})


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


@dataclass(frozen=True, slots=True)
class Result:
    """What a call returned; `fields` are the labels of named fields at any depth, `label` that of the rest.

    `lookup` is the label of what decided which result it is.
    """

    value: JSON
    label: Label
    fields: Mapping[str, Label] = field(default_factory=lambda: _NO_FIELDS)
    lookup: Label = BOTTOM

    @property
    def whole(self) -> Label:
        """The label of whoever reads all of it."""
        return _label_of(self.value, self.label, self.fields)

    def taken(self, origin: Taken) -> Labelled[JSON]:
        """The value that `origin` means, with what it and its choice were made from. Raises `Unavailable`."""
        record, choice = self._chosen(origin) if isinstance(self.value, list) else (self.value, BOTTOM)
        if origin.pick == "all":
            each = [self._at(one, origin.path) for one in cast("list[JSON]", record)]
            return Labelled([one.value for one in each], choice | join([one.label for one in each]))
        found = self._at(record, origin.path)
        return Labelled(found.value, found.label | choice)

    def choice(self, origin: Taken) -> Label:
        """What decided which of its records `origin` means: for `all`, none of what they say."""
        return self.lookup | self._chosen(origin)[1] if isinstance(self.value, list) else self.lookup

    def shown(self, fields: Sequence[str]) -> Labelled[JSON]:
        """What a reader is shown: all of it, or the records with those fields alone."""
        value = _projected(self.value, frozenset(fields)) if fields else self.value
        return Labelled(value, _label_of(value, self.label, self.fields))

    def _chosen(self, origin: Taken) -> tuple[JSON, Label]:
        """The record or, for `all`, the records; and the label of what they were chosen by."""
        records = [record for record in cast("list[JSON]", self.value) if _equals(record, origin.where)]
        choice = join([self._field(name) for name, _ in origin.where])
        how, _, name = origin.pick.partition(" ")
        if how == "all":
            return records, choice
        if not records or (len(records) > 1 and not how):
            raise Unavailable(f"{len(records)} records of {origin.step!r} are meant where it should be one")
        if how in ("largest", "smallest"):
            ordered = sorted(records, key=lambda record: cast(Any, _member(record, name)))
            return ordered[-1 if how == "largest" else 0], choice | self._field(name)
        if len(records) == 1:
            return records[0], choice
        return records[0 if how == "first" else -1], choice | self._field("*")

    def _field(self, name: str) -> Label:
        return self.fields.get(name, self.label)

    def _at(self, value: JSON, path: Sequence[str]) -> Labelled[JSON]:
        label = self.label
        for name in path:
            value, label = _member(value, name), self.fields.get(name, label)
        return Labelled(value, _label_of(value, label, self.fields))


@dataclass(frozen=True, slots=True)
class Values:
    """What origins are worked out from: results by call, readings by key, the label of the user's words, the item."""

    results: Mapping[str, Result]
    readings: Mapping[str, Labelled[JSON]]
    words: Label
    item: Labelled[JSON] | None = None


def evaluate(origin: Origin, known: Values) -> Labelled[JSON]:
    """The value that an origin means, and the label it carries. Raises `Unavailable`."""
    words = known.words
    match origin:
        case Words(value):
            return Labelled(value, words)
        case Taken(step):
            if step not in known.results:
                raise Unavailable(f"{step!r} returned nothing")
            found = known.results[step].taken(origin)
            return Labelled(found.value, found.label | words)
        case Read():
            if origin.key not in known.readings:
                raise Unavailable("it was not read")
            return known.readings[origin.key]
        case Item(path):
            if known.item is None:
                raise Unavailable("there is no item to take it from", hint="say what the call is made for: `each`")
            value = known.item.value
            for name in path:
                value = _member(value, name)
            return Labelled(value, known.item.label | words)
        case Listed(items):
            each = [evaluate(item, known) for item in items]
            return Labelled([item.value for item in each], join([words, *[item.label for item in each]]))
        case Composed(members):
            named = {name: evaluate(item, known) for name, item in members}
            labels = [item.label for item in named.values()]
            return Labelled({name: item.value for name, item in named.items()}, join([words, *labels]))


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


def same(one: JSON, other: JSON) -> bool:
    """Whether two values are the same JSON: `1` and `1.0` are, `1` and `true` are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def fits(value: JSON, schema: Mapping[str, Any]) -> bool:
    """Whether a value fits the schema of a reading: `type`, `enum`, `items`, `properties`, `maxLength`."""
    if "enum" in schema and not any(same(value, each) for each in schema["enum"]):
        return False
    kind = schema.get("type")
    if kind == "array":
        return isinstance(value, list) and all(fits(item, schema.get("items", {})) for item in value)
    if kind == "object":
        known = schema.get("properties", {})
        return (
            isinstance(value, Mapping) and value.keys() <= known.keys() and all(fits(value[n], known[n]) for n in value)
        )
    if kind == "string" and isinstance(value, str):
        return len(value) <= int(schema.get("maxLength", len(value)))
    types = _TYPES.get(kind, (object,))
    return isinstance(value, types) and (bool in types or object in types or not isinstance(value, bool))


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


_TYPES: Final[Mapping[Any, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def _label_of(value: JSON, inherited: Label, fields: Mapping[str, Label]) -> Label:
    """The join of the labels of everything in a value."""
    if isinstance(value, Mapping) and value:
        return join([_label_of(item, fields.get(name, inherited), fields) for name, item in value.items()])
    if isinstance(value, list) and value:
        return join([_label_of(item, inherited, fields) for item in value])
    return inherited


def _projected(value: JSON, fields: frozenset[str]) -> JSON:
    if isinstance(value, Mapping):
        return {name: item for name, item in value.items() if name in fields}
    if isinstance(value, list):
        return [_projected(item, fields) for item in value]
    raise Unavailable("a result without fields cannot be shown by fields")


def _member(value: JSON, name: str) -> JSON:
    if not isinstance(value, Mapping) or name not in value:
        raise Unavailable(f"there is no field {name!r}")
    return value[name]


def _equals(record: JSON, where: Sequence[tuple[str, JSON]]) -> bool:
    return all(isinstance(record, Mapping) and name in record and same(record[name], value) for name, value in where)


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
