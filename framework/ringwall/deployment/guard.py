"""The deployment ring: what a guard is.

A plugin author reads this file alone. Subclass `Guard`, then run `ringwall.deployment.guard_contract` on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from ringwall.label import BOTTOM, Label
from ringwall.principal import Principal


class Crossing(StrEnum):
    """Where text passes, in the order in which a run comes by."""

    QUESTION = "question"
    """What the user asks, before anything else sees it."""
    PROMPT = "prompt"
    """Each message on its way to a model; the arguments of earlier calls in it are texts of their own."""
    REPLY = "reply"
    """What a model returns: its text, piece by piece, and each text in the arguments of its calls."""
    ARGUMENTS = "arguments"
    """Each text in a tool call's arguments, before anybody decides about the call."""
    RESULT = "result"
    """What a tool returned, before it is journaled."""
    ANSWER = "answer"
    """What the user is shown, piece by piece if it is streamed."""


def _no_words() -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Passing:
    """A text that is about to pass.

    `receiver` is the id of whoever gets it (`user:ana`, `model:far`, `tool:mail`), and `remote` says whether that is
    a model outside of this process; `principal` is on whose behalf. `label` is what the text carries, `role` that of
    the message in a prompt (`system`, `human`, `ai`, `tool`). `offset` is how many characters of the same text passed
    before (see `Guard.settled`). `kept` is this guard's own memory of this run: in this process, never journaled. What
    it keeps of one text must not come out in another whose label does not cover that of the first.
    `words` returns the user's own words and after them the passages that were found for the run, which its user may
    read word for word.
    """

    text: str
    crossing: Crossing
    principal: Principal
    receiver: str = ""
    remote: bool = False
    label: Label = BOTTOM
    role: str = ""
    offset: int = 0
    kept: MutableMapping[str, str] = field(default_factory=dict)
    words: Callable[[], Sequence[str]] = _no_words


@dataclass(frozen=True, slots=True)
class Ruling:
    """What a guard says: the text that passes on, and how often it found what, by kind.

    A kind is a word (`email`, `aws_key`), never the found text: it goes into the journal. With `refused` nothing
    passes. With `suspect` the run's label gains the source `guard:<name>`: what that may cause is for the policy to
    say, and where no rule speaks of it, it may cause nothing.
    """

    text: str
    found: Mapping[str, int] = field(default_factory=dict)
    refused: bool = False
    suspect: bool = False


class Guard(ABC):
    """Inspects or rewrites what passes.

    Class attributes say how it is used:

    - `name`: a word, unique among the guards of an app; it stands in the journal and in `guard:<name>`.
    - `crossings`: where it stands.
    - `timeout`: seconds until it is given up; `limit`: the longest text, in characters, that it is given.

    The caller relies on this:

    - `inspect` returns the same for the same text, and leaves its own output as it is;
    - it does not block the event loop for long: what computes for more than some milliseconds belongs into a thread.

    A guard that raises, is too slow or is given too much lets nothing pass. No guard can take anything from a label,
    or turn the policy's no into a yes.
    """

    name: str
    crossings: frozenset[Crossing]
    timeout: float = 2.0
    limit: int = 1_000_000

    @abstractmethod
    async def inspect(self, passing: Passing) -> Ruling:
        """Say what may pass of a text."""

    def settled(self, text: str, crossing: Crossing) -> int:
        """How many characters at the start of `text` can be inspected by themselves, whatever follows.

        For every text: inspecting so many characters and then the rest (with its `offset`) gives, joined, what
        inspecting all at once gives. Those characters need not wait for the end of a stream. Zero: this guard needs
        the whole text.
        """
        return 0

    async def close(self) -> None:
        """Release what the guard holds; called once, by the app that was given it."""


__all__ = ["Crossing", "Guard", "Passing", "Ruling"]
