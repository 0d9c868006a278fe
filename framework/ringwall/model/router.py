"""Several providers behind one door: the first that can and may answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from ringwall.errors import (
    BadReply,
    FlowDenied,
    InvalidInput,
    ProviderRefused,
    ProviderUnavailable,
    RingwallError,
)
from ringwall.model.base import Ability, Delta, Location, ModelInfo, ModelProvider, ModelRequest
from ringwall.principal import Principal


class Router(ModelProvider):
    """Tries `providers` in order, and goes on to the next until one has begun to answer.

    Passed over is a provider that lacks an ability the request needs, that may not receive the request
    (`FlowDenied`), or that fails before its first delta (`ProviderUnavailable`, `BadReply`). After the first
    delta nothing is hidden: the error goes to the caller. If none is left, the last error is raised, with
    what each provider said as notes.

    The router promises what the least of its providers does: the smallest window, `REMOTE` if any is.
    Its abilities are all that any of them has. It closes its providers.
    """

    def __init__(self, *providers: ModelProvider, name: str = "router") -> None:
        if not providers:
            raise InvalidInput("a router without providers", expected="at least one provider")
        self._providers = providers
        infos = [provider.info for provider in providers]
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

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        failed: list[tuple[str, RingwallError]] = []
        for provider in self._providers:
            begun, name = False, provider.info.name
            try:
                _check_able(provider, request)
                async with aclosing(provider.stream(request)) as deltas:
                    async for delta in deltas:
                        begun = True
                        yield delta
                return
            except (ProviderUnavailable, BadReply, FlowDenied, _Unable) as error:
                if begun:
                    raise
                failed.append((name, error))
        last = failed[-1][1]
        last.add_note("no provider is left: " + "; ".join(f"{name}: {error}" for name, error in failed))
        raise last

    async def close(self) -> None:
        for provider in self._providers:
            await provider.close()


class _Unable(ProviderRefused):
    """The provider lacks an ability that the request needs."""


def _check_able(provider: ModelProvider, request: ModelRequest) -> None:
    needed = {Ability.TOOLS} if request.tools else set()
    if request.schema is not None:
        needed.add(Ability.JSON_SCHEMA)
    if missing := needed - provider.info.abilities:
        raise _Unable(
            f"{provider.info.name} lacks {', '.join(sorted(missing))}",
            provider=provider.info.name,
            hint="add a provider that has it",
        )
