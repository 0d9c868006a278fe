"""From JSON schemas and tools to grammars (GBNF) that keep every token of a reply in bounds.

What a grammar lets through is JSON as `json.dumps` writes it, and always parses. It may be narrower than the
schema: never wider, but for patterns, formats, and bounds of numbers that span more than a hundred values.
https://github.com/ggml-org/llama.cpp/blob/master/grammars/README.md
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from ringwall.errors import InvalidInput
from ringwall.model.base import ToolSpec
from ringwall.schema import JSON, JsonSchema
from ringwall_llama.prompt import call_text

MAX_REPEATED: Final = 1000
"""The longest repetition that llama.cpp still computes quickly."""

_MOST_ITEMS: Final = 8
"""Of a list without a bound: a small model cannot be trusted to end one."""

_FEWEST_CHARS, _MOST_CHARS = 16, 200
"""Of a string that may be anything, whatever else there is to say."""

_DEEPEST: Final = 3
"""How often what refers to itself is found within itself: a small model cannot be trusted to come out again."""

_MOST_RULES: Final = 5000

_UNWRITABLE: Final = re.compile("[\ud800-\udfff\U00040000-\U0010ffff]")
"""Halves of characters, and planes without any: a vocabulary may lack their bytes, so they are escaped."""

_BASIC: Final = r"""
char ::= [^"\\\x00-\x1f\x7f] | "\\" ["\\/nrt]
whole ::= "0" | [1-9] [0-9]{0,14}
integer ::= "-"? whole
number ::= "-"? whole ("." [0-9]{1,6})?
boolean ::= "true" | "false"
null ::= "null"
text ::= "\"" char{0,MOST} "\""
plain ::= text | number | boolean | null
value ::= plain | "[" (plain (", " plain){0,7})? "]" | "{" (text ": " plain (", " text ": " plain){0,7})? "}"
"""


def of_schema(schema: JsonSchema, *, max_tokens: int) -> str:
    """The grammar of JSON that fits `schema`.

    A string without a bound gets one, such that all strings together, those of lists included, are likely to fit
    `max_tokens`.
    Raises `InvalidInput` for what is no schema.
    """
    rules = _Rules(max_tokens, schema)
    return rules.text(rules.of(schema))


def of_arguments(tool: ToolSpec, *, max_tokens: int) -> str:
    """The grammar of the arguments of `tool`, after a space."""
    rules = _Rules(max_tokens, tool.parameters)
    return rules.text(f'" " {rules.of(_as_object(tool))}')


def of_calls(tools: Sequence[ToolSpec], *, max_tokens: int) -> str:
    """The grammar of a call of one of `tools`: `{"name": ..., "arguments": ...}`."""
    rules = _Rules(max_tokens, max((tool.parameters for tool in tools), key=_strings))
    return rules.text(_any(f'{_quoted(call_text(tool.name))} " " {rules.of(_as_object(tool))} "}}"' for tool in tools))


def _strings(schema: JsonSchema) -> int:
    """Roughly how many strings JSON that fits `schema` holds."""
    return str(schema).count("'string'")


def _as_object(tool: ToolSpec) -> JsonSchema:
    """A tool without arguments is called with `{}`, not with any object."""
    return tool.parameters if tool.parameters.get("properties") else {"const": {}}


class _Rules:
    """Collects the rules of one grammar."""

    def __init__(self, max_tokens: int, largest: JsonSchema) -> None:
        # A token is four characters of English, but may be one: all strings together get a character for each.
        self._max_chars = min(max(max_tokens // max(_strings(largest), 1), _FEWEST_CHARS), MAX_REPEATED)
        self._rules: list[str] = []

    def of(self, schema: JsonSchema) -> str:
        """The name of the rule of a whole schema, with the definitions it brings."""
        try:
            return _Document(schema, self, self._max_chars).rule(schema)
        # Schemas come from tools and callers: one that is none fails in these ways.
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise InvalidInput(
                f"a schema that has no grammar ({type(error).__name__}: {error})",
                expected="a JSON schema of objects, lists, strings, numbers, booleans and choices",
            ) from error

    def add(self, body: str) -> str:
        if len(self._rules) == _MOST_RULES:
            raise ValueError("too large")
        self._rules.append(body)
        return f"r{len(self._rules) - 1}"

    def text(self, root: str) -> str:
        named = (f"r{number} ::= {body}" for number, body in enumerate(self._rules))
        basic = _BASIC.replace("MOST", str(min(self._max_chars, _MOST_CHARS)))
        return "\n".join((f"root ::= {root}", *named, basic))


class _Document:
    """One schema, within which references point."""

    def __init__(self, schema: JsonSchema, rules: _Rules, max_chars: int) -> None:
        self._schema, self._rules, self._max_chars = schema, rules, max_chars
        self._open = Counter[str]()

    def rule(self, schema: Any) -> str:
        return self._rules.add(self._body(schema))

    def _body(self, schema: Any) -> str:
        if schema is True or schema == {}:
            return "value"
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        if "const" in schema:
            return _literal(schema["const"])
        if "enum" in schema:
            return _any(_literal(value) for value in schema["enum"])
        if "allOf" in schema:
            return self._body(self._merged(schema))
        if choices := schema.get("anyOf") or schema.get("oneOf"):
            return _any(self._possible(choices))
        return self._typed(schema, schema.get("type"))

    def _typed(self, schema: dict[str, Any], kind: Any) -> str:
        if isinstance(kind, list):
            return _any(self.rule({**schema, "type": one}) for one in kind)
        if kind == "object" or "properties" in schema:
            return self._object(schema)
        if kind == "array" or "items" in schema:
            return self._array(schema)
        if kind == "string":
            return self._string(schema)
        if kind == "integer":
            return _integer(schema)
        if kind in ("number", "boolean", "null"):
            return str(kind)
        if kind is None:
            return "value"
        raise ValueError(f"unknown type {kind!r}")

    def _reference(self, pointer: str) -> str:
        if self._open[pointer] == _DEEPEST:
            raise _ImpossibleError(f"{pointer} always contains itself")
        self._open[pointer] += 1
        try:
            return self.rule(self._find(pointer))
        finally:
            self._open[pointer] -= 1

    def _possible(self, schemas: Iterable[Any]) -> Iterator[str]:
        """The rules of `schemas`, without those that nothing fits."""
        for schema in schemas:
            with suppress(_ImpossibleError):
                yield self.rule(schema)

    def _find(self, pointer: str) -> Any:
        found: Any = self._schema
        home, *path = pointer.split("/")
        if home != "#":
            raise ValueError(f"a reference to elsewhere: {pointer}")
        for key in path:
            found = found[key.replace("~1", "/").replace("~0", "~")]
        return found

    def _merged(self, schema: dict[str, Any]) -> dict[str, Any]:
        """One object schema from the parts of an `allOf` and what stands beside it."""
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            part = self._find(part["$ref"]) if "$ref" in part else part
            both = {**merged, **part}
            both["properties"] = {**merged.get("properties", {}), **part.get("properties", {})}
            both["required"] = [*merged.get("required", []), *part.get("required", [])]
            merged = both if both["properties"] else {**merged, **part}
        return merged

    def _object(self, schema: dict[str, Any]) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if missing := set(required) - set(properties):
            raise ValueError(f"required but not described: {sorted(missing)}")
        if not properties:
            return self._map(schema.get("additionalProperties", True))
        must = [self._member(name, self.rule(properties[name])) for name in properties if name in required]
        may = [
            self._member(name, rule)
            for name in properties
            if name not in required
            for rule in self._possible([properties[name]])
        ]
        if not must and not may:
            return '"{}"'
        if must:
            return f'"{{" {_list(must)} {_optional(may)} "}}"'
        first = _any(f"{member} {_optional(may[number:])}" for number, member in enumerate(may, 1))
        return f'"{{" ({first})? "}}"'

    def _member(self, name: str, rule: str) -> str:
        return f"{_literal(name, ': ')} {rule}"

    def _map(self, values: Any) -> str:
        if values is False:
            return '"{}"'
        member = f'text ": " {self.rule(values)}'
        return f'"{{" ({member} (", " {member}){{0,{_MOST_ITEMS - 1}}})? "}}"'

    def _array(self, schema: dict[str, Any]) -> str:
        if "prefixItems" in schema:
            return f'"[" {_list(self.rule(item) for item in schema["prefixItems"])} "]"'
        least = schema.get("minItems", 0)
        most = min(schema.get("maxItems", max(least, _MOST_ITEMS)), MAX_REPEATED)
        found = list(self._items(schema.get("items", True), most)) if most else []
        if not found and not least:
            return '"[]"'
        item = _any(found)
        items = f'{item} (", " {item}){{{max(least - 1, 0)},{most - 1}}}'
        return f'"[" {items} "]"' if least else f'"[" ({items})? "]"'

    def _items(self, schema: Any, most: int) -> Iterator[str]:
        """The rule of an item, if there can be any: so many of them share the room of one."""
        room, self._max_chars = self._max_chars, max(self._max_chars // most, _FEWEST_CHARS)
        yield from self._possible([schema])
        self._max_chars = room

    def _string(self, schema: dict[str, Any]) -> str:
        least = schema.get("minLength", 0)
        most = min(schema.get("maxLength", max(least, self._max_chars)), MAX_REPEATED)
        if least > most:
            raise ValueError(f"a string of at least {least} characters and at most {most}")
        return rf'"\"" char{{{least},{most}}} "\""'


class _ImpossibleError(ValueError):
    """Nothing fits this part of a schema: whoever has a choice goes without it."""


def _integer(schema: dict[str, Any]) -> str:
    least, most = _bound(schema, "minimum", "exclusiveMinimum", 1), _bound(schema, "maximum", "exclusiveMaximum", -1)
    if least is not None and most is not None and 0 <= most - least <= 100:
        return _any(_literal(number) for number in range(least, most + 1))
    return "whole" if least is not None and least >= 0 else "integer"


def _bound(schema: dict[str, Any], inclusive: str, exclusive: str, step: int) -> int | None:
    if inclusive in schema:
        return int(schema[inclusive])
    return int(schema[exclusive]) + step if exclusive in schema else None


def _any(bodies: Iterable[str]) -> str:
    if not (choices := " | ".join(bodies)):
        raise _ImpossibleError("a choice of nothing")
    return choices


def _list(bodies: Iterable[str]) -> str:
    return ' ", " '.join(bodies)


def _optional(members: Iterable[str]) -> str:
    return " ".join(f'(", " {member})?' for member in members)


def _literal(value: JSON, after: str = "") -> str:
    """A JSON value, written as it is."""
    written = _UNWRITABLE.sub(lambda found: json.dumps(found[0])[1:-1], json.dumps(value, ensure_ascii=False))
    return _quoted(written + after)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
