"""A model behind an OpenAI-compatible chat-completions server."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import httpx
import stamina
from langchain_core.messages import BaseMessage
from langchain_core.messages.utils import count_tokens_approximately

from ringwall.errors import (
    BadReply,
    ConfigurationError,
    ContextOverflow,
    ProviderRefused,
    ProviderUnavailable,
    RingwallError,
)
from ringwall.model.base import Ability, Delta, Location, ModelInfo, ModelProvider, ModelRequest, Price
from ringwall.schema import JSON
from ringwall_hosted import faults, wire
from ringwall_hosted.faults import Secret
from ringwall_hosted.port import Clients, http_errors

ReadKey = Callable[[], str | Awaitable[str]]
"""Gives the API key of the moment: from a vault, a file that is rotated, a token service."""

_NOTHING: Final[Mapping[str, JSON]] = MappingProxyType({})

_FREE: Final = Price()

_PLAIN_URL: Final = re.compile(r"https?://([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?(/[^\s?#@]*)?", re.ASCII)
"""An address without a user, a query or a fragment: what is secret has no place in it."""

_ERROR_BODY: Final = 64 * 1024
"""Bytes of an error's body that are looked at."""

_FAREWELL: Final = 0.2
"""Seconds that a server has to end its answer after the last event."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that each phase of a request may take.

    To `connect`, to `send` a piece of the request, to wait for a free connection of the `pool`, from the
    request to the `first` event of the reply, and the `gap` between two events. A server's keep-alive
    comments are no events.
    """

    connect: float = 5.0
    send: float = 30.0
    pool: float = 30.0
    first: float = 120.0
    gap: float = 60.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried, and how many seconds apart: only until its first delta.

    The wait doubles from `first_wait` to at most `longest_wait`, with jitter. What `Retry-After` asks for
    is honoured instead, unless it is longer than `longest_wait`: then the error comes at once.
    """

    attempts: int = 3
    first_wait: float = 0.5
    longest_wait: float = 20.0


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
        timeouts: Timeouts = Timeouts(),
        retries: Retries = Retries(),
        count_tokens: Callable[[Sequence[BaseMessage]], int] = count_tokens_approximately,
        max_tokens_field: str = "max_tokens",
        extra: Mapping[str, JSON] = _NOTHING,
        client: Callable[[], httpx.AsyncClient] = httpx.AsyncClient,
    ) -> None:
        self._info = ModelInfo(name or model, window, Location.REMOTE, frozenset(abilities), price)
        self._model, self._url = model, _endpoint(base_url)
        self._api_key_env, self._api_key = api_key_env, api_key
        self._timeouts, self._retries = timeouts, retries
        self._count_tokens = count_tokens
        self._max_tokens_field, self._extra = max_tokens_field, extra
        self._clients = Clients(client)

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
        await self._clients.close()

    # ---- before anything is sent

    async def _prepare(self, request: ModelRequest) -> _Call:
        tokens, reserved = self._count_tokens(request.messages), request.sampling.max_tokens
        if tokens + reserved > self._info.window:
            raise ContextOverflow(tokens, self._info.window, reserved=reserved)
        body = wire.body(request, model=self._model, max_tokens_field=self._max_tokens_field, extra=self._extra)
        return _Call(request, body, await self._read_key())

    async def _read_key(self) -> Secret:
        if self._api_key is None and self._api_key_env is None:
            return Secret("")
        secret = Secret(await self._key_text())
        # Checked here: the HTTP library would repeat a key that it cannot send.
        if secret.is_sendable:
            return secret
        source = "`api_key`" if self._api_key else f"the environment variable {self._api_key_env}"
        raise ProviderRefused(
            f"{source} holds no API key",
            provider=self._info.name,
            expected="visible ASCII characters",
            hint="set it, or say `api_key_env=None` for a server that asks for none",
        )

    async def _key_text(self) -> str:
        if self._api_key is None:
            return os.environ.get(self._api_key_env or "", "")
        text = self._api_key()
        return await text if inspect.isawaitable(text) else text

    # ---- trying

    async def _begin(self, call: _Call) -> tuple[Delta, AsyncGenerator[Delta, None]]:
        """The first delta and the stream of the others, after as many attempts as that takes."""
        async for attempt in stamina.retry_context(
            on=self._wait,
            attempts=self._retries.attempts,
            timeout=None,
            wait_initial=self._retries.first_wait,
            wait_max=self._retries.longest_wait,
            wait_jitter=self._retries.first_wait,
        ):
            with attempt:
                deltas = self._attempt(call)
                return await anext(deltas), deltas
        raise AssertionError("the last attempt returns or raises")

    def _wait(self, error: Exception) -> bool | float:
        """Whether to try again after `error`: no, after the usual wait, or after so many seconds."""
        if not isinstance(error, ProviderUnavailable):
            return False
        if error.retry_after is None:
            return True
        if error.retry_after > self._retries.longest_wait:
            return False
        # Jitter here too: everybody who was sent away was told the same second.
        return error.retry_after + random.uniform(0, self._retries.first_wait)

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
        except ValueError:
            failure = self._bad("something other than chat completions came")
        except TimeoutError:
            failure = self._unavailable("no answer in time")
        except http_errors("HTTPError", "StreamError") as error:
            failure = self._unavailable(f"no connection, or one that broke ({type(error).__name__})")
        except ProviderUnavailable as error:
            failure = error
        # Raised out here, where it does not carry the library's error along, and with that the request's key.
        if isinstance(failure, ProviderUnavailable) and reply.begun:
            failure = self._bad(f"the reply stopped in the middle ({failure.what})")
        if failure:
            raise failure

    def _unavailable(self, what: str) -> ProviderUnavailable:
        return ProviderUnavailable(f"{self._info.name}: {what}", provider=self._info.name)

    def _bad(self, what: str) -> BadReply:
        return BadReply(
            f"{self._info.name}: {what}", provider=self._info.name, expected="a whole stream of chat completions"
        )

    # ---- one exchange

    async def _chunks(self, call: _Call) -> AsyncGenerator[wire.Chunk, None]:
        now = asyncio.get_running_loop().time
        limit = now() + self._timeouts.first
        async with self._answer(call, limit) as response, aclosing(_events(response)) as events:
            while True:
                async with asyncio.timeout_at(limit):
                    event = await anext(events, None)
                if event is None:
                    return
                chunk = wire.Chunk.model_validate_json(event)
                if chunk.error:
                    raise self._refusal(call, _status_in(chunk.error), response.headers, event)
                yield chunk
                limit = now() + self._timeouts.gap

    @asynccontextmanager
    async def _answer(self, call: _Call, limit: float) -> AsyncIterator[httpx.Response]:
        """The server's answer, once it is known to be a stream of events."""
        client, timeouts = await self._clients.here(), self._timeouts
        request = client.build_request(
            "POST",
            self._url,
            content=call.body,
            headers={"Content-Type": "application/json", "Accept": "text/event-stream", **call.secret.headers},
            timeout=(timeouts.connect, None, timeouts.send, timeouts.pool),
        )
        async with asyncio.timeout_at(limit):
            response = await client.send(request, stream=True, follow_redirects=False)
        try:
            if response.status_code != 200:
                body = call.secret.removed_from(await self._error_body(response))
                raise self._refusal(call, response.status_code, response.headers, body)
            if not response.headers.get("content-type", "").startswith("text/event-stream"):
                raise self._bad("what came is no stream of events")
            yield response
        finally:
            await response.aclose()

    async def _error_body(self, response: httpx.Response) -> str:
        """The beginning of the body, as much of it as comes: the status says more than it does."""
        body = b""
        with suppress(TimeoutError, *http_errors("HTTPError")):
            async with asyncio.timeout(self._timeouts.gap):
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > _ERROR_BODY:
                        break
        return body[:_ERROR_BODY].decode(errors="replace")

    def _refusal(self, call: _Call, status: int, headers: Mapping[str, str], body: str) -> RingwallError:
        reserved = call.request.sampling.max_tokens
        return faults.refusal(status, headers, body, provider=self._info.name, secret=call.secret, reserved=reserved)


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


def _endpoint(base_url: str) -> str:
    if not _PLAIN_URL.fullmatch(base_url):
        # The address is not repeated: what makes it wrong may be a password.
        raise ConfigurationError(
            "`base_url` is no plain http(s) address",
            expected="`https://host/v1`, without user, query or fragment",
        )
    return base_url.rstrip("/") + "/chat/completions"
