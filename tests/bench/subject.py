"""A subject's end of the pipe: open its runs, and measure whichever the driver names next.

The driver writes one JSON request a line to standard input and reads one JSON reply a line from standard
output; whatever a framework itself prints goes to standard error. A request is
`{"measure": "sample" | "burst" | "calls", "run": name, "seconds": s}`.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from importlib.metadata import version
from typing import IO, Any

import floor
from harness import OpenRun, Run, Sampler, burst, check, count_calls


def serve(
    *, runs: Mapping[str, OpenRun], bursts: Mapping[str, OpenRun], packages: Sequence[str] = ()
) -> None:
    """Say hello with versions and the names of runs and bursts; then measure until the input ends."""
    replies = _claim_stdout()
    hello = {
        "python": platform.python_version(),
        "packages": {package: version(package) for package in packages},
        "runs": list(runs),
        "bursts": list(bursts),
    }
    _reply(replies, hello)
    asyncio.run(_Server(runs, bursts).serve(replies))


def _claim_stdout() -> IO[str]:
    """Keep standard output for replies alone: everything printed from now on goes to standard error."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return replies


def _reply(replies: IO[str], reply: Mapping[str, Any]) -> None:
    print(json.dumps(reply), file=replies, flush=True)


class _Server:
    """Keeps each run open from its first measurement on, so that every round meets the same objects."""

    def __init__(self, runs: Mapping[str, OpenRun], bursts: Mapping[str, OpenRun]) -> None:
        self.runs, self.bursts = runs, bursts
        self.samplers: dict[str, Sampler] = {}
        self.opened_bursts: dict[str, Run] = {}
        self.closing = AsyncExitStack()

    async def serve(self, replies: IO[str]) -> None:
        # Blocking on standard input holds the event loop, on purpose: between measurements nothing may run.
        async with self.closing:
            for line in sys.stdin:
                _reply(replies, await self._measure(**json.loads(line)))

    async def _measure(self, *, measure: str, run: str, seconds: float) -> dict[str, Any]:
        match measure:
            case "sample":
                return asdict(await (await self._sampler(run)).sample(seconds=seconds))
            case "burst":
                return asdict(await burst(await self._burst(run), seconds=seconds))
            case "calls":
                return {"calls": count_calls(self.runs[run])}
        raise ValueError(f"no measurement is called {measure!r}")

    async def _sampler(self, name: str) -> Sampler:
        if name not in self.samplers:
            self.samplers[name] = await Sampler.of(await self._open(name, self.runs), floor.of(name))
        return self.samplers[name]

    async def _burst(self, name: str) -> Run:
        if name not in self.opened_bursts:
            self.opened_bursts[name] = await self._open(name, self.bursts)
        return self.opened_bursts[name]

    async def _open(self, name: str, recipes: Mapping[str, OpenRun]) -> Run:
        run = await self.closing.enter_async_context(recipes[name]())
        await check(run, uses_tool=name.startswith("agent"))
        return run
