"""Those who watch runs from outside: sinks, traces and logs, and what each might have been told, and when."""

from __future__ import annotations

import bisect
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from structlog.testing import CapturingLogger

from ringwall import Principal
from ringwall.deployment import EventSink, Told
from ringwall.deployment.logs import LogSink
from tests.deployment.test_sinks import Kept
from tests.leaks.town import SINKS, TENANTS
from tests.leaks.witness import Witness, may_read
from tests.leaks.world import words_in
from tests.plugins.test_otel import Collector

RECEIVER, OTEL, LOG = dict.fromkeys(who.id for who in SINKS)
Held = Mapping[Principal, frozenset[str]]


@dataclass
class Watchers:
    """The sinks of three apps; `held` is what everybody held from when on, `ends` when each thing had happened."""

    witness: Witness
    lines: CapturingLogger
    held: list[tuple[float, Held]] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.receivers = [Kept("receiver", contents=True) for _ in range(2)]
        self.facts = Kept("facts")
        self.otel = Collector(contents=True)

    @property
    def sinks(self) -> tuple[tuple[EventSink, ...], ...]:
        """Those of each app."""
        first, second = self.receivers
        return (first, self.facts), (self.otel.sink, LogSink(contents=True)), (second, LogSink(name="facts"))

    def gives(self) -> None:
        """Who holds what has changed."""
        self.held.append((time.time(), dict(self.witness.held)))

    def ended(self) -> None:
        """Something has happened to its end."""
        self.ends.append(time.time())

    def look(self) -> None:
        """Hold all that was told, once the apps are closed, against what might be."""
        for event in (*self.receivers[0].told, *self.receivers[1].told):
            self._hears(RECEIVER, event.tenant, event.run, event.at, event.body)
            self._hears_no_word("sink", besides_contents(event))
        for event in self.facts.told:
            self._hears_no_word("sink", event)
        for line in self.lines.calls:
            said = dict(line.kwargs)
            body = said.pop("body", "")
            if said["app"] == "plan":
                self._hears_no_word("log", body)
            self._hears(LOG, said.get("tenant", ""), said["run"], said["at"], body)
            self._hears_no_word("log", line.args, said)
        self._read_spans()

    def _read_spans(self) -> None:
        for span in self.otel.spans:
            about = json.loads(span.to_json())
            tenant = str(about["attributes"].get("ringwall.tenant", ""))
            tenants = [tenant] if tenant else TENANTS
            for word in words_in(about):
                self.witness.told[OTEL] += 1
                whoever = [Principal(OTEL, tenant) for tenant in tenants]
                if not any(self._might(who, word, "", held) for who in whoever for _, held in self.held):
                    self.witness.leaks.append(f"{OTEL} was told {word} in a span")
        if self.otel.spans:
            self._hears_no_word("measurement", self.otel.metrics())

    def _hears(self, name: str, tenant: str, run: str, at: float, body: str) -> None:
        who = Principal(name, tenant)
        for word in words_in(body):
            self.witness.told[name] += 1
            if not any(self._might(who, word, run, held) for held in self._held_at(at)):
                self.witness.leaks.append(f"{name} of {tenant!r} was told {word} of {run}")

    def _held_at(self, at: float) -> Iterator[Held]:
        """What was held when something was written down, and until that was over."""
        times = [time for time, _ in self.held]
        end = bisect.bisect_left(self.ends, at)
        over = self.ends[end] if end < len(self.ends) else float("inf")
        yield from (
            held for _, held in self.held[bisect.bisect_right(times, at) - 1 : bisect.bisect_right(times, over)]
        )

    def _might(self, who: Principal, word: str, run: str, held: Held) -> bool:
        ways = self.witness.known.get(run, {}).get(word) or self.witness.ever.get(word, set())
        return any(may_read(who, readers, held.get(who, frozenset())) for readers in ways)

    def _hears_no_word(self, through: str, *what: object) -> None:
        self.witness.leaks += [f"a {through} was told {word}, whoever reads it" for word in words_in(*what)]


def besides_contents(event: Told) -> tuple[object, ...]:
    """What is told of an event besides its contents."""
    return (event.app, event.tenant, event.run, event.seq, event.kind, event.facts)
