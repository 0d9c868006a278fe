"""Anthropic's Messages as a server writes them: for a test that says what, or for a ringwall provider."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall, ToolMessage

from ringwall.model import ANY_TOOL, Delta, ModelProvider, ModelRequest, RequestedCall, Sampling, ToolSpec
from tests.plugins.openai_server import Body, api_app, stream

FINISHES = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}

COUNTED = {"input_tokens": 3, "cache_creation_input_tokens": 1, "cache_read_input_tokens": 1, "output_tokens": 1}
PING = {"type": "ping"}
STOP = {"type": "message_stop"}


def starts(**usage: object) -> Body:
    """The event that begins a reply."""
    return {"type": "message_start", "message": {"id": "m", "role": "assistant", "content": [], "usage": usage}}


def opens(index: int = 0, **block: object) -> Body:
    """The event that begins a block, of text unless said otherwise."""
    return {"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": "", **block}}


def says(text: str, index: int = 0) -> Body:
    """The event that says so."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}


def argues(json: str, index: int = 0) -> Body:
    """The event that goes on with the arguments of a tool call."""
    return {"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": json}}


def closes(index: int = 0) -> Body:
    return {"type": "content_block_stop", "index": index}


def ends(reason: str = "end_turn", tokens: int = 2) -> Body:
    """The event that says why the reply ended."""
    return {"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": tokens}}


HELLO = stream(starts(**COUNTED), opens(), PING, says("Hel"), says("lo"), closes(), ends(), STOP)


# ---- a server that is a provider


def anthropic_app(provider: ModelProvider) -> FastAPI:
    """Messages as `provider` answers them."""
    return api_app(provider, "/v1/messages", _as_request, _written)


def _as_request(body: Body) -> ModelRequest:
    choice, tools = body.get("tool_choice"), tuple(map(_as_tool, body.get("tools", ())))
    return ModelRequest(
        (*_system(body), *(message for entry in body["messages"] for message in _messages(entry))),
        tools=tools,
        tool_choice=choice and (ANY_TOOL if choice["type"] == "any" else choice["name"]),
        schema=body["output_config"]["format"]["schema"] if "output_config" in body else None,
        sampling=Sampling(
            body["temperature"], body.get("top_p", 1.0), body["max_tokens"], tuple(body.get("stop_sequences", ()))
        ),
    )


def _as_tool(tool: Body) -> ToolSpec:
    return ToolSpec(tool["name"], tool["description"], tool["input_schema"])


def _system(body: Body) -> list[BaseMessage]:
    return [SystemMessage(block["text"]) for block in body.get("system", ())]


def _messages(entry: Body) -> Iterator[BaseMessage]:
    blocks: list[Any] = entry["content"]
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    if entry["role"] == "assistant":
        calls = [block for block in blocks if block["type"] == "tool_use"]
        yield AIMessage(text, tool_calls=[ToolCall(name=c["name"], args=c["input"], id=c["id"]) for c in calls])
        return
    for block in blocks:
        if block["type"] == "tool_result":
            yield ToolMessage("".join(part["text"] for part in block["content"]), tool_call_id=block["tool_use_id"])
    if text:
        yield HumanMessage(text)


def _written(delta: Delta, before: int) -> Iterator[Body]:
    if not before:
        yield starts(input_tokens=0, output_tokens=1)
        yield opens()
    if delta.text:
        yield says(delta.text)
    for index, call in enumerate(delta.calls, 1):
        yield from _block(index, call)
    if delta.finish:
        used = delta.usage
        counts = {"input_tokens": used.prompt, "output_tokens": used.completion} if used else {}
        yield {**ends(FINISHES[delta.finish]), "usage": counts}
        yield STOP


def _block(index: int, call: RequestedCall) -> Iterator[Body]:
    half = len(call.arguments) // 2
    yield opens(index, type="tool_use", id=call.id, name=call.name, input={})
    yield argues("", index)
    yield argues(call.arguments[:half], index)
    yield argues(call.arguments[half:], index)
    yield closes(index)
