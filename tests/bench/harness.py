"""Measure runs inside this process: CPU and wall time, bursts of concurrent runs, function calls.

Each sample of a run is paired with one of a *floor*, the same work in plain Python, which tells how fast
the processor happened to be at that moment. CPU and wall times are nanoseconds a run. CPU time is that of
the process, all of its threads included. Garbage collection stays on: a framework pays for its garbage.

Only the standard library is imported here, since this module also runs in the peers' environments.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from inspect import isawaitable
from types import FrameType
from typing import Any, Final, TypeAlias

import scene

Run: TypeAlias = Callable[[], str] | Callable[[], Awaitable[str]]
"""One run of a subject, from the question to the answer's text."""

OpenRun: TypeAlias = Callable[[], AbstractAsyncContextManager[Run]]
"""Builds what a run needs (pipeline, agent, journal file), yields the run, and closes again."""

SAMPLE_NS: Final = 200_000
"""A sample repeats its run for about this long, so reading the clocks does not show."""

WARM_UP_RUNS: Final = 10
COUNTED_RUNS: Final = 20
MIN_BURSTS: Final = 2


@dataclass(slots=True)
class Samples:
    """Samples of one run, and the floor beside it: each is the mean of a few repetitions, in ns a run."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Bursts:
    """Bursts of concurrent runs: finished runs a second, and CPU ns a run, for each burst."""

    runs_per_s: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def ready(build: Callable[[], Run]) -> OpenRun:
    """Make an `OpenRun` of a function that builds a run with nothing to close."""

    @asynccontextmanager
    async def open_run() -> AsyncIterator[Run]:
        yield build()

    return open_run


# --- Driving a run ------------------------------------------------------------------------------------


async def answer_of(run: Run) -> str:
    """Do one run, of whichever colour."""
    answer = run()
    return answer if isinstance(answer, str) else await answer


async def check(run: Run, *, uses_tool: bool) -> None:
    """Refuse to measure a run that misses the scene's answer, or the tool that should lead to it."""
    scene.cities_asked.clear()
    answer = await answer_of(run)
    if answer != scene.ANSWER:
        raise RuntimeError(f"the run answered {answer!r} instead of {scene.ANSWER!r}")
    if scene.cities_asked != (set(scene.TOOL_ARGUMENTS.values()) if uses_tool else set()):
        raise RuntimeError(f"the run asked its tool about {scene.cities_asked or 'nothing'}")


async def is_async(run: Run) -> bool:
    """Tell whether calling the run gives something to await (asked of the result: a lambda hides it)."""
    result = run()
    if not isawaitable(result):
        return False
    await result
    return True


def _repeat_blocking(run: Callable[[], object], times: int) -> None:
    for _ in range(times):
        run()


async def _repeat_async(run: Callable[[], Awaitable[object]], times: int) -> None:
    for _ in range(times):
        await run()


async def _repeat(run: Any, times: int, *, awaiting: bool) -> None:
    if awaiting:
        await _repeat_async(run, times)
    else:
        _repeat_blocking(run, times)


# --- CPU and wall time --------------------------------------------------------------------------------


async def sample(run: Run, floor: Run, *, seconds: float) -> Samples:
    """Sample the run for about so many seconds of wall time, each sample paired with one of the floor."""
    repeated, floored = await _Repeated.of(run), await _Repeated.of(floor)
    samples = Samples()
    gc.collect()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        cpu, wall = await repeated.timed()
        samples.cpu.append(cpu)
        samples.wall.append(wall)
        samples.floor.append((await floored.timed())[0])
    return samples


@dataclass(frozen=True, slots=True)
class _Repeated:
    """A run, repeated often enough for one sample."""

    run: Run
    awaiting: bool
    times: int

    @classmethod
    async def of(cls, run: Run) -> _Repeated:
        """Warm the run up, and settle how many repetitions fill a sample."""
        trial = cls(run, await is_async(run), 3)
        await _repeat(run, WARM_UP_RUNS, awaiting=trial.awaiting)
        cpu, _ = min([await trial.timed() for _ in range(3)])
        return cls(run, trial.awaiting, max(1, round(SAMPLE_NS / max(cpu, 1))))

    async def timed(self) -> tuple[float, float]:
        """Return CPU and wall ns a run."""
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        await _repeat(self.run, self.times, awaiting=self.awaiting)
        cpu, wall = time.process_time_ns() - cpu, time.perf_counter_ns() - wall
        return cpu / self.times, wall / self.times


# --- Concurrency --------------------------------------------------------------------------------------


async def burst(run: Run, *, seconds: float) -> Bursts:
    """Send bursts of concurrent runs for about `seconds`, after one to warm up."""
    bursts = Bursts()
    await _one_burst(run)
    gc.collect()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(bursts.cpu) < MIN_BURSTS:
        wall, cpu = time.perf_counter(), time.process_time_ns()
        await _one_burst(run)
        cpu, elapsed = time.process_time_ns() - cpu, time.perf_counter() - wall
        bursts.runs_per_s.append(scene.BURST / elapsed)
        bursts.cpu.append(cpu / scene.BURST)
    return bursts


async def _one_burst(run: Run) -> None:
    await asyncio.gather(*(answer_of(run) for _ in range(scene.BURST)))


# --- Function calls -----------------------------------------------------------------------------------


def count_calls(open_run: OpenRun) -> int:
    """Count Python and C function calls a run, all threads included: work, as noise cannot touch it.

    The run is opened afresh, in a thread and an event loop of its own and with the profiler already
    installed, so that whatever threads it starts are counted too.
    """
    with ThreadPoolExecutor(max_workers=1) as fresh_thread:
        return fresh_thread.submit(lambda: asyncio.run(_count_calls(open_run))).result()


async def _count_calls(open_run: OpenRun) -> int:
    profiler = _Profiler()
    with profiler:
        async with open_run() as run:
            awaiting = await is_async(run)
            await _repeat(run, WARM_UP_RUNS, awaiting=awaiting)
            profiler.armed = True
            await _repeat(run, COUNTED_RUNS, awaiting=awaiting)
            profiler.armed = False
    return round(profiler.calls() / COUNTED_RUNS)


class _Profiler:
    """Counts calls in this thread and in those started while it is installed, whenever it is armed."""

    def __init__(self) -> None:
        self.armed = False
        self._counter = itertools.count()

    def __enter__(self) -> None:
        threading.setprofile(self._on_event)
        sys.setprofile(self._on_event)

    def __exit__(self, *exc: object) -> None:
        sys.setprofile(None)
        threading.setprofile(None)

    def _on_event(self, frame: FrameType, event: str, arg: object) -> None:
        if self.armed and event in ("call", "c_call"):
            next(self._counter)  # atomic, unlike `+= 1`

    def calls(self) -> int:
        return next(self._counter)
