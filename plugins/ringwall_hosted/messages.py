"""Anthropic's Messages API."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import BaseModel, NonNegativeInt

from ringwall.errors import InvalidInput
from ringwall.model.base import ANY_TOOL, Delta, ModelRequest, ToolSpec, Usage
from ringwall.schema import JSON, JsonSchema
from ringwall_hosted.faults import status_of
from ringwall_hosted.wire import Call, Reading, Wire, Wish, as_entries, is_closed, parts, unwritable

_SCHEMA_TOOL: Final = ToolSpec("reply", "Give the reply.", {})
"""The tool whose arguments are the reply, where the format of a reply cannot be asked for."""

_SIZES: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength", "maxLength")
_COUNTS: Final = ("minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties")

_UNKNOWN_TO_FORMATS: Final = frozenset((*_SIZES, *_COUNTS, "pattern", "patternProperties"))
"""Words of JSON Schema that are refused in the format of a reply; the arguments of a tool may have them."""

_FINISHES: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Messages(Wire):
    """`/messages`, as of `version`: Anthropic, and servers that speak its API.

    A schema is asked for as the format of the reply if that can express it and `formats` says that the model knows
    formats (older ones do not), and else as the arguments of a tool that must be called; then no other tools can be
    on offer. System messages come first or not at all.
    """

    path: ClassVar[str] = "/messages"
    base_url: ClassVar[str] = "https://api.anthropic.com/v1"
    key_env: ClassVar[str] = "ANTHROPIC_API_KEY"
    key_header: ClassVar[str] = "x-api-key"

    version: str = "2023-06-01"
    formats: bool = True

    @property
    def knows(self) -> frozenset[Wish]:
        return frozenset(("stop",))

    @property
    def headers(self) -> Mapping[str, str]:
        return {"anthropic-version": self.version}

    def fields(self, request: ModelRequest) -> dict[str, Any]:
        sampling, tools, choice = request.sampling, request.tools, request.tool_choice
        by_tool = request.schema is not None and not self._has_format(request.schema)
        if by_tool:
            tools, choice = _only_tool(request), _SCHEMA_TOOL.name
        system, messages = _split(as_entries(request.messages))
        return {
            "system": system or None,
            "messages": messages,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p if sampling.top_p != 1.0 else None,
            "stop_sequences": sampling.stop or None,
            "tools": [_tool(tool) for tool in tools] or None,
            "tool_choice": _choice(choice),
            "output_config": None if by_tool else _output_config(request.schema),
        }

    def reading(self, request: ModelRequest, provider: str) -> Reading:
        return _Assembly(request, provider)

    def _has_format(self, schema: JsonSchema) -> bool:
        return self.formats and is_closed(schema) and _UNKNOWN_TO_FORMATS.isdisjoint(_words(schema))


def _words(schema: JSON) -> set[str]:
    """The names of all fields in `schema`."""
    if isinstance(schema, Mapping):
        return set(schema).union(*map(_words, schema.values()))
    if isinstance(schema, Sequence) and not isinstance(schema, str):
        return set[str]().union(*map(_words, schema))
    return set()


def _only_tool(request: ModelRequest) -> tuple[ToolSpec]:
    if request.tools:
        raise InvalidInput(
            "a reply to this schema takes the place of a tool call, and there are tools on offer",
            expected="a schema without bounds, each object closed by `additionalProperties: false` and all required",
            hint="offer the tools in one request, and ask for the schema in the next",
        )
    return (ToolSpec(_SCHEMA_TOOL.name, _SCHEMA_TOOL.description, request.schema or {}),)


def _output_config(schema: JsonSchema | None) -> dict[str, Any] | None:
    return None if schema is None else {"format": {"type": "json_schema", "schema": schema}}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}


def _choice(tool_choice: str | None) -> dict[str, Any] | None:
    if tool_choice is None:
        return None
    return {"type": "any"} if tool_choice == ANY_TOOL else {"type": "tool", "name": tool_choice}


# ---- messages


def _split(entries: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The system prompt, and the messages after it: results of tools are the user's, all of one turn in one."""
    first = next((at for at, entry in enumerate(entries) if entry["role"] != "system"), len(entries))
    system = [_block(part) for entry in entries[:first] for part in parts(entry)]
    messages: list[dict[str, Any]] = []
    for entry in entries[first:]:
        role, content = _turn(entry)
        if messages and messages[-1]["role"] == role:
            messages[-1]["content"] += content
        elif content:
            messages.append({"role": role, "content": content})
    return system, messages


def _turn(entry: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    role, content = entry["role"], [_block(part) for part in parts(entry)]
    if role == "assistant":
        return role, content + [_use(call) for call in entry.get("tool_calls", ())]
    if role == "tool":
        return "user", [{"type": "tool_result", "tool_use_id": entry["tool_call_id"], "content": content}]
    if role == "user":
        return role, content
    raise InvalidInput(
        f"a {role} message stands among the others",
        expected="system messages before all others, then those of user, assistant and tools",
    )


def _use(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    return {
        "type": "tool_use",
        "id": call["id"],
        "name": function["name"],
        "input": json.loads(function["arguments"]),
    }


def _block(part: Mapping[str, Any]) -> dict[str, Any]:
    match part:
        case {"type": "text", "text": text}:
            return {"type": "text", "text": text}
        case {"type": "image_url", "image_url": {"url": url}}:
            return {"type": "image", "source": _source(url)}
        case {"type": "file", "file": {"file_data": url}}:
            return {"type": "document", "source": _source(url)}
    raise unwritable()


def _source(url: str) -> dict[str, str]:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    kind, _, data = url.removeprefix("data:").partition(";base64,")
    return {"type": "base64", "media_type": kind, "data": data}


# ---- the reply


class _Usage(BaseModel):
    """Cumulative; what is None did not change. Tokens of a cache are not among `input_tokens`."""

    input_tokens: NonNegativeInt | None = None
    cache_creation_input_tokens: NonNegativeInt | None = None
    cache_read_input_tokens: NonNegativeInt | None = None
    output_tokens: NonNegativeInt | None = None


class _Message(BaseModel):
    usage: _Usage | None = None


class _Block(BaseModel):
    type: str
    id: str = ""
    name: str = ""
    text: str | None = None


class _Delta(BaseModel):
    text: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None


class _Event(BaseModel):
    """Any of the events: those that say nothing to us hold none of these fields."""

    type: str
    index: int | None = None
    message: _Message = _Message()
    content_block: _Block | None = None
    delta: _Delta = _Delta()
    usage: _Usage | None = None
    error: object = None


class _Assembly(Reading):
    def __init__(self, request: ModelRequest, provider: str) -> None:
        super().__init__(request, provider)
        self._counted = _Usage()
        self._reply_block: int | None = None
        """The number of the block whose arguments are the reply."""

    def take(self, event: str) -> Delta | None:
        read = _Event.model_validate_json(event)
        match read.type:
            case "message_start":
                self._count(read.message.usage)
            case "content_block_start" if read.content_block:
                return self._started(read.index, read.content_block)
            case "content_block_delta":
                return self._continued(read.index, read.delta)
            case "message_delta":
                self._count(read.usage)
                if read.delta.stop_reason:
                    self._ended(read.delta.stop_reason)
            case "message_stop":
                self.is_over = True
            case "error":
                self.refused = status_of(read.error)
        return None

    def last(self) -> Delta:
        if not self.is_over:
            self._finish = ""
        return super().last()

    def _started(self, index: int | None, block: _Block) -> Delta | None:
        if block.type == "text":
            return self._said(block.text)
        if block.type == "tool_use" and self._is_reply(block.name):
            self._reply_block = index
        elif block.type == "tool_use":
            self._calls.append(Call(index, block.id, block.name))
        return None

    def _continued(self, index: int | None, delta: _Delta) -> Delta | None:
        if delta.partial_json is None:
            return self._said(delta.text)
        if index is not None and index == self._reply_block:
            return self._said(delta.partial_json)
        for call in self._calls:
            if call.index == index:
                call.arguments += delta.partial_json
        return None

    def _ended(self, reason: str) -> None:
        if reason == "refusal":
            raise self._declined()
        is_reply = reason == "tool_use" and self._reply_block is not None
        self._finish = "stop" if is_reply else _FINISHES.get(reason, "")

    def _is_reply(self, name: str) -> bool:
        return self._request.schema is not None and not self._request.tools and name == _SCHEMA_TOOL.name

    def _count(self, usage: _Usage | None) -> None:
        if usage is None:
            return
        self._counted = counted = self._counted.model_copy(update=usage.model_dump(exclude_none=True))
        cached = counted.cache_read_input_tokens or 0
        prompt = (counted.input_tokens or 0) + (counted.cache_creation_input_tokens or 0) + cached
        self._usage = Usage(prompt, counted.output_tokens or 0, cached)
