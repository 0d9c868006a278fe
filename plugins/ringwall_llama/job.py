"""One request in the engine: what it reads, how it goes on, and to whom it tells what."""

from __future__ import annotations

import codecs
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from ringwall.errors import RingwallError
from ringwall.model.base import Delta, Sampling, Usage
from ringwall_llama.cells import Domain, Held, Keys, keyed
from ringwall_llama.loaded import Loaded, Logits
from ringwall_llama.lookup import Lookup
from ringwall_llama.replies import ReplyReader, Words
from ringwall_llama.sampling import Sampler


@dataclass(frozen=True, slots=True)
class Script:
    """How a reply goes: what it begins with, the grammar of the rest, and who reads it."""

    reader: ReplyReader
    opening: tuple[int, ...] = ()
    grammar: str = ""


Decide = Callable[[Logits], Script]
"""Chooses the script when it is known what the model would say first."""


class Listener(ABC):
    """Who hears what becomes of a request, from the engine's thread."""

    @abstractmethod
    def tell(self, item: Delta | RingwallError | None) -> None:
        """A piece of the reply, or what went wrong; None when there is nothing more."""


@dataclass(eq=False, slots=True)
class Job:
    """A request and how far it is. Only `stop` may be called from another thread."""

    keys: Keys
    domain: Domain
    secrecy: int
    sampling: Sampling
    decide: Decide
    listener: Listener
    asker: str = ""
    until: float | None = None
    is_drafting: bool = True

    held: Held | None = None
    leader: Job | None = None
    """Whose prompt begins the same, and who is reading it: what both share is read once."""
    shared: int = 0
    script: Script | None = None
    sampler: Sampler | None = None
    lookup: Lookup | None = None
    made: int = 0
    """Tokens of the reply so far."""
    prompt: int = 0
    reused: int = 0
    is_stopped: bool = False
    _decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    def __post_init__(self) -> None:
        self.prompt = len(self.keys)

    @property
    def unread(self) -> Keys:
        """The tokens that the model has not read yet."""
        return self.keys[len(self.held) if self.held is not None else 0 :]

    @property
    def is_talking(self) -> bool:
        """Whether all that is unread is the last token of the reply so far."""
        return self.made > 0

    @property
    def reads_last_alone(self) -> bool:
        """Whether the last token of the prompt is to be computed by itself, and nothing is to be guessed.

        What is computed along with a token decides its last digits. A seed is to repeat a reply also when more of the
        prompt was there already.
        """
        return self.sampling.seed is not None and self.sampling.temperature > 0

    @property
    def may_take(self) -> int:
        """The cells that it may still need."""
        begun = len(self.held) if self.held is not None else self.shared
        return self.prompt + self.sampling.max_tokens + 1 - begun

    def is_over(self) -> bool:
        """Whether nobody waits for it any more, or it took too long."""
        return self.is_stopped or (self.until is not None and time.monotonic() > self.until)

    def begin(self, model: Loaded, logits: Logits) -> bool:
        """Decide how the reply goes; whether the model is to read how it opens before it says anything."""
        self.script = self.decide(logits)
        self.sampler = Sampler(model, self.sampling, self.script.grammar)
        opening = self.script.opening
        self.add(opening)
        self.prompt += len(opening)
        return bool(opening)

    def add(self, tokens: tuple[int, ...]) -> None:
        """Tokens that the model is to read next; those who may read the whole prompt may read them."""
        self.keys = np.concatenate([self.keys, keyed(tokens, self.secrecy)])
        if self.lookup is not None:
            self.lookup.extend(tokens)

    def say(self, token: int, model: Loaded, context: Any, row: int) -> bool:
        """Take the next token of the reply and tell it; whether the reply is at its end."""
        assert self.script is not None
        assert self.sampler is not None
        reader = self.script.reader
        told = self.sampler.told(token, context, row)
        if model.ends(token):
            return True
        self.made += 1
        self.add((token,))
        text = reader.add(self._decoder.decode(model.text(token)))
        if text or told:
            self.listener.tell(Delta(text, logprobs=(told,) if told else ()))
        return reader.ended or self.made >= self.sampling.max_tokens

    def end(self) -> None:
        """Tell the last piece of the reply."""
        assert self.script is not None
        try:
            self.listener.tell(self.script.reader.end(Usage(self.prompt, self.made)))
        except RingwallError as error:
            self.listener.tell(error)

    def close(self) -> None:
        """Nothing more comes."""
        if self.sampler is not None:
            self.sampler.__exit__()
            self.sampler = None
        self.listener.tell(None)


GUESSABLE: Final = Words
"""The replies that repeat what they were given; JSON and calls hardly do."""
