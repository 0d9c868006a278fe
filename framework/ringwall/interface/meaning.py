"""What the origins of a plan mean: a result with the labels of its fields, and the value and label of what is taken.

Nothing here asks or changes anything: the gate that keeps a run's plan works out with it what its arguments carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, cast

from ringwall.errors import NotMade, Unavailable
from ringwall.interface.formats import ADDRESSES, has_format
from ringwall.interface.origin import Composed, Item, Listed, Origin, Read, Taken, Text, Words
from ringwall.label import BOTTOM, Label, Labelled, join
from ringwall.schema import JSON, dumps

_NO_FIELDS: Final[Mapping[str, Label]] = MappingProxyType({})


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

    @property
    def order(self) -> Label:
        """What decided which records there are, and in which order."""
        return self._field("*") if isinstance(self.value, list) else BOTTOM

    def at(self, path: Sequence[str]) -> Labelled[JSON]:
        """The field at that path. Raises `Unavailable`."""
        return self._at(self.value, path)

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
    """What origins are worked out from: results by call, readings by key, the label of the user's words, the item.

    `inert` makes text that was read such that nobody who is sent it can be made to follow it. `not_made` are the calls
    that a condition keeps from being made, with what decided that.
    """

    results: Mapping[str, Result]
    readings: Mapping[str, Labelled[JSON]]
    words: Label
    item: Result | None = None
    inert: Callable[[str], str] | None = None
    not_made: Mapping[str, Label] = field(default_factory=lambda: _NO_FIELDS)


def evaluate(origin: Origin, known: Values) -> Labelled[JSON]:
    """The value that an origin means, and the label it carries. Raises `Unavailable`."""
    words = known.words
    match origin:
        case Words(value):
            return Labelled(value, words)
        case Taken(step) if step in known.not_made:
            raise NotMade(f"{step!r} was not made")
        case Taken(step):
            if step not in known.results:
                raise Unavailable(f"{step!r} returned nothing")
            found = known.results[step].taken(origin)
            return Labelled(found.value, found.label | words)
        case Read():
            if origin.key not in known.readings:
                raise Unavailable("it was not read")
            read = known.readings[origin.key]
            return read if known.inert is None else Labelled(_inert(read.value, origin.schema, known.inert), read.label)
        case Item(path):
            if known.item is None:
                raise Unavailable("there is no item to take it from", hint="say what the call is made for: `each`")
            part = known.item.at(path)
            return Labelled(part.value, part.label | words)
        case Listed(items):
            each = [evaluate(item, known) for item in items]
            return Labelled([item.value for item in each], join([words, *[item.label for item in each]]))
        case Composed(members):
            named = {name: evaluate(item, known) for name, item in members}
            labels = [item.label for item in named.values()]
            return Labelled({name: item.value for name, item in named.items()}, join([words, *labels]))
        case Text(parts):
            each = [evaluate(part, known) for part in parts]
            text = "".join(part.value if isinstance(part.value, str) else dumps(part.value) for part in each)
            return Labelled(text, join([words, *[part.label for part in each]]))


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
    """Whether a value fits the schema of a reading: `type`, `enum`, `items`, `properties`, `maxLength`, `format`."""
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
        return len(value) <= int(schema.get("maxLength", len(value))) and has_format(value, schema.get("format", ""))
    types = _TYPES.get(kind, (object,))
    return isinstance(value, types) and (bool in types or object in types or not isinstance(value, bool))


_TYPES: Final[Mapping[Any, tuple[type, ...]]] = {
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}


def texts_of(value: JSON) -> Iterator[str]:
    """All texts in a value, names of fields included."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield name
            yield from texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)
    elif isinstance(value, str):
        yield value


def _inert(value: JSON, schema: Mapping[str, Any], inert: Callable[[str], str]) -> JSON:
    """What was read, with its texts made inert, except for those that are to be addresses."""
    if isinstance(value, str):
        return value if schema.get("format") in ADDRESSES else inert(value)
    if isinstance(value, Mapping):
        known = schema.get("properties", {})
        return {name: _inert(item, known.get(name, {}), inert) for name, item in value.items()}
    if isinstance(value, list):
        return [_inert(item, schema.get("items", {}), inert) for item in value]
    return value


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
