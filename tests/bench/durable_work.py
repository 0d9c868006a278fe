"""What is measured of each durable framework, in its own process: the standard library alone is imported here."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

STEPS: Final = 10
"""Recorded steps of a run that is measured alone."""

EFFECTS: Final = 5
CONCURRENT: Final = 100
_RUNS: Final = 60
_WARM_UP: Final = 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a recorded step: CPU µs, and wall ms that 95 of 100 keep within; or how many runs a second."""

    cpu_us: float = 0.0
    p95_ms: float = 0.0
    runs_per_s: float = 0.0


def one_by_one(run: Callable[[str], object], *, steps: int = STEPS) -> Cost:
    """Runs one after the other; each given a name of its own."""
    for number in range(_WARM_UP):
        run(f"warm-up {number}")
    gc.collect()
    walls, cpu = [], time.process_time()
    for number in range(_RUNS):
        began = time.perf_counter()
        run(f"{number}")
        walls.append(time.perf_counter() - began)
    cpu = time.process_time() - cpu
    walls.sort()
    p95 = walls[int(len(walls) * 0.95)]
    return Cost(cpu_us=round(cpu / _RUNS / steps * 1e6, 1), p95_ms=round(p95 / steps * 1e3, 3))


def at_once(run_all: Callable[[list[str]], object]) -> Cost:
    """A hundred runs at once, after ten to warm up."""
    run_all([f"warm-up {number}" for number in range(10)])
    gc.collect()
    began = time.perf_counter()
    run_all([f"{number}" for number in range(CONCURRENT)])
    return Cost(runs_per_s=round(CONCURRENT / (time.perf_counter() - began), 1))


def effect(folder: Path, number: int) -> None:
    """Something that happens outside."""
    with (folder / "effects").open("a") as file:
        file.write(f"{number}\n")


def report(cost: Cost) -> None:
    """Tell the driver."""
    print(json.dumps(asdict(cost)), flush=True)
