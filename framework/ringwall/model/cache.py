"""Replies kept for whoever asks the very same again, and may read the very same."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from typing import Final, NamedTuple, cast

from langchain_core.messages import BaseMessage

from ringwall.model.base import Delta, ModelInfo, ModelProvider, ModelRequest, RequestedCall, Usage
from ringwall.principal import Principal
from ringwall.schema import JSON, canonical, digest


class KeptReply(NamedTuple):
    """A whole reply, as it is kept, and for whom alone: an own grant, or nothing if for everybody."""

    text: str
    calls: tuple[RequestedCall, ...]
    finish: str
    asker: str = ""


class ReplyStore(ABC):
    """Keeps replies by keys that tell nothing. What it keeps is as secret as the prompts were: guard it so."""

    @abstractmethod
    async def get(self, key: str) -> KeptReply | None:
        """The reply kept under a key, or None."""

    @abstractmethod
    async def put(self, key: str, reply: KeptReply) -> None:
        """Keep a reply; others may be forgotten for it."""

    @abstractmethod
    async def forget(self, asker: str) -> None:
        """Forget the replies that are kept for this asker alone."""

    async def close(self) -> None:
        """Release what the store holds."""


class InMemoryReplies(ReplyStore):
    """The `most` replies that were of use last, each for so many `seconds`."""

    def __init__(self, most: int = 1000, *, seconds: float = 3600.0, now: Callable[[], float] = time.monotonic) -> None:
        self._most, self._seconds, self._now = most, seconds, now
        self._kept: OrderedDict[str, tuple[float, KeptReply]] = OrderedDict()

    async def get(self, key: str) -> KeptReply | None:
        until, reply = self._kept.get(key, (0.0, None))
        if reply is None or self._now() >= until:
            self._kept.pop(key, None)
            return None
        self._kept.move_to_end(key)
        return reply

    async def put(self, key: str, reply: KeptReply) -> None:
        self._kept[key] = self._now() + self._seconds, reply
        self._kept.move_to_end(key)
        while len(self._kept) > self._most:
            self._kept.popitem(last=False)

    async def forget(self, asker: str) -> None:
        for key in [key for key, (_, reply) in self._kept.items() if reply.asker == asker]:
            del self._kept[key]


_PUBLIC: Final = ""


class CachedModel(ModelProvider):
    """`model`, which is not asked again what it was asked already.

    A reply is given again only for equal messages, tools, schema, sampling, adapter and control vector, under an
    equal label, to the same asker (to anybody if the label is public), and the same `version` of whatever else shapes
    replies: change it with the prompt or the model. So how soon an answer comes tells nobody what others asked.

    Greedy requests and those with a seed are kept, others only with `sampled`; log-probabilities never. Only whole
    replies are. One from the cache costs no tokens.
    """

    def __init__(
        self, model: ModelProvider, replies: ReplyStore | None = None, *, sampled: bool = False, version: str = ""
    ) -> None:
        self._model, self._sampled, self._version = model, sampled, version
        self._replies = replies or InMemoryReplies()

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    @property
    def principal(self) -> Principal:
        return self._model.principal

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        if not self._is_kept(request):
            async for delta in self._model.stream(request):
                yield delta
            return
        key = self._key(request)
        kept = await self._replies.get(key)
        if kept is not None:
            yield Delta(kept.text, kept.calls, Usage(), kept.finish)
            return
        texts: list[str] = []
        calls: tuple[RequestedCall, ...] = ()
        finish = ""
        stream = self._model.stream(request)
        try:
            async for delta in stream:
                texts.append(delta.text)
                calls, finish = calls + delta.calls, delta.finish or finish
                yield delta
        finally:
            await stream.aclose()
        if finish:
            await self._replies.put(key, KeptReply("".join(texts), calls, finish, _kept_for(request)))

    async def check(self) -> bool:
        return await self._model.check()

    async def forget(self, asker: str) -> None:
        await self._replies.forget(asker)
        await self._model.forget(asker)

    async def close(self) -> None:
        await self._replies.close()
        await self._model.close()

    def _is_kept(self, request: ModelRequest) -> bool:
        sampling = request.sampling
        is_certain = sampling.temperature <= 0 or sampling.seed is not None
        return sampling.logprobs is None and (is_certain or self._sampled)

    def _key(self, request: ModelRequest) -> str:
        sampling = request.sampling
        asked: list[JSON] = [
            self._version,
            self._model.info.name,
            _kept_for(request),
            cast(JSON, request.label.to_json()),
            [_plain(message) for message in request.messages],
            [[tool.name, tool.description, cast(JSON, tool.parameters)] for tool in request.tools],
            [request.tool_choice, cast(JSON, request.schema), request.grammar, request.adapter, request.control],
            [sampling.temperature, sampling.top_p, sampling.min_p, sampling.max_tokens, sampling.seed],
            [sampling.frequency_penalty, list(sampling.stop), [list(pair) for pair in sampling.logit_bias]],
        ]
        return digest(canonical(asked))


def _kept_for(request: ModelRequest) -> str:
    return request.asker if request.label.secrecy else _PUBLIC


def _plain(message: BaseMessage) -> JSON:
    """All that a model may be shown of a message."""
    return [message.type, cast(JSON, message.content), cast(JSON, getattr(message, "tool_calls", [])), message.name]
