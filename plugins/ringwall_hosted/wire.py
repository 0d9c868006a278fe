"""Chat completions as they are written on the wire: a request's body, and a reply's stream of events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from pydantic import BaseModel

from ringwall.errors import BadReply, InvalidInput, ProviderRefused
from ringwall.model.base import ANY_TOOL, Delta, ModelRequest, RequestedCall, ToolSpec, Usage
from ringwall.schema import JSON, JsonSchema, canonical

DONE: Final = "[DONE]"
"""The data of the event that ends a stream."""

_MOST: Final = 16 * 1024 * 1024
"""Bytes that one reply may have: a server that sends more is broken or means harm."""


# ---- the request


def body(request: ModelRequest, *, model: str, max_tokens_field: str, extra: Mapping[str, JSON]) -> bytes:
    """The JSON of a request. What `extra` holds is added; a field that it sets to None is left out.

    Raises `InvalidInput` for a message that cannot be written.
    """
    sampling = request.sampling
    fields: dict[str, Any] = {
        "model": model,
        "messages": _messages(request.messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": sampling.temperature,
        "top_p": sampling.top_p if sampling.top_p != 1.0 else None,
        max_tokens_field: sampling.max_tokens,
        "stop": sampling.stop or None,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty or None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _choice(request.tool_choice),
        "response_format": _response_format(request.schema),
        **extra,
    }
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def _messages(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    try:
        written = convert_to_openai_messages(messages)
    except (ValueError, TypeError, KeyError):
        written = None
    # Raised out here and not from the error above: that one repeats the message, this one may be shown.
    if written is None:
        raise InvalidInput(
            "a message holds content that chat completions cannot carry",
            expected="text, images and tool calls in one of LangChain's formats",
        )
    _add_broken_calls(messages, written)
    return written


def _add_broken_calls(messages: Sequence[BaseMessage], written: list[dict[str, Any]]) -> None:
    """Tell of the calls that did not parse: LangChain leaves them out, and their answers would answer nothing.

    Their arguments are wrapped, because servers that parse the history refuse what is no JSON.
    """
    spoken = [message for message in messages if isinstance(message, AIMessage)]
    said = [message for message in written if message["role"] == "assistant"]
    for message, entry in zip(spoken, said, strict=True):
        for call in message.invalid_tool_calls:
            function = {"name": call["name"] or "", "arguments": canonical({"invalid": call["args"]})}
            entry.setdefault("tool_calls", []).append({"type": "function", "id": call["id"], "function": function})


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function}


def _choice(tool_choice: str | None) -> str | dict[str, Any] | None:
    if tool_choice is None:
        return None
    return "required" if tool_choice == ANY_TOOL else {"type": "function", "function": {"name": tool_choice}}


def _response_format(schema: JsonSchema | None) -> dict[str, Any] | None:
    if schema is None:
        return None
    # OpenAI guarantees the fit only for `strict`, and refuses it for a schema with anything optional in it.
    form = {"name": "reply", "schema": schema, "strict": _is_closed(schema)}
    return {"type": "json_schema", "json_schema": form}


def _is_closed(schema: JSON) -> bool:
    """Whether every object in `schema` names all that it may hold, and asks for all of it."""
    if isinstance(schema, Mapping):
        properties, required = schema.get("properties"), schema.get("required", [])
        if schema.get("type") == "object" or isinstance(properties, Mapping):
            names = set(properties) if isinstance(properties, Mapping) else set()
            if schema.get("additionalProperties") is not False or names != set(_strings(required)):
                return False
        return all(map(_is_closed, schema.values()))
    return isinstance(schema, str) or not isinstance(schema, Sequence) or all(map(_is_closed, schema))


def _strings(value: JSON) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, Sequence) else []


# ---- the reply


async def events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The data of each server-sent event. An event that its blank line does not end is not one.

    Raises ValueError for bytes that are no UTF-8, and for more of them than a reply may have.
    """
    # By bytes: decoded text would also be cut at the line separators that JSON strings may hold.
    rest, size, data = b"", 0, list[bytes]()
    async for chunk in chunks:
        if (size := size + len(chunk)) > _MOST:
            raise ValueError("too long")
        *lines, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif not line and data:
                yield b"\n".join(data).decode()
                data.clear()


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _Fragment(BaseModel):
    index: int | None = None
    id: str | None = None
    function: _Function = _Function()


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_Fragment] | None = None


class _Alternative(BaseModel):
    index: int = 0
    delta: _Message = _Message()
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Chunk(BaseModel):
    """One event of a reply, or the error that a server tells in the middle of one."""

    choices: list[_Alternative] = []
    usage: _Usage | None = None
    error: object = None


@dataclass(slots=True)
class _Call:
    """A tool call in the making."""

    index: int | None
    id: str = ""
    name: str = ""
    arguments: str = ""


class Assembly:
    """Makes deltas of chunks: text goes on at once, calls when they are whole, the end when it is known.

    `begun` tells whether a delta was made already.
    """

    def __init__(self, request: ModelRequest, provider: str) -> None:
        self._request, self._provider = request, provider
        self._calls: list[_Call] = []
        self._text: list[str] = []
        self._usage: Usage | None = None
        self._finish = ""
        self.begun = False

    def take(self, chunk: Chunk) -> Delta | None:
        """The delta that `chunk` makes, if any. Raises `ProviderRefused` for a refusal written as one."""
        if chunk.usage:
            self._usage = Usage(chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
        choice = next((choice for choice in chunk.choices if choice.index == 0), None)
        if choice is None:
            return None
        if choice.delta.refusal or choice.finish_reason == "content_filter":
            raise ProviderRefused(f"{self._provider} declined to answer", provider=self._provider)
        for fragment in choice.delta.tool_calls or ():
            self._add(fragment)
        self._finish = choice.finish_reason or self._finish
        return self._said(choice.delta.content)

    def last(self) -> Delta:
        """The delta that ends the reply: its calls, usage and why it ended. Raises `BadReply` for half a reply."""
        finish = self._finish
        if finish not in ("stop", "length", "tool_calls"):
            raise self._bad("the reply stopped before its end", "a `finish_reason` of stop, length or tool_calls")
        calls = tuple(
            RequestedCall(c.id or f"call-{uuid4().hex[:12]}", c.name, c.arguments or "{}") for c in self._calls
        )
        if finish == "length" and not all(map(_parses, (call.arguments for call in calls))):
            raise self._bad("the reply stopped inside a tool call", "a larger `max_tokens`")
        if (finish == "tool_calls" or (self._request.tool_choice and finish != "length")) and not calls:
            raise self._bad("no tool was called", "a tool call")
        if not all(call.name for call in calls):
            raise self._bad("a tool call names no tool", "a name in each call")
        if self._request.schema is not None and finish == "stop" and not _parses("".join(self._text)):
            raise self._bad("the reply to a schema is no JSON", "JSON: does the server know `response_format`?")
        # Servers end a reply that they were forced to make a call in with `stop`.
        return Delta("", calls, self._usage, "tool_calls" if calls else finish)

    def _add(self, fragment: _Fragment) -> None:
        """Fragments of one call share its index; but some servers leave it out, or give 0 to every call."""
        same = [call for call in self._calls if fragment.index is None or call.index == fragment.index]
        call = same[-1] if same else None
        if call is None or (fragment.id and call.id and fragment.id != call.id):
            self._calls.append(call := _Call(fragment.index))
        call.id = call.id or fragment.id or ""
        call.name = call.name or fragment.function.name or ""
        call.arguments += fragment.function.arguments or ""

    def _said(self, text: str | None) -> Delta | None:
        if not text:
            return None
        self.begun = True
        if self._request.schema is not None:
            self._text.append(text)
        return Delta(text)

    def _bad(self, what: str, expected: str) -> BadReply:
        return BadReply(f"{self._provider}: {what}", provider=self._provider, expected=expected)


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
