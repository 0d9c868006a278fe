"""What tools return, with its labels: by field where the tool says what its fields are worth."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import cast

from ringwall.interface.base import Tool
from ringwall.interface.meaning import Result
from ringwall.label import Label, join
from ringwall.principal import ACL, Principal
from ringwall.schema import JSON


def result_label(tool: Tool, asker: Principal, call: Label) -> Label:
    """What a whole result carries: what the call carried, and what the tool says of itself."""
    own = Label.of(ACL((asker.own_grant,)), f"tool:{tool.name}")
    return call | (own if tool.label is None else tool.label)


def result_of(tool: Tool, text: str, call: Label, rest: Label) -> Result:
    """A tool's result: its fields with their labels and that of the call, since it decides what is returned."""
    return Result(parsed(text), rest, {name: each | call for name, each in tool.fields.items()}, call)


def together(results: Sequence[Result]) -> Result:
    """The results of several calls as one list; each field carries what any of them has it carry."""
    values: list[JSON] = []
    for each in results:
        values += each.value if isinstance(each.value, list) else [each.value]
    fields = {name: join([each.fields[name] for each in results]) for name in results[0].fields}
    return Result(values, join([each.label for each in results]), fields, join([each.lookup for each in results]))


def parsed(text: str) -> JSON:
    """A result as what it says: an object or a list if it is one in JSON, or else the text."""
    if text[:1] in ("{", "["):
        try:
            return cast(JSON, json.loads(text))
        except ValueError:
            return text
    return text
