"""A model that says what it was told to: for tests, tutorials, and measuring everything around a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from ringwall.errors import ContextOverflow, InvalidInput
from ringwall.model.base import (
    Ability,
    Delta,
    Location,
    ModelInfo,
    ModelProvider,
    ModelRequest,
    Reply,
    RequestedCall,
    Usage,
)
from ringwall.model.reply import words
from ringwall.schema import JSON, canonical

Line = str | RequestedCall | Reply
"""One thing a scripted model says: words, a tool call, or a whole reply."""

Script = Sequence[Line] | Callable[[ModelRequest], Line]


def call(tool: str, /, **arguments: JSON) -> RequestedCall:
    """A line of a script that calls `tool`: `call("book_table", party=4)`. The model gives it its id."""
    return RequestedCall("", tool, canonical(arguments))


class ScriptedModel(ModelProvider):
    """Answers from a script, word by word; equal requests get equal replies.

    A sequence of lines is followed by position: a request that holds `n` assistant messages gets line `n`,
    and the last line repeats. So the model keeps no state: conversations may run at the same time, and one
    that goes on in another process gets the line it would have got here. A callable is asked each time.

    A token is a word between spaces. `delay` is in seconds, before the first word of each reply.
    Raises `InvalidInput` for an empty script.
    """

    def __init__(
        self,
        script: Script,
        *,
        window: int = 8192,
        delay: float = 0.0,
        name: str = "scripted",
        location: Location = Location.IN_PROCESS,
    ) -> None:
        self._info = ModelInfo(name, window, location, frozenset((Ability.TOOLS, Ability.JSON_SCHEMA)))
        self._delay = delay
        self._ask = script if callable(script) else None
        self._lines = () if callable(script) else tuple(_spoken(line) for line in script)
        if not self._ask and not self._lines:
            raise InvalidInput("an empty script", expected="at least one line", hint='ScriptedModel(["Hello."])')

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        turn, tokens = _measure(request)
        window = self._info.window
        if tokens > window:
            raise ContextOverflow(tokens, window)
        if self._ask:
            pieces, calls = _spoken(self._ask(request))
        else:
            pieces, calls = self._lines[min(turn, len(self._lines) - 1)]
        if self._delay:
            await asyncio.sleep(self._delay)
        for piece in pieces:
            yield piece
        if calls:
            yield Delta("", tuple(_numbered(calls, turn)))
        yield Delta("", (), Usage(tokens, len(pieces) + len(calls)), "tool_calls" if calls else "stop")


_Spoken = tuple[tuple[Delta, ...], tuple[RequestedCall, ...]]


def _spoken(line: Line) -> _Spoken:
    """Cut a line into deltas, once: a script is repeated often."""
    if isinstance(line, RequestedCall):
        return (), (line,)
    text, calls = (line, ()) if isinstance(line, str) else (line.text, line.calls)
    return tuple(map(Delta, words(text))), calls


def _numbered(calls: Sequence[RequestedCall], turn: int) -> list[RequestedCall]:
    """Give calls without an id one that is unique in their conversation."""
    return [RequestedCall(c.id or f"call-{turn}-{n}", c.name, c.arguments) for n, c in enumerate(calls)]


def _measure(request: ModelRequest) -> tuple[int, int]:
    """How often the model spoke before, and how many words the prompt holds."""
    turn = tokens = 0
    for message in request.messages:
        content = message.content
        tokens += (content if isinstance(content, str) else str(message.text)).count(" ") + 1
        turn += message.type == "ai"
    return turn, tokens
