"""Several providers behind one door: the best of those that can and may answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Self

from ringwall.errors import (
    BadReply,
    BudgetReached,
    ContextOverflow,
    FlowDenied,
    InvalidInput,
    LacksAbility,
    LimitReached,
    ProviderUnavailable,
    RateReached,
    RingwallError,
)
from ringwall.model.base import Ability, Delta, Location, ModelInfo, ModelProvider, ModelRequest
from ringwall.model.health import Breaker, Health
from ringwall.model.reply import collect
from ringwall.model.rollout import Shadowed, Share
from ringwall.principal import Principal

_CHARACTERS: Final = 4
"""Of a token, for an estimate of what a prompt costs."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that could answer: what that may cost in US dollars, and how soon it answered lately, in seconds."""

    provider: ModelProvider
    cost: float
    latency: float | None


Strategy = Callable[[Sequence[Candidate]], Sequence[Candidate]]
"""Puts the candidates in the order in which they are tried."""


def in_order(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """As the router was given them."""
    return candidates


def cheapest(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """By price; equals in the order given."""
    return sorted(candidates, key=lambda candidate: candidate.cost)


def fastest(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    """By how soon they answered lately; who was not asked yet comes first, so that it is known."""
    return sorted(candidates, key=lambda candidate: candidate.latency or 0.0)


class Skipped(NamedTuple):
    """A provider that was passed over, and the kind of error that says why; never what the error says.

    `RolledBack` is a canary that a trial took back.
    """

    provider: str
    why: str


Note = Callable[[Skipped], None]


class Router(ModelProvider):
    """Tries `providers` in the order of a `strategy`, and goes on to the next until one has begun to answer.

    Passed over is a provider that lacks an ability the request needs, whose answer may cost more than `most` US
    dollars, that failed too often lately (`breaker`), that may not receive the request (`FlowDenied`), whose window
    is too small (`ContextOverflow`), or that fails before its first delta (`ProviderUnavailable`, `BadReply`). After
    the first delta nothing is hidden: the error goes to the caller. If none is left, the last error is raised, with
    what each provider said as notes.

    With `hedge_after` seconds the next provider is asked too when the one before has not begun by then; who begins
    first answers, and the other is left. A `canary` comes before all others for its share of the askers, and for
    nobody else, as long as it `holds`; a `shadow` is asked beside whoever answers, and only `on_shadow` hears of it.

    In an app each provider stands behind a gate of its own: no strategy, fail-over, hedge or shadow sends a request
    to one that may not receive it.

    The router promises what the least of its providers does: the smallest window, `REMOTE` if any is.
    Its abilities are all that any of them has. It closes its providers.
    """

    def __init__(
        self,
        *providers: ModelProvider,
        name: str = "router",
        strategy: Strategy = in_order,
        most: float | None = None,
        breaker: Breaker = Breaker(),  # noqa: B008 (frozen)
        hedge_after: float | None = None,
        canary: Share | None = None,
        shadow: Share | None = None,
        on_shadow: Callable[[Shadowed], None] = lambda _: None,
    ) -> None:
        if not providers:
            raise InvalidInput("a router without providers", expected="at least one provider")
        self._providers, self._strategy, self._most = providers, strategy, most
        self._hedge_after, self._canary, self._shadow, self._on_shadow = hedge_after, canary, shadow, on_shadow
        self._health: Mapping[str, Health] = {p.info.name: Health(breaker) for p in self._all}
        self._shadows: set[asyncio.Task[None]] = set()
        self._note: Note = lambda _: None
        self._asker: str | None = None
        infos = [provider.info for provider in self._all]
        remote = any(info.location is Location.REMOTE for info in infos)
        self._info = ModelInfo(
            name,
            min(info.window for info in infos),
            Location.REMOTE if remote else Location.IN_PROCESS,
            frozenset().union(*(info.abilities for info in infos)),
        )

    @property
    def info(self) -> ModelInfo:
        return self._info

    @property
    def principal(self) -> Principal:
        return Principal(f"router:{self._info.name}")

    def within(self, gate: Callable[[ModelProvider], ModelProvider], *, note: Note, asker: str) -> Self:
        """This router for one run: with a gate before each provider, and what is skipped noted; health is shared."""
        router = object.__new__(type(self))
        vars(router).update(vars(self))
        router._providers = tuple([gate(provider) for provider in self._providers])
        router._canary, router._shadow = _gated(self._canary, gate), _gated(self._shadow, gate)
        router._note, router._asker = note, asker
        return router

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        if self._asker is not None:
            request = replace(request, asker=self._asker)
        passed = _Passed(self._note)
        if self._shadow is not None and self._shadow.takes(request.asker) and self._shadow.holds():
            self._ask_unseen(self._shadow.provider, request)
        race = _Race(request, self._ordered(request, passed), self._health, passed, self._hedge_after)
        async with aclosing(race):
            first, rest = await race.begun()
            async with aclosing(rest):
                if first is not None:
                    yield first
                async for delta in rest:
                    yield delta

    async def forget(self, asker: str) -> None:
        for provider in self._all:
            await provider.forget(asker)

    async def check(self) -> bool:
        """Look at the providers that are not left alone; one that is well is enough. Raises what the last one does."""
        error: RingwallError = ProviderUnavailable("all failed too often lately", provider=self.info.name)
        for provider in self._providers:
            if self._health[provider.info.name].well:
                try:
                    return await provider.check()
                except RingwallError as said:
                    error = said
        raise error

    async def close(self) -> None:
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)
        for provider in self._all:
            await provider.close()

    @property
    def _all(self) -> tuple[ModelProvider, ...]:
        shares = (share.provider for share in (self._canary, self._shadow) if share is not None)
        return (*self._providers, *shares)

    def _ordered(self, request: ModelRequest, passed: _Passed) -> list[ModelProvider]:
        """Those that can answer, in the order in which they are tried."""
        able = [
            Candidate(provider, _cost(provider.info, request), self._health[provider.info.name].latency)
            for provider in self._providers
            if self._can(provider, request, passed)
        ]
        ordered = [candidate.provider for candidate in self._strategy(able)]
        canary = self._canary
        if canary is not None and canary.takes(request.asker):
            if not canary.holds():
                self._note(Skipped(canary.provider.info.name, "RolledBack"))
            elif self._can(canary.provider, request, passed):
                ordered.insert(0, canary.provider)
        return ordered

    def _can(self, provider: ModelProvider, request: ModelRequest, passed: _Passed) -> bool:
        try:
            _check_able(provider, request)
            if self._most is not None and _cost(provider.info, request) > self._most:
                raise LimitReached(f"its answer may cost more than {self._most} US dollars")
            if not self._health[provider.info.name].may_be_asked():
                raise ProviderUnavailable("it failed too often lately", provider=provider.info.name)
        except (LacksAbility, LimitReached, ProviderUnavailable) as error:
            passed.over(provider, error)
            return False
        return True

    def _ask_unseen(self, provider: ModelProvider, request: ModelRequest) -> None:
        async def ask() -> None:
            name = provider.info.name
            try:
                self._on_shadow(Shadowed(name, await collect(provider.stream(request), provider=name)))
            except RingwallError as error:
                self._on_shadow(Shadowed(name, None, type(error).__name__))

        task = asyncio.create_task(ask())
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)


_PASSED_OVER: Final = (
    ProviderUnavailable,
    BadReply,
    FlowDenied,
    ContextOverflow,
    LacksAbility,
    BudgetReached,
    RateReached,
)


class _Passed:
    """The providers that were passed over for one request, and why."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._said: list[tuple[str, RingwallError]] = []

    def over(self, provider: ModelProvider, error: RingwallError) -> None:
        self._said.append((provider.info.name, error))
        self._note(Skipped(provider.info.name, type(error).__name__))

    def last(self) -> RingwallError:
        """The last error, with all of them as a note."""
        error = self._said[-1][1]
        error.add_note("no provider is left: " + "; ".join(f"{name}: {said}" for name, said in self._said))
        return error


Begun = tuple[Delta | None, AsyncGenerator[Delta, None]]
"""The first delta of a reply, None for one without any, and the others."""


class _Race:
    """The providers that are asked for one request: one after the other, or the next beside one that is slow."""

    def __init__(
        self,
        request: ModelRequest,
        providers: list[ModelProvider],
        health: Mapping[str, Health],
        passed: _Passed,
        hedge_after: float | None,
    ) -> None:
        self._request, self._left, self._health, self._passed = request, providers, health, passed
        self._hedge_after = hedge_after
        self._running: dict[asyncio.Task[Begun], ModelProvider] = {}

    async def begun(self) -> Begun:
        """The reply of whoever begins first. Raises the last error if nobody does."""
        found = await (self._one_by_one() if self._hedge_after is None else self._side_by_side(self._hedge_after))
        if found is None:
            raise self._passed.last()
        return found

    async def aclose(self) -> None:
        """Leave everybody who was asked and did not begin first."""
        for task in self._running:
            task.cancel()
        for ended in await asyncio.gather(*self._running, return_exceptions=True):
            if isinstance(ended, tuple):
                await ended[1].aclose()
        self._running = {}

    async def _one_by_one(self) -> Begun | None:
        for provider in self._left:
            try:
                return await self._ask(provider)
            except _PASSED_OVER as error:
                self._passed.over(provider, error)
        return None

    async def _side_by_side(self, seconds: float) -> Begun | None:
        while self._left or self._running:
            if self._left:
                provider = self._left.pop(0)
                self._running[asyncio.create_task(self._ask(provider))] = provider
            wait = seconds if self._left else None
            done, _ = await asyncio.wait(self._running, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                provider = self._running.pop(task)
                try:
                    return task.result()
                except _PASSED_OVER as error:
                    self._passed.over(provider, error)
        return None

    async def _ask(self, provider: ModelProvider) -> Begun:
        stream, health, began = provider.stream(self._request), self._health[provider.info.name], time.monotonic()
        try:
            first = await anext(stream, None)
        except BaseException as error:
            if isinstance(error, ProviderUnavailable | BadReply):
                health.failed()
            await stream.aclose()
            raise
        health.answered(time.monotonic() - began)
        return first, stream


def _check_able(provider: ModelProvider, request: ModelRequest) -> None:
    needed = {Ability.TOOLS} if request.tools else set()
    if request.schema is not None:
        needed.add(Ability.JSON_SCHEMA)
    if request.grammar:
        needed.add(Ability.GRAMMAR)
    if missing := needed - provider.info.abilities:
        raise LacksAbility(
            f"{provider.info.name} lacks {', '.join(sorted(missing))}",
            provider=provider.info.name,
            hint="add a provider that has it",
        )


def _cost(info: ModelInfo, request: ModelRequest) -> float:
    """What an answer may cost at most, the prompt's tokens being guessed from its characters."""
    tokens = sum(len(str(message.content)) for message in request.messages) / _CHARACTERS
    return (tokens * info.price.prompt + request.sampling.max_tokens * info.price.completion) / 1e6


def _gated(share: Share | None, gate: Callable[[ModelProvider], ModelProvider]) -> Share | None:
    return None if share is None else replace(share, provider=gate(share.provider))
