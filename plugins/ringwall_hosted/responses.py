"""OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import BaseModel, NonNegativeInt

from ringwall.model.base import ANY_TOOL, Delta, ModelRequest, ToolSpec, Usage
from ringwall.schema import JsonSchema
from ringwall_hosted.faults import status_of
from ringwall_hosted.wire import Call, Likely, Reading, Wire, Wish, as_entries, is_closed, parts, unwritable

_PROBABILITIES: Final = "message.output_text.logprobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses(Wire):
    """`/responses`: OpenAI, and servers that speak its API. Nothing is kept there (`store` is false).

    Conversations are sent whole, none is referred to.
    """

    path: ClassVar[str] = "/responses"
    base_url: ClassVar[str] = "https://api.openai.com/v1"
    key_env: ClassVar[str] = "OPENAI_API_KEY"

    @property
    def knows(self) -> frozenset[Wish]:
        return frozenset(("logprobs",))

    def fields(self, request: ModelRequest) -> dict[str, Any]:
        sampling = request.sampling
        return {
            "store": False,
            "input": [item for entry in as_entries(request.messages) for item in _items(entry)],
            "temperature": sampling.temperature,
            "top_p": sampling.top_p if sampling.top_p != 1.0 else None,
            "max_output_tokens": sampling.max_tokens,
            "top_logprobs": sampling.logprobs,
            "include": None if sampling.logprobs is None else [_PROBABILITIES],
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _choice(request.tool_choice),
            "text": _text(request.schema),
        }

    def reading(self, request: ModelRequest, provider: str) -> Reading:
        return _Assembly(request, provider)


def _tool(tool: ToolSpec) -> dict[str, Any]:
    # Said either way: left out, OpenAI makes every argument required.
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": is_closed(tool.parameters),
    }


def _choice(tool_choice: str | None) -> str | dict[str, Any] | None:
    if tool_choice is None:
        return None
    return "required" if tool_choice == ANY_TOOL else {"type": "function", "name": tool_choice}


def _text(schema: JsonSchema | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    return {"format": {"type": "json_schema", "name": "reply", "schema": schema, "strict": is_closed(schema)}}


# ---- messages


def _items(entry: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A message as the items that it is here: calls and their results are items of their own."""
    role = entry["role"]
    content = [_part(part, said=role == "assistant") for part in parts(entry)]
    if role == "tool":
        yield {"type": "function_call_output", "call_id": entry["tool_call_id"], "output": content or ""}
        return
    if content:
        yield {"role": role, "content": content}
    for call in entry.get("tool_calls", ()):
        function = call["function"]
        yield {
            "type": "function_call",
            "call_id": call["id"],
            "name": function["name"],
            "arguments": function["arguments"],
        }


def _part(part: Mapping[str, Any], *, said: bool) -> dict[str, Any]:
    match part:
        case {"type": "text", "text": text}:
            return {"type": "output_text" if said else "input_text", "text": text}
        case {"type": "image_url", "image_url": {"url": url}}:
            return {"type": "input_image", "image_url": url}
        case {"type": "file", "file": file}:
            return {"type": "input_file", **file}
    raise unwritable()


# ---- the reply


class _Item(BaseModel):
    type: str
    call_id: str = ""
    name: str = ""
    arguments: str = ""


class _Details(BaseModel):
    cached_tokens: NonNegativeInt = 0


class _Usage(BaseModel):
    input_tokens: NonNegativeInt = 0
    output_tokens: NonNegativeInt = 0
    input_tokens_details: _Details | None = None


class _Why(BaseModel):
    reason: str = ""


class _Response(BaseModel):
    usage: _Usage | None = None
    incomplete_details: _Why | None = None
    error: object = None


class _Event(BaseModel):
    """Any of the events: those that say nothing to us hold none of these fields."""

    type: str
    delta: str | None = None
    logprobs: list[Likely] | None = None
    item: _Item | None = None
    response: _Response = _Response()
    error: object = None
    code: str | int | None = None


class _Assembly(Reading):
    def take(self, event: str) -> Delta | None:
        read = _Event.model_validate_json(event)
        match read.type:
            case "response.output_text.delta":
                return self._said(read.delta, read.logprobs)
            case "response.refusal.delta" | "response.refusal.done":
                raise self._declined()
            case "response.output_item.done" if read.item and read.item.type == "function_call":
                item = read.item
                self._calls.append(Call(None, item.call_id, item.name, item.arguments))
            case "response.completed" | "response.incomplete":
                self._ended(read.response)
            case "response.failed":
                self.refused = status_of(read.response.error)
            case "error":
                self.refused = status_of(read.error or {"code": read.code})
        return None

    def _ended(self, response: _Response) -> None:
        why = response.incomplete_details.reason if response.incomplete_details else ""
        if why == "content_filter":
            raise self._declined()
        self._finish = {"": "stop", "max_output_tokens": "length"}.get(why, "")
        if usage := response.usage:
            cached = usage.input_tokens_details.cached_tokens if usage.input_tokens_details else 0
            self._usage = Usage(usage.input_tokens, usage.output_tokens, cached)
        self.is_over = True
