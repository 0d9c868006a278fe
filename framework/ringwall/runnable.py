"""An app as a LangChain `Runnable`: what is composed with `|` there can ask a governed app."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.runnables import Runnable, RunnableConfig

from ringwall.deployment.journal import RunStatus
from ringwall.errors import InvalidInput
from ringwall.principal import Principal

if TYPE_CHECKING:
    from ringwall.app import App

T = TypeVar("T")


class AppRunnable(Runnable[str, str]):
    """Text in, text out, on behalf of one principal.

    A run that must wait for an approval raises `InvalidInput` with its id: a chain has no way to wait. Ask the app
    itself where approvals are expected.
    """

    def __init__(self, app: App, principal: Principal) -> None:
        self._app, self._principal = app, principal

    def invoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        return self._app.run_sync(self.ainvoke(input, config))

    async def ainvoke(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> str:
        result = await self._app.ask(input, as_=self._principal)
        if result.status is RunStatus.WAITING:
            raise InvalidInput(f"run {result.run!r} waits for an approval", hint="approve it, then resume it")
        return result.text

    async def astream(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[str]:
        async for piece in self._app.stream(input, as_=self._principal):
            if isinstance(piece, str):
                yield piece

    def stream(self, input: str, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[str]:
        pieces = self._app.stream(input, as_=self._principal)
        try:
            while True:
                piece = self._app.run_sync(_next(pieces))
                if piece is None:
                    return
                if isinstance(piece, str):
                    yield piece
        finally:
            self._app.run_sync(pieces.aclose())


async def _next(pieces: AsyncGenerator[T, None]) -> T | None:
    return await anext(pieces, None)
