"""A model behind a server, in one of the APIs that such servers speak."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, Final

import httpx
from langchain_core.messages import BaseMessage
from langchain_core.messages.utils import count_tokens_approximately

from ringwall.errors import ContextOverflow, LacksAbility, LimitReached, ProviderUnavailable, RingwallError
from ringwall.model.base import Ability, Delta, Location, ModelInfo, ModelProvider, ModelRequest, Price
from ringwall.schema import JSON
from ringwall_hosted.chat import ChatCompletions
from ringwall_hosted.faults import Secret
from ringwall_hosted.messages import Messages
from ringwall_hosted.port import http_errors
from ringwall_hosted.responses import Responses
from ringwall_hosted.server import RETRIES, TIMEOUTS, ReadKey, Retries, Server, Timeouts
from ringwall_hosted.wire import Reading, Wire, events, wishes

_NOTHING: Final[Mapping[str, JSON]] = MappingProxyType({})

_NO_ADAPTERS: Final[Mapping[str, str]] = MappingProxyType({})

_FREE: Final = Price()

_EXPECTED: Final = "a whole stream of events of this API"

_LOOK: Final = 5.0
"""Seconds that a server has to say that it is there."""

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

    `wire` is the API that the server speaks: `ChatCompletions()` unless given. `base_url`, and the environment
    variable `api_key_env` that holds the key, are those of who made the API unless given.

    The caller relies on this, beyond what every provider promises:

    - the key is read at each call, from `api_key` if given, else from the environment variable `api_key_env`
      (None: the server asks for no key); it goes to the host of `base_url` alone, redirects are not followed,
      and no error, log or representation shows it;
    - no exception of the HTTP library leaves: `ProviderRefused` for what trying again will not mend,
      `ProviderUnavailable` after the last try, `BadReply` for a reply that breaks off or makes no sense;
    - what a request asks and the API has no field for is a `LacksAbility` before anything is sent, never left out;
    - connections are pooled, one pool for each event loop, closed by `close` or with the loop.

    `window` is the context window in tokens; a prompt that is too long for it by `count_tokens` (an estimate
    unless you give better) is not sent. `name`, by which policies and prices know the provider, is the
    model's unless given. `extra` goes into the body of each request, and a field that it sets to None is left
    out: `extra={"temperature": None}` suits reasoning models. `adapters` are the names under which the server knows
    the model with each adapter that a request may ask for. A request whose `deadline` passes is a `LimitReached`.
    `client` makes the HTTP client: for proxies, certificates or connection limits of your own.

    Raises `ConfigurationError` for a `base_url` that is no plain http(s) address.
    """

    usual_wire: ClassVar[Wire] = ChatCompletions()

    def __init__(
        self,
        model: str,
        *,
        window: int,
        wire: Wire | None = None,
        base_url: str | None = None,
        api_key_env: str | None = "",
        api_key: ReadKey | None = None,
        name: str = "",
        abilities: Collection[Ability] = (Ability.TOOLS, Ability.JSON_SCHEMA),
        price: Price = _FREE,
        timeouts: Timeouts = TIMEOUTS,
        retries: Retries = RETRIES,
        count_tokens: Callable[[Sequence[BaseMessage]], int] = count_tokens_approximately,
        adapters: Mapping[str, str] = _NO_ADAPTERS,
        extra: Mapping[str, JSON] = _NOTHING,
        client: Callable[[], httpx.AsyncClient] = httpx.AsyncClient,
    ) -> None:
        self._wire = wire = wire or self.usual_wire
        able = {*abilities, Ability.GRAMMAR} if "grammar" in wire.knows else abilities
        self._info = ModelInfo(name or model, window, Location.REMOTE, frozenset(able), price)
        self._models = {"": model, **adapters}
        self._server = Server(
            wire.base_url if base_url is None else base_url,
            name=self._info.name,
            api_key_env=wire.key_env if api_key_env == "" else api_key_env,
            api_key=api_key,
            timeouts=timeouts,
            retries=retries,
            client=client,
            headers=wire.headers,
            key_header=wire.key_header,
        )
        self._count_tokens, self._extra = count_tokens, extra

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        async with aclosing(_until(request.deadline, self._answer(request))) as deltas:
            async for delta in deltas:
                yield delta

    async def check(self) -> bool:
        """Look whether the server answers and takes the key, by the list of its models; False if it has none.

        Whether this model is on the list is not looked at: servers know it by other names, too.
        """
        return await self._server.look("/models", seconds=_LOOK)

    async def close(self) -> None:
        await self._server.close()

    # ---- before anything is sent

    async def _prepare(self, request: ModelRequest) -> _Call:
        self._check_possible(request)
        tokens, reserved = self._count_tokens(request.messages), request.sampling.max_tokens
        if tokens + reserved > self._info.window:
            raise ContextOverflow(tokens, self._info.window, reserved=reserved)
        body = self._wire.body(request, model=self._models[request.adapter], extra=self._extra)
        return _Call(request, body, await self._server.read_key())

    def _check_possible(self, request: ModelRequest) -> None:
        missing = set[str](wishes(request) - self._wire.knows)
        if request.adapter not in self._models:
            missing.add("adapter")
        if request.control:
            missing.add("control")
        if missing:
            raise LacksAbility(
                f"{self._info.name} has nothing that does what {', '.join(sorted(missing))} asks for",
                provider=self._info.name,
                hint="leave it out, or ask a provider that can",
            )

    # ---- trying

    async def _answer(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        first, rest = await self._begin(await self._prepare(request))
        async with aclosing(rest):
            yield first
            async for delta in rest:
                yield delta

    async def _begin(self, call: _Call) -> tuple[Delta, AsyncGenerator[Delta, None]]:
        """The first delta and the stream of the others, after as many attempts as that takes."""
        async for attempt in self._server.attempts():
            with attempt:
                deltas = self._attempt(call)
                return await anext(deltas), deltas
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, call: _Call) -> AsyncGenerator[Delta, None]:
        """One exchange as deltas: at least one, or an error that keeps nothing of the HTTP library's."""
        reading = self._wire.reading(call.request, self._info.name)
        failure: RingwallError | None = None
        try:
            async with aclosing(self._exchange(call, reading)) as deltas:
                async for delta in deltas:
                    yield delta
            yield reading.last()
        except RingwallError as error:
            failure = error
        except self._server.failures() as error:
            failure = self._server.meaning(error, expected=_EXPECTED)
        # Raised out here, where it does not carry the library's error along, and with that the request's key.
        if isinstance(failure, ProviderUnavailable) and reading.begun:
            failure = self._server.bad(f"the reply stopped in the middle ({failure.what})", expected=_EXPECTED)
        if failure:
            # Nor the frames that hold what the server said: it may have repeated the key.
            raise failure.with_traceback(None)

    # ---- one exchange

    async def _exchange(self, call: _Call, reading: Reading) -> AsyncGenerator[Delta, None]:
        now, timeouts = asyncio.get_running_loop().time, self._server.timeouts
        reserved, limit = call.request.sampling.max_tokens, now() + timeouts.first
        answer = self._server.answer(
            self._wire.path, call.body, call.secret, accept="text/event-stream", limit=limit, reserved=reserved
        )
        async with answer as response, aclosing(events(response.aiter_bytes())) as told:
            while not reading.is_over:
                async with asyncio.timeout_at(limit):
                    event = await anext(told, None)
                if event is None:
                    return
                delta = reading.take(event)
                if reading.refused:
                    status, headers = reading.refused, response.headers
                    raise self._server.refusal(status, headers, event, call.secret, reserved=reserved)
                if delta:
                    yield delta
                limit = now() + timeouts.gap
            await _read_to_the_end(told)


class HostedAnthropic(HostedModel):
    """A `HostedModel` that speaks Anthropic's Messages API: `wire` is `Messages()` unless given."""

    usual_wire: ClassVar[Wire] = Messages()


class HostedResponses(HostedModel):
    """A `HostedModel` that speaks OpenAI's Responses API: `wire` is `Responses()` unless given."""

    usual_wire: ClassVar[Wire] = Responses()


async def _read_to_the_end(told: AsyncGenerator[str, None]) -> None:
    """Only a connection that was read to the end can be used again."""
    with suppress(TimeoutError, ValueError, *http_errors("HTTPError")):
        async with asyncio.timeout(_FAREWELL):
            async for _ in told:
                pass


async def _until(deadline: float | None, deltas: AsyncGenerator[Delta, None]) -> AsyncGenerator[Delta, None]:
    """The `deltas` that come within so many seconds. Raises `LimitReached` when there should have been more."""
    limit = None if deadline is None else asyncio.get_running_loop().time() + deadline
    is_late = False
    async with aclosing(deltas):
        while not is_late:
            try:
                async with asyncio.timeout_at(limit):
                    delta = await anext(deltas, None)
            except TimeoutError:
                is_late = True
            else:
                if delta is None:
                    return
                yield delta
    # Raised out here, where it does not carry along what was going on.
    raise LimitReached("the deadline passed before the reply was whole", hint="allow more time")
