"""When the tokens of chats came, and a subject's end of the pipe that asks it for them.

The driver writes the chats of one burst as a line of JSON to standard input and reads their times as a line from
standard output; what an engine itself prints goes to standard error. Only the standard library is imported here, since
this module also runs in a peer's environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import IO, Any, TypeAlias

from chats import Chat

SHOWN = 40
"""Characters of an answer that are told: enough to see that all were asked the same."""


@dataclass(slots=True)
class Answer:
    """What came of a chat: seconds from the burst's start to the first token and to the last, and how many came."""

    began: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    text: str = ""

    def add(self, text: str, tokens: int = 1) -> None:
        """Note that so many tokens came just now."""
        self.last = time.perf_counter() - self.began
        self.first = self.first or self.last
        self.tokens += tokens
        self.text = (self.text + text)[:SHOWN]


Asks: TypeAlias = Callable[[Sequence[Chat], Sequence[Answer]], None]
"""Asks an engine all these chats at once, and notes what came of each as it comes."""


def serve(ask: Asks, *, about: str, counters: Callable[[], Mapping[str, int]] = dict) -> None:
    """Say what computes; then ask whatever the driver sends until the input ends."""
    replies = _claim_stdout()
    _reply(replies, {"about": about})
    for line in sys.stdin:
        before = counters()
        asked = [Chat(**chat) for chat in json.loads(line)]
        began = time.perf_counter()
        answers = [Answer(began) for _ in asked]
        ask(asked, answers)
        after = counters()
        counted = {name: after[name] - before[name] for name in after}
        _reply(replies, {"answers": [asdict(answer) for answer in answers], "counted": counted})


def _claim_stdout() -> IO[str]:
    """Keep standard output for replies alone."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def _reply(replies: IO[str], reply: Mapping[str, Any]) -> None:
    print(json.dumps(reply), file=replies, flush=True)
