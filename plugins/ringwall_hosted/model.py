"""A model behind an OpenAI-compatible chat-completions server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import httpx
from langchain_core.messages import BaseMessage
from langchain_core.messages.utils import count_tokens_approximately

from ringwall.errors import ContextOverflow, ProviderUnavailable, RingwallError
from ringwall.model.base import Ability, Delta, Location, ModelInfo, ModelProvider, ModelRequest, Price
from ringwall.schema import JSON
from ringwall_hosted import wire
from ringwall_hosted.faults import Secret
from ringwall_hosted.port import http_errors
from ringwall_hosted.server import RETRIES, TIMEOUTS, ReadKey, Retries, Server, Timeouts

_NOTHING: Final[Mapping[str, JSON]] = MappingProxyType({})

_FREE: Final = Price()

_EXPECTED: Final = "a whole stream of chat completions"

_FAREWELL: Final = 0.2
"""Seconds that a server has to end its answer after the last event."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One request on its way: what is asked, as bytes, with the key of this moment."""

    request: ModelRequest
    body: bytes
    secret: Secret


class HostedModel(ModelProvider):
    """A chat model behind `base_url`, asked over HTTP, answering in server-sent events.

    The caller relies on this, beyond what every provider promises:

    - the key is read at each call, from `api_key` if given, else from the environment variable `api_key_env`
      (None: the server asks for no key); it goes to the host of `base_url` alone, redirects are not followed,
      and no error, log or representation shows it;
    - no exception of the HTTP library leaves: `ProviderRefused` for what trying again will not mend,
      `ProviderUnavailable` after the last try, `BadReply` for a reply that breaks off or makes no sense;
    - connections are pooled, one pool for each event loop, closed by `close` or with the loop.

    `window` is the context window in tokens; a prompt that is too long for it by `count_tokens` (an estimate
    unless you give better) is not sent. `name`, by which policies and prices know the provider, is the
    model's unless given. `extra` goes into the body of each request, and a field that it sets to None is left
    out: `max_tokens_field="max_completion_tokens", extra={"temperature": None}` suits reasoning models.
    `client` makes the HTTP client: for proxies, certificates or connection limits of your own.

    Raises `ConfigurationError` for a `base_url` that is no plain http(s) address.
    """

    def __init__(
        self,
        model: str,
        *,
        window: int,
        base_url: str = "https://api.openai.com/v1",
        api_key_env: str | None = "OPENAI_API_KEY",
        api_key: ReadKey | None = None,
        name: str = "",
        abilities: Collection[Ability] = (Ability.TOOLS, Ability.JSON_SCHEMA),
        price: Price = _FREE,
        timeouts: Timeouts = TIMEOUTS,
        retries: Retries = RETRIES,
        count_tokens: Callable[[Sequence[BaseMessage]], int] = count_tokens_approximately,
        max_tokens_field: str = "max_tokens",
        extra: Mapping[str, JSON] = _NOTHING,
        client: Callable[[], httpx.AsyncClient] = httpx.AsyncClient,
    ) -> None:
        self._info = ModelInfo(name or model, window, Location.REMOTE, frozenset(abilities), price)
        self._model = model
        self._server = Server(
            base_url,
            name=self._info.name,
            api_key_env=api_key_env,
            api_key=api_key,
            timeouts=timeouts,
            retries=retries,
            client=client,
        )
        self._count_tokens = count_tokens
        self._max_tokens_field, self._extra = max_tokens_field, extra

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        first, rest = await self._begin(await self._prepare(request))
        async with aclosing(rest):
            yield first
            async for delta in rest:
                yield delta

    async def close(self) -> None:
        await self._server.close()

    # ---- before anything is sent

    async def _prepare(self, request: ModelRequest) -> _Call:
        tokens, reserved = self._count_tokens(request.messages), request.sampling.max_tokens
        if tokens + reserved > self._info.window:
            raise ContextOverflow(tokens, self._info.window, reserved=reserved)
        body = wire.body(request, model=self._model, max_tokens_field=self._max_tokens_field, extra=self._extra)
        return _Call(request, body, await self._server.read_key())

    # ---- trying

    async def _begin(self, call: _Call) -> tuple[Delta, AsyncGenerator[Delta, None]]:
        """The first delta and the stream of the others, after as many attempts as that takes."""
        async for attempt in self._server.attempts():
            with attempt:
                deltas = self._attempt(call)
                return await anext(deltas), deltas
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, call: _Call) -> AsyncGenerator[Delta, None]:
        """One exchange as deltas: at least one, or an error that keeps nothing of the HTTP library's."""
        reply = wire.Assembly(call.request, self._info.name)
        failure: RingwallError | None = None
        try:
            async with aclosing(self._chunks(call)) as chunks:
                async for chunk in chunks:
                    if delta := reply.take(chunk):
                        yield delta
            yield reply.last()
        except self._server.failures() as error:
            failure = self._server.meaning(error, expected=_EXPECTED)
        # Raised out here, where it does not carry the library's error along, and with that the request's key.
        if isinstance(failure, ProviderUnavailable) and reply.begun:
            failure = self._server.bad(f"the reply stopped in the middle ({failure.what})", expected=_EXPECTED)
        if failure:
            raise failure

    # ---- one exchange

    async def _chunks(self, call: _Call) -> AsyncGenerator[wire.Chunk, None]:
        now, timeouts = asyncio.get_running_loop().time, self._server.timeouts
        reserved, limit = call.request.sampling.max_tokens, now() + timeouts.first
        answer = self._server.answer(
            "/chat/completions", call.body, call.secret, accept="text/event-stream", limit=limit, reserved=reserved
        )
        async with answer as response, aclosing(_events(response)) as events:
            while True:
                async with asyncio.timeout_at(limit):
                    event = await anext(events, None)
                if event is None:
                    return
                chunk = wire.Chunk.model_validate_json(event)
                if chunk.error:
                    status = _status_in(chunk.error)
                    raise self._server.refusal(status, response.headers, event, call.secret, reserved=reserved)
                yield chunk
                limit = now() + timeouts.gap


async def _events(response: httpx.Response) -> AsyncGenerator[str, None]:
    """The events before the last, which says nothing but that it is the last."""
    async with aclosing(wire.events(response.aiter_bytes())) as events:
        async for event in events:
            if event != wire.DONE:
                yield event
                continue
            # Only a connection that was read to the end can be used again.
            with suppress(TimeoutError, *http_errors("HTTPError")):
                async with asyncio.timeout(_FAREWELL):
                    await anext(events, None)
            return


def _status_in(error: object) -> int:
    """The status that an error in the middle of a stream would have had as an answer."""
    code = error.get("code") if isinstance(error, Mapping) else None
    return code if isinstance(code, int) and 400 <= code < 600 else 500
