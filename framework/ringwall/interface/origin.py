"""Where a value in a plan comes from: the user's words, an earlier result, or what is read out of several."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ringwall.errors import InvalidInput
from ringwall.interface.formats import FORMATS
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

    Two things bound what a fooled reader can say. With `quotes` it stands word for word in that value, which is taken
    from earlier results: whoever chose it, a trusted source has said it. With `only` the texts that it is shown hold
    nothing else of its `format`: no second account number stands beside the one that is meant.
    """

    steps: tuple[str, ...]
    ask: str
    schema: JsonSchema = field(default_factory=lambda: {"type": "string"})
    fields: tuple[str, ...] = ()
    quotes: Origin | None = None
    only: bool = False

    @property
    def key(self) -> str:
        """The same for equal readings."""
        return canonical(origin_to_json(self))

    @property
    def is_free(self) -> bool:
        """Whether it may be any text, so that whoever reads it may word it in its own way."""
        is_text = self.schema.get("type", "string") in ("string", "array", "object")
        return is_text and self.quotes is None and not self.schema.keys() & {"enum", "format"}


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


@dataclass(frozen=True, slots=True)
class Text:
    """A text put together of parts, each with an origin of its own."""

    parts: tuple[Origin, ...]


Origin = Words | Taken | Read | Item | Listed | Composed | Text
"""Where an argument comes from."""


def parts_of(origin: Origin) -> Iterator[Words | Taken | Read | Item]:
    """What a list, an object or a text of origins consists of, at any depth; of any other, itself."""
    match origin:
        case Listed(items) | Text(items):
            for item in items:
                yield from parts_of(item)
        case Composed(members):
            for _, item in members:
                yield from parts_of(item)
        case _:
            yield origin


def readings_of(origin: Origin) -> Iterator[Read]:
    """What must be read before an origin has a value."""
    return (part for part in parts_of(origin) if isinstance(part, Read))


def steps_of(origin: Origin) -> Iterator[str]:
    """The names of the calls whose results an origin takes from."""
    for part in parts_of(origin):
        if isinstance(part, Taken):
            yield part.step
        elif isinstance(part, Read):
            yield from part.steps
            yield from steps_of(part.quotes) if part.quotes is not None else ()


def origin_to_json(origin: Origin) -> JSON:
    """The JSON form of an origin: see the module."""
    match origin:
        case Words(value):
            return value
        case Taken(step, path, where, pick):
            told: dict[str, JSON] = {"$from": step, "field": ".".join(path), "where": dict(where), "pick": pick}
            return {name: item for name, item in told.items() if item or name == "$from"}
        case Read(steps, ask, schema, fields, quotes, only):
            told = {"$read": list(steps), "ask": ask, "schema": schema, "fields": list(fields), "only": only}
            told |= {} if quotes is None else {"quotes": origin_to_json(quotes)}
            return {name: item for name, item in told.items() if item or name in ("$read", "quotes")}
        case Text(parts):
            return {"$text": [origin_to_json(part) for part in parts]}
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
            path, where = _path(value.get("field", "")), tuple(value.get("where", {}).items())
            return Taken(_text(value["$from"]), path, where, _text(value.get("pick", "")))
        if "$item" in value:
            return Item(_path(value["$item"]))
        if "$text" in value:
            return Text(tuple(map(origin_from_json, value["$text"])))
        if "$read" in value:
            return _read_from_json(value)
    except (AttributeError, TypeError) as error:
        raise InvalidInput(f"an argument of the plan cannot be read: {json.dumps(value)[:200]}") from error
    return Composed(tuple((name, origin_from_json(item)) for name, item in value.items()))


def _read_from_json(value: dict[str, Any]) -> Read:
    schema = value.get("schema") or {"type": "string"}
    quotes = origin_from_json(value["quotes"]) if value.get("quotes") is not None else None
    only = value.get("only") is True
    if quotes is not None and any(not isinstance(part, Taken) for part in parts_of(quotes)):
        raise InvalidInput("a reading quotes what is no result", expected='`"quotes": {"$from": ...}`')
    if only and schema.get("format") not in FORMATS:
        raise InvalidInput(
            "it cannot be the only one of no format", expected=f'`"format"`: {", ".join(sorted(FORMATS))}'
        )
    steps = tuple(map(_text, value["$read"]))
    return Read(steps, value.get("ask", ""), schema, tuple(value.get("fields", ())), quotes, only)


def _path(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(".") if part)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


__all__ = [
    "Composed", "Item", "Listed", "Origin", "Read", "Taken", "Text", "Words", "origin_from_json", "origin_to_json",
    "parts_of", "readings_of", "steps_of",
]  # fmt: skip
