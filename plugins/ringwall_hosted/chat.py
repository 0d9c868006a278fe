"""Chat completions, OpenAI's first API and the one that everybody else's servers speak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Final

from pydantic import BaseModel, NonNegativeInt

from ringwall.model.base import ANY_TOOL, Delta, ModelRequest, ToolSpec, Usage
from ringwall.schema import JsonSchema
from ringwall_hosted.faults import status_of
from ringwall_hosted.wire import Call, Likely, Reading, Wire, Wish, as_entries, is_closed

OPENAI: Final[frozenset[Wish]] = frozenset(("frequency_penalty", "logit_bias", "logprobs", "seed", "stop"))
"""What OpenAI's own chat completions have fields for."""

_DONE: Final = "[DONE]"
"""The data of the event that ends a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCompletions(Wire):
    """`/chat/completions`: OpenAI, vLLM, llama.cpp's servers, Ollama, LM Studio and nearly everybody else.

    `knows` are the wishes that the server at hand has a field for: OpenAI's have no `min_p` and no `grammar`, but
    others' do, and others leave some of OpenAI's aside without a word. Reasoning models of OpenAI's want
    `max_tokens_field="max_completion_tokens"`.
    """

    path: ClassVar[str] = "/chat/completions"
    base_url: ClassVar[str] = "https://api.openai.com/v1"
    key_env: ClassVar[str] = "OPENAI_API_KEY"

    knows: frozenset[Wish] = OPENAI
    max_tokens_field: str = "max_tokens"

    def fields(self, request: ModelRequest) -> dict[str, Any]:
        sampling = request.sampling
        return {
            "messages": as_entries(request.messages),
            "stream_options": {"include_usage": True},
            "temperature": sampling.temperature,
            "top_p": sampling.top_p if sampling.top_p != 1.0 else None,
            "min_p": sampling.min_p or None,
            self.max_tokens_field: sampling.max_tokens,
            "stop": sampling.stop or None,
            "seed": sampling.seed,
            "frequency_penalty": sampling.frequency_penalty or None,
            "logit_bias": {str(token): bias for token, bias in sampling.logit_bias} or None,
            "logprobs": sampling.logprobs is not None or None,
            "top_logprobs": sampling.logprobs,
            "tools": [_tool(tool) for tool in request.tools] or None,
            "tool_choice": _choice(request.tool_choice),
            "response_format": _response_format(request.schema),
            "grammar": request.grammar or None,
        }

    def reading(self, request: ModelRequest, provider: str) -> Reading:
        return _Assembly(request, provider)


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
    form = {"name": "reply", "schema": schema, "strict": is_closed(schema)}
    return {"type": "json_schema", "json_schema": form}


# ---- the reply


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


class _Logprobs(BaseModel):
    content: list[Likely] | None = None


class _Alternative(BaseModel):
    index: int = 0
    delta: _Message = _Message()
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Details(BaseModel):
    cached_tokens: NonNegativeInt | None = None


class _Usage(BaseModel):
    prompt_tokens: NonNegativeInt = 0
    completion_tokens: NonNegativeInt = 0
    prompt_tokens_details: _Details | None = None


class _Chunk(BaseModel):
    """One event of a reply, or the error that a server tells in the middle of one."""

    choices: list[_Alternative] = []
    usage: _Usage | None = None
    error: object = None


class _Assembly(Reading):
    def take(self, event: str) -> Delta | None:
        if event == _DONE:
            self.is_over = True
            return None
        chunk = _Chunk.model_validate_json(event)
        if chunk.error:
            self.refused = status_of(chunk.error)
            return None
        if chunk.usage:
            self._usage = _as_usage(chunk.usage)
        choice = next((choice for choice in chunk.choices if choice.index == 0), None)
        return self._chosen(choice) if choice else None

    def _chosen(self, choice: _Alternative) -> Delta | None:
        if choice.delta.refusal or choice.finish_reason == "content_filter":
            raise self._declined()
        for fragment in choice.delta.tool_calls or ():
            self._add(fragment)
        self._finish = choice.finish_reason or self._finish
        return self._said(choice.delta.content, choice.logprobs.content if choice.logprobs else None)

    def _add(self, fragment: _Fragment) -> None:
        """Fragments of one call share its index; but some servers leave it out, or give 0 to every call."""
        same = [call for call in self._calls if fragment.index is None or call.index == fragment.index]
        call = same[-1] if same else None
        if call is None or (fragment.id and call.id and fragment.id != call.id):
            self._calls.append(call := Call(fragment.index))
        call.id = call.id or fragment.id or ""
        call.name = call.name or fragment.function.name or ""
        call.arguments += fragment.function.arguments or ""


def _as_usage(usage: _Usage) -> Usage:
    cached = usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens
    return Usage(usage.prompt_tokens, usage.completion_tokens, cached or 0)
