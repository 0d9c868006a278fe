"""What the APIs of hosted models have in common: a body that asks, a stream of events that answers."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from pydantic import BaseModel

from ringwall.errors import BadReply, InvalidInput, ProviderRefused, RingwallError
from ringwall.model.base import Alternative, Delta, ModelRequest, RequestedCall, TokenProbability, Usage
from ringwall.schema import JSON, canonical

Wish = Literal["frequency_penalty", "grammar", "logit_bias", "logprobs", "min_p", "seed", "stop"]
"""A part of a request that not every API has a field for."""

_MOST: Final = 16 * 1024 * 1024
"""Bytes that one reply may have: a server that sends more is broken or means harm."""

_NOT_SAID: Final = ("tool_call", "invalid_tool_call", "reasoning")
"""Blocks of LangChain's in the content of a message that are no part of what was said."""

_KEEP_ALIVE: Final = (b"ping", b"keepalive")
"""The names of events that say only that the server is still there."""


class Wire(ABC):
    """One API: where it is, how its requests are written, and how its replies are read.

    `knows` are the wishes that it has a field for: a request with another one is refused, not sent without it.
    """

    path: ClassVar[str]
    base_url: ClassVar[str]
    """Of those who made the API; a model's own takes its place."""
    key_env: ClassVar[str]
    key_header: ClassVar[str] = "Authorization"

    @property
    @abstractmethod
    def knows(self) -> frozenset[Wish]:
        """The wishes that it has a field for."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Those of every request, without the key."""
        return MappingProxyType({})

    def body(self, request: ModelRequest, *, model: str, extra: Mapping[str, JSON]) -> bytes:
        """The JSON of a request. What `extra` holds is added; a field that it sets to None is left out.

        Raises `InvalidInput` for a message that cannot be written.
        """
        fields = {"model": model, "stream": True, **self.fields(request), **extra}
        return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()

    @abstractmethod
    def fields(self, request: ModelRequest) -> dict[str, Any]:
        """What `request` asks, in the words of this API; None for what it leaves out."""

    @abstractmethod
    def reading(self, request: ModelRequest, provider: str) -> Reading:
        """Makes sense of the events that answer `request`."""


def wishes(request: ModelRequest) -> set[Wish]:
    """What `request` asks beyond what every API has a field for."""
    sampling = request.sampling
    wished: dict[Wish, object] = {
        "frequency_penalty": sampling.frequency_penalty,
        "grammar": request.grammar,
        "logit_bias": sampling.logit_bias,
        "logprobs": sampling.logprobs is not None,
        "min_p": sampling.min_p,
        "seed": sampling.seed is not None,
        "stop": sampling.stop,
    }
    return {wish for wish, value in wished.items() if value}


# ---- messages


def as_entries(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """Messages as chat completions write them: what the other APIs write is made from it."""
    try:
        written = convert_to_openai_messages(messages)
    except (ValueError, TypeError, KeyError):
        written = None
    # Raised out here and not from the error above: that one repeats the message, this one may be shown.
    if written is None:
        raise unwritable()
    _add_broken_calls(messages, written)
    return [{**entry, "content": _content(entry["content"])} if "content" in entry else entry for entry in written]


def _content(content: Any) -> Any:
    """Without calls, which stand beside it, and thoughts, which nobody reads again."""
    if not isinstance(content, list):
        return content
    return [part for part in content if part.get("type") not in _NOT_SAID] or ""


def unwritable() -> InvalidInput:
    """The error for content that there is no way to write. It does not repeat it."""
    return InvalidInput(
        "a message holds content that this API cannot carry",
        expected="text, images and tool calls in one of LangChain's formats",
    )


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


def parts(entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The content of a message piece by piece, without empty text: there are servers that refuse it."""
    content = entry.get("content") or []
    pieces = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return [piece for piece in pieces if piece.get("type") != "text" or piece["text"]]


# ---- schemas


def is_closed(schema: JSON) -> bool:
    """Whether every object in `schema` names all that it may hold, and asks for all of it."""
    if isinstance(schema, Mapping):
        properties, required = schema.get("properties"), schema.get("required", [])
        if schema.get("type") == "object" or isinstance(properties, Mapping):
            names = set(properties) if isinstance(properties, Mapping) else set()
            if schema.get("additionalProperties") is not False or names != set(_strings(required)):
                return False
        return all(map(is_closed, schema.values()))
    return isinstance(schema, str) or not isinstance(schema, Sequence) or all(map(is_closed, schema))


def _strings(value: JSON) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, Sequence) else []


# ---- the reply


async def events(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The data of each server-sent event that is more than a sign of life. One that no blank line ends is none.

    Raises ValueError for bytes that are no UTF-8, and for more of them than a reply may have.
    """
    # By bytes: decoded text would also be cut at the line separators that JSON strings may hold.
    size, begun, data, name = 0, list[bytes](), list[bytes](), b""
    async for chunk in chunks:
        if (size := size + len(chunk)) > _MOST:
            raise ValueError("too long")
        begun.append(chunk)
        if b"\n" not in chunk:
            continue
        *lines, rest = b"".join(begun).split(b"\n")
        begun = [rest]
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                data.append(line[5:].removeprefix(b" "))
            elif line.startswith(b"event:"):
                name = line[6:].strip()
            elif not line:
                if data and name not in _KEEP_ALIVE:
                    yield b"\n".join(data).decode()
                data.clear()
                name = b""


class Likely(BaseModel):
    """A token with the logarithm of its probability, and what could have stood in its place."""

    token: str = ""
    logprob: float
    top_logprobs: list[Likely] = []


@dataclass(slots=True)
class Call:
    """A tool call in the making. `index` is the server's own number for it."""

    index: int | None = None
    id: str = ""
    name: str = ""
    arguments: str = ""


class Reading(ABC):
    """Makes deltas of events: text goes on at once, calls when they are whole, the end when it is known.

    `begun` tells whether a delta was made already, `is_over` that nothing is to come, and `refused`, if not 0, with
    which status the server told an error in place of the reply.
    """

    def __init__(self, request: ModelRequest, provider: str) -> None:
        self._request, self._provider = request, provider
        self._calls: list[Call] = []
        self._text: list[str] = []
        self._usage: Usage | None = None
        self._finish = ""
        self._told_likely = False
        self.begun = self.is_over = False
        self.refused = 0

    @abstractmethod
    def take(self, event: str) -> Delta | None:
        """The delta that `event` makes, if any.

        Raises `ProviderRefused` for a refusal written as a reply, and ValueError for what is no event of this API.
        """

    def last(self) -> Delta:
        """The delta that ends the reply: its calls, usage and why it ended. Raises `BadReply` for half a reply."""
        if problem := self._problem():
            raise problem
        calls = tuple(
            RequestedCall(c.id or f"call-{uuid4().hex[:12]}", c.name, c.arguments or "{}") for c in self._calls
        )
        # Servers end a reply that they were forced to make a call in with `stop`.
        return Delta("", calls, self._usage, "tool_calls" if calls else self._finish)

    def _problem(self) -> RingwallError | None:
        request, finish = self._request, self._finish
        if finish not in ("stop", "length", "tool_calls"):
            return self._bad("the reply stopped before its end", "a reason why it ended")
        if finish == "length" and not all(parses(call.arguments or "{}") for call in self._calls):
            return self._bad("the reply stopped inside a tool call", "a larger `max_tokens`")
        if (finish == "tool_calls" or (request.tool_choice and finish != "length")) and not self._calls:
            return self._bad("no tool was called", "a tool call")
        if not all(call.name for call in self._calls):
            return self._bad("a tool call names no tool", "a name in each call")
        if request.schema is not None and finish == "stop" and not parses("".join(self._text)):
            return self._bad("the reply to a schema is no JSON", "JSON: does the server know how to keep to a schema?")
        if request.sampling.logprobs is not None and self.begun and not self._told_likely:
            return self._bad("the reply came without the probabilities of its tokens", "`logprobs`")
        return None

    def _said(self, text: str | None, likely: Sequence[Likely] | None = None) -> Delta | None:
        if not text and not likely:
            return None
        self.begun = True
        self._told_likely = self._told_likely or bool(likely)
        if text and self._request.schema is not None:
            self._text.append(text)
        return Delta(text or "", logprobs=tuple(map(_as_probability, likely or ())))

    def _declined(self) -> ProviderRefused:
        return ProviderRefused(f"{self._provider} declined to answer", provider=self._provider)

    def _bad(self, what: str, expected: str) -> BadReply:
        return BadReply(f"{self._provider}: {what}", provider=self._provider, expected=expected)


def _as_probability(likely: Likely) -> TokenProbability:
    others = tuple(Alternative(other.token, other.logprob) for other in likely.top_logprobs)
    return TokenProbability(likely.token, likely.logprob, others)


def parses(text: str) -> bool:
    """Whether `text` is JSON."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
