"""OpenAI's Responses as a server writes them: for a test that says what, or for a ringwall provider."""

from __future__ import annotations

import json
from collections.abc import Iterator

from fastapi import FastAPI
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage, convert_to_messages

from ringwall.model import ANY_TOOL, Delta, ModelProvider, ModelRequest, RequestedCall, Sampling, ToolSpec, Usage
from tests.plugins.openai_server import Body, api_app, likely, stream

START = {"type": "response.created", "response": {"status": "in_progress", "usage": None, "error": None}}
PING = {"type": "keepalive"}
USED = Usage(5, 2, 1)


def says(text: str, **more: object) -> Body:
    """The event that says so."""
    return {"type": "response.output_text.delta", "output_index": 0, "delta": text, "logprobs": [], **more}


def calls(call_id: str, name: str, arguments: str) -> Body:
    """The event that ends a tool call."""
    item = {"type": "function_call", "id": "fc", "call_id": call_id, "name": name, "arguments": arguments}
    return {"type": "response.output_item.done", "output_index": 1, "item": item}


def ends(why: str = "", usage: Usage = USED) -> Body:
    """The event that ends a reply, early if `why` is said."""
    status = "incomplete" if why else "completed"
    used = {
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.completion,
    }
    response = {"status": status, "incomplete_details": {"reason": why} if why else None, "usage": used, "error": None}
    return {"type": f"response.{status}", "response": response}


HELLO = stream(START, PING, says("Hel"), says("lo"), ends())


# ---- a server that is a provider


def responses_app(provider: ModelProvider) -> FastAPI:
    """Responses as `provider` answers them."""
    return api_app(provider, "/v1/responses", _as_request, _written)


def _as_request(body: Body) -> ModelRequest:
    choice = body.get("tool_choice")
    return ModelRequest(
        tuple(map(_as_message, body["input"])),
        tools=tuple(ToolSpec(tool["name"], tool["description"], tool["parameters"]) for tool in body.get("tools", ())),
        tool_choice=ANY_TOOL if choice == "required" else choice and choice["name"],
        schema=body["text"]["format"]["schema"] if "text" in body else None,
        sampling=Sampling(
            body["temperature"], body.get("top_p", 1.0), body["max_output_tokens"], logprobs=body.get("top_logprobs")
        ),
    )


def _as_message(item: Body) -> BaseMessage:
    match item.get("type"):
        case "function_call":
            call = ToolCall(name=item["name"], args=json.loads(item["arguments"]), id=item["call_id"])
            return AIMessage("", tool_calls=[call])
        case "function_call_output":
            return ToolMessage(_text(item["output"]), tool_call_id=item["call_id"])
    return convert_to_messages([{"role": item["role"], "content": _text(item["content"])}])[0]


def _text(parts: list[Body]) -> str:
    return "".join(part["text"] for part in parts)


def _written(delta: Delta, before: int) -> Iterator[Body]:
    if not before:
        yield START
    if delta.text or delta.logprobs:
        yield says(delta.text, logprobs=[likely(token) for token in delta.logprobs])
    for call in delta.calls:
        yield from _item(call)
    if delta.finish:
        yield ends("max_output_tokens" if delta.finish == "length" else "", delta.usage or Usage())


def _item(call: RequestedCall) -> Iterator[Body]:
    for piece in (call.arguments[:3], call.arguments[3:]):
        yield {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": piece}
    yield {"type": "response.function_call_arguments.done", "output_index": 1, "arguments": call.arguments}
    yield calls(*call)
