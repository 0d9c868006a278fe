"""What it costs a run to be watched: CPU time of all threads, beside the same run unwatched.

    python tests/bench/sinks.py [seconds]

Prints a JSON line for each kind of watcher. Rounds alternate, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import structlog
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from ringwall import ACL, App, Principal, Rules, ScriptedModel
from ringwall.deployment import EventSink, Told
from ringwall.deployment.logs import LogSink
from ringwall_otel import OtelSink

ROUND = 100
"""Runs in a round."""


class Nobody(EventSink):
    """Takes events and does nothing with them: what delivery alone costs."""

    @property
    def principal(self) -> Principal:
        return Principal("sink:nobody")

    async def receive(self, events: Sequence[Told]) -> None:
        pass


WATCHERS: dict[str, Callable[[], list[EventSink]]] = {
    "none": list,
    "nobody": lambda: [Nobody()],
    "log": lambda: [LogSink()],
    "otel": lambda: [OtelSink(tracers=TracerProvider(), meters=MeterProvider())],
}


async def round_of(app: App, asker: Principal) -> float:
    """CPU microseconds a run, until the watcher has taken all of it."""
    began = time.process_time()
    for _ in range(ROUND):
        await app.ask("where is the wine?", as_=asker)
    while any(sink.waiting for sink in (await app.health()).sinks):  # noqa: ASYNC110 (they wait on other threads)
        await asyncio.sleep(0.02)
    return (time.process_time() - began) / ROUND * 1e6


async def main(seconds: float) -> None:
    structlog.configure(processors=[], logger_factory=structlog.testing.CapturingLogger)
    asker, took = Principal.user("ana", "guest"), {name: list[float]() for name in WATCHERS}
    async with AsyncExitStack() as stack:
        apps = {}
        for name, sinks in WATCHERS.items():
            app = App(policy=Rules("allow role:guest ask app:app"), model=ScriptedModel(lambda _: "[1]"), sinks=sinks())
            apps[name] = await stack.enter_async_context(app)
            await app.ingest([("wine.md", "the wine is in the cellar")], ACL.of("public"))
            await round_of(app, asker)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for name, app in apps.items():
                took[name].append(await round_of(app, asker))
    base = statistics.median(took["none"])
    for name, rounds in took.items():
        cpu = statistics.median(rounds)
        print(json.dumps({"watcher": name, "cpu_us": round(cpu), "ratio": round(cpu / base, 2), "rounds": len(rounds)}))


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0))
