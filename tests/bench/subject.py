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
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.metadata import version
from typing import IO, Any

import floor
from harness import OpenRun, Run, burst, check, count_calls, sample


def serve(*, runs: Mapping[str, OpenRun], bursts: Mapping[str, OpenRun], packages: Sequence[str] = ()) -> None:
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
    """Opens a run anew for each measurement: no round inherits the files and the memory of the one before."""

    def __init__(self, runs: Mapping[str, OpenRun], bursts: Mapping[str, OpenRun]) -> None:
        self.runs, self.bursts = runs, bursts

    async def serve(self, replies: IO[str]) -> None:
        # Blocking on standard input holds the event loop, on purpose: between measurements nothing may run.
        for line in sys.stdin:
            _reply(replies, await self._measure(**json.loads(line)))

    async def _measure(self, *, measure: str, run: str, seconds: float) -> dict[str, Any]:
        match measure:
            case "sample":
                async with _checked(run, self.runs[run]) as opened:
                    return asdict(await sample(opened, floor.of(run), seconds=seconds))
            case "burst":
                async with _checked(run, self.bursts[run]) as opened:
                    return asdict(await burst(opened, seconds=seconds))
            case "calls":
                return {"calls": count_calls(self.runs[run])}
        raise ValueError(f"no measurement is called {measure!r}")


@asynccontextmanager
async def _checked(name: str, open_run: OpenRun) -> AsyncIterator[Run]:
    async with open_run() as run:
        await check(run, uses_tool=name.startswith("agent"))
        yield run
