"""What a reply turns out to be, read token by token: words, JSON, or a tool call."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any
from uuid import uuid4

from ringwall.errors import BadReply
from ringwall.model.base import Delta, RequestedCall, Sampling, Usage


class ReplyReader(ABC):
    """Takes a reply token by token, and says what of it may be passed on."""

    ended: bool = False
    """Whether the reply is complete although the model would go on."""

    @abstractmethod
    def add(self, text: str) -> str:
        """Take the next piece; return the text that may be passed on now."""

    @abstractmethod
    def end(self, usage: Usage) -> Delta:
        """The last delta. Raises `BadReply` when what came is not whole."""


class Words(ReplyReader):
    """Plain text, up to the first stop sequence; what may be the beginning of one is held back."""

    def __init__(self, sampling: Sampling) -> None:
        self._stops = tuple(filter(None, sampling.stop))
        self._limit, self._held = sampling.max_tokens, ""

    def add(self, text: str) -> str:
        text = self._held + text
        ends = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if ends:
            self.ended, self._held = True, ""
            return text[: min(ends)]
        kept = len(text) - self._possible_stop(text)
        self._held = text[kept:]
        return text[:kept]

    def _possible_stop(self, text: str) -> int:
        """How many characters at the end of `text` a stop sequence could begin with."""
        longest = max(map(len, self._stops), default=1) - 1
        lengths = range(min(longest, len(text)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)

    def end(self, usage: Usage) -> Delta:
        cut = usage.completion >= self._limit and not self.ended
        return Delta(self._held, (), usage, "length" if cut else "stop")


class JsonReply(ReplyReader):
    """JSON, passed on as it comes."""

    def __init__(self) -> None:
        self._text = ""

    def add(self, text: str) -> str:
        self._text += text
        return text

    def end(self, usage: Usage) -> Delta:
        _parsed(self._text)
        return Delta("", (), usage, "stop")


class Call(ReplyReader):
    """A tool call, passed on when it is whole. With an `opening`, only the arguments are the model's."""

    def __init__(self, opening: str) -> None:
        self._opening, self._text = opening, opening

    def add(self, text: str) -> str:
        self._text += text
        return ""

    def end(self, usage: Usage) -> Delta:
        call = _parsed(self._text + ("}" if self._opening else ""))
        arguments = json.dumps(call["arguments"], ensure_ascii=False)
        made = RequestedCall(f"call-{uuid4().hex[:12]}", call["name"], arguments)
        return Delta("", (made,), usage, "tool_calls")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise BadReply(
            "the JSON did not get to its end within `max_tokens`",
            hint="allow more tokens, or give the strings of the schema a `maxLength`",
        ) from None
