"""Undoing a call is a call too: of a tool whose arguments are the call's own, and what it returned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from ringwall.errors import InvalidInput
from ringwall.interface.base import CallContext, Effect, Tool, ToolCall
from ringwall.schema import JSON, JsonSchema, canonical

SUFFIX: Final = ".undo"
"""What the policy calls it: `call tool:book.undo`."""


class Undo(Tool):
    """Takes back what a call of `tool` did; as idempotent as the tool itself."""

    def __init__(self, tool: Tool) -> None:
        self._tool = tool
        self.name = tool.name + SUFFIX
        self.description = f"Take back a call of {tool.name}."
        self.effect, self.idempotent, self.label, self.timeout = tool.effect, tool.idempotent, tool.label, tool.timeout

    @property
    def parameters(self) -> JsonSchema:
        properties: dict[str, JSON] = {
            "arguments": cast(JSON, self._tool.parameters),
            "result": {"type": "string"},
        }
        return {"type": "object", "properties": properties, "required": ["arguments", "result"]}

    def check(self, arguments: Mapping[str, JSON]) -> Mapping[str, JSON]:
        undone, result = arguments.get("arguments"), arguments.get("result")
        if not isinstance(undone, dict) or not isinstance(result, str) or len(arguments) != 2:
            raise InvalidInput(f"{self.name} takes the arguments and the result of a call of {self._tool.name}")
        return {"arguments": cast(Any, self._tool.check(undone)), "result": result}

    async def run(self, arguments: Mapping[str, JSON], context: CallContext) -> str:
        undone = cast("Mapping[str, JSON]", arguments["arguments"])
        return await self._tool.undo(undone, cast(str, arguments["result"]), context)


def undo_call(call: ToolCall, result: str) -> ToolCall:
    """The call that takes `call` back. The same each time, so that it is made once."""
    return ToolCall(call.id + SUFFIX, call.tool + SUFFIX, canonical({"arguments": call.parsed, "result": result}))


def undoable(tools: Sequence[Tool]) -> list[Undo]:
    """A tool that takes back, for each of those whose calls can be taken back."""
    return [Undo(tool) for tool in tools if tool.undoable and tool.effect is not Effect.READ]
