"""Event sinks: readings of a run's events while they happen, for traces, metrics, logs and whatever else watches.

A plugin author reads this file alone. Subclass `EventSink`, then run `ringwall.deployment.sink_contract` on it.

A sink is a receiver like any other. It is always told *facts*: that something of a kind happened, when, and what
`ringwall.deployment.facts` lists for that kind: numbers, and names that the deployer chose. What a run has read, the
*contents*, it is told only if it asks for them (`contents`) and its principal may receive the event's label.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ringwall.principal import Principal
from ringwall.schema import JSON

_NO_FACTS: Final[Mapping[str, JSON]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Told:
    """What a sink is told of one event. `seq` counts from 0 in its run, `at` is Unix time in seconds.

    `body` and `label` are the event's JSON texts, both empty when its contents are withheld.
    """

    app: str
    tenant: str
    run: str
    seq: int
    kind: str
    at: float
    facts: Mapping[str, JSON] = field(default_factory=lambda: _NO_FACTS)
    body: str = ""
    label: str = ""


class EventSink(ABC):
    """Takes events after the journal has them.

    What it can rely on:

    - `receive` and `close` are called on one thread of the sink's own, with an event loop of its own, one call at a
      time: it may block, and only itself waits;
    - a run's events come in order, once; some may be missing, since those that find its queue full are dropped;
    - the first event of a run that is seen need not be `run.started`, and the last may never come.

    What it raises is counted, and no run hears of it.
    """

    contents: bool = False
    """Whether it wants contents, as far as `principal` may receive them."""

    @property
    @abstractmethod
    def principal(self) -> Principal:
        """Who receives: `sink:NAME`. Its grants are looked up in the tenant of each run, at each event."""

    @abstractmethod
    async def receive(self, events: Sequence[Told]) -> None:
        """Take some events, of one run or several."""

    async def close(self) -> None:
        """Send what it still holds, and let go of it; called once, by the app that opened it."""


@dataclass(frozen=True, slots=True)
class SinkState:
    """How many events a sink was given: `delivered`, `dropped` for want of room, `failed` with the last `error`'s name.

    `waiting` are in its queue.
    """

    name: str
    delivered: int = 0
    dropped: int = 0
    failed: int = 0
    waiting: int = 0
    error: str = ""


__all__ = ["EventSink", "SinkState", "Told"]
