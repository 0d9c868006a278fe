"""From JSON schemas and tools to grammars (GBNF) that keep every token of a reply in bounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from llama_cpp.llama_grammar import json_schema_to_gbnf

from ringwall.errors import InvalidInput
from ringwall.model.base import ToolSpec
from ringwall.schema import JsonSchema

WORDS_OR_CALL: Final = r"root ::= call | [^{ \t\n\r] [^\x00]*"
"""Whoever begins with a brace means to call a tool; whatever else begins a reply, it is words."""


def of_schema(schema: JsonSchema, *, max_chars: int) -> str:
    """The grammar of JSON that fits `schema`.

    A string without a bound gets one of `max_chars` characters, so that a small model cannot go on for ever
    inside it. Bounds of numbers are not enforced. Raises `InvalidInput` for a schema without a grammar.
    """
    return _converted(json.dumps(_bounded(schema, max_chars)))


def of_arguments(tool: ToolSpec, *, max_chars: int) -> str:
    """The grammar of the arguments of `tool`."""
    return of_schema(_as_object(dict(tool.parameters)), max_chars=max_chars)


def of_calls(tools: Sequence[ToolSpec], *, max_chars: int) -> str:
    """The grammar of a call of one of `tools`."""
    definitions: dict[str, Any] = {}
    calls = [_call_schema(number, tool, definitions) for number, tool in enumerate(tools)]
    return of_schema({"anyOf": calls, "$defs": definitions}, max_chars=max_chars)


def of_words_or_calls(tools: Sequence[ToolSpec], *, max_chars: int) -> str:
    """The grammar of a reply that is either words, or a call of one of `tools`."""
    rules = of_calls(tools, max_chars=max_chars).replace("root ::=", "call ::=", 1)
    return f"{WORDS_OR_CALL}\n{rules}"


def _call_schema(number: int, tool: ToolSpec, definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of a call; the definitions its arguments refer to move to the top, under names of their own."""
    moved = json.dumps(tool.parameters).replace('"#/$defs/', f'"#/$defs/{number}-')
    parameters = json.loads(moved)
    definitions.update({f"{number}-{name}": schema for name, schema in parameters.pop("$defs", {}).items()})
    return {
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": _as_object(parameters)},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _as_object(parameters: dict[str, Any]) -> dict[str, Any]:
    """A tool without arguments is called with `{}`, not with any object."""
    return parameters if parameters.get("properties") else {"const": {}}


def _bounded(schema: Any, max_chars: int) -> Any:
    """`schema` with a bound on each string that has none."""
    if isinstance(schema, list):
        return [_bounded(item, max_chars) for item in schema]
    if not isinstance(schema, dict):
        return schema
    bounded = {key: _bounded(value, max_chars) for key, value in schema.items()}
    if schema.get("type") == "string" and not {"maxLength", "enum", "const", "pattern", "format"} & set(schema):
        bounded["maxLength"] = max(max_chars, schema.get("minLength", 0))
    return bounded


@lru_cache(maxsize=64)
def _converted(schema: str) -> str:
    try:
        return str(json_schema_to_gbnf(schema))
    # The converter has no errors of its own: what it does not know makes it fail in these ways.
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(
            f"a schema that has no grammar: {error}", expected="JSON schema of the common kinds"
        ) from error
