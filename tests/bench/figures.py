"""Samples become figures, and figures are held against the targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, TypeAlias

from harness import Bursts, Samples
from roster import AGENT_FRAMEWORK, LANGGRAPH, RINGWALL

MAX_RAG_US: Final = 150.0
MAX_AGENT_US: Final = 400.0
MAX_DURABLE_RATIO: Final = 0.1

Verdict: TypeAlias = Literal["met", "short", "not measured"]


@dataclass(slots=True)
class Measured:
    """Everything measured of one subject, over all rounds."""

    name: str
    python: str = ""
    packages: dict[str, str] = field(default_factory=dict)
    samples: dict[str, Samples] = field(default_factory=dict)
    bursts: dict[str, Bursts] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    error: str | None = None

    def add_samples(self, run: str, more: Samples) -> None:
        """Pool another round's samples of a run."""
        pool = self.samples.setdefault(run, Samples())
        pool.cpu += more.cpu
        pool.wall += more.wall
        pool.floor += more.floor

    def add_bursts(self, run: str, more: Bursts) -> None:
        """Pool another round's bursts."""
        pool = self.bursts.setdefault(run, Bursts())
        pool.runs_per_s += more.runs_per_s
        pool.cpu += more.cpu

    def best_us(self, run: str) -> float | None:
        """Say what the run costs at best: the first percentile of its CPU, in µs."""
        return microseconds(self.samples[run].cpu, 1) if run in self.samples else None


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which so many per cent of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def microseconds(values: Sequence[float], percent: float) -> float:
    """Return a percentile of nanoseconds, in µs."""
    return round(percentile(values, percent) / 1000, 2)


# --- One line a subject -------------------------------------------------------------------------------


def line(measured: Measured) -> dict[str, Any]:
    """Put a subject's figures into one record, for a JSON line."""
    if measured.error:
        return {"subject": measured.name, "error": measured.error}
    return {
        "subject": measured.name,
        "python": measured.python,
        "packages": measured.packages,
        "runs": {run: _run_figures(measured, run) for run in measured.samples},
        "bursts": {run: _burst_figures(bursts) for run, bursts in measured.bursts.items()},
    }


def _run_figures(measured: Measured, run: str) -> dict[str, float]:
    """CPU and wall µs a run, the floor's CPU µs in the same process and time, and floors a run."""
    samples = measured.samples[run]
    return {
        "cpu_best_us": microseconds(samples.cpu, 1),
        "cpu_median_us": microseconds(samples.cpu, 50),
        "wall_p50_us": microseconds(samples.wall, 50),
        "wall_p95_us": microseconds(samples.wall, 95),
        "floor_best_us": microseconds(samples.floor, 1),
        "best_in_floors": round(percentile(samples.cpu, 1) / percentile(samples.floor, 1), 1),
        "calls": measured.calls[run],
        "samples": len(samples.cpu),
    }


def _burst_figures(bursts: Bursts) -> dict[str, float]:
    """Finished runs a second with many in flight, and CPU µs a run."""
    return {
        "runs_per_s_best": round(max(bursts.runs_per_s), 1),
        "runs_per_s_median": round(percentile(bursts.runs_per_s, 50), 1),
        "cpu_median_us": microseconds(bursts.cpu, 50),
    }


# --- The last line ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Target:
    """A figure and the most it may be: µs of best-case CPU, or a ratio of two of them."""

    name: str
    figure: float | None
    limit: float | None

    @property
    def verdict(self) -> Verdict:
        """Hold the figure against the limit; without either there is nothing to say."""
        if self.figure is None or self.limit is None:
            return "not measured"
        return "met" if self.figure <= self.limit else "short"


def summary(everyone: dict[str, Measured]) -> dict[str, Any]:
    """Compare Ringwall with each peer, and with its targets."""
    held = targets(everyone)
    return {
        "summary": "overhead of a governed run",
        "ratios": ratios(everyone),
        "targets": [{**asdict(target), "verdict": target.verdict} for target in held],
        "verdict": verdict(everyone, held),
    }


def ratios(everyone: dict[str, Measured]) -> dict[str, dict[str, dict[str, float]]]:
    """Ringwall's best-case and median CPU, median wall time and calls, over each other subject's."""
    ours = everyone.get(RINGWALL)
    if ours is None or ours.error:
        return {}
    others = {name: theirs for name, theirs in everyone.items() if name != RINGWALL and not theirs.error}
    return {name: {**_run_ratios(ours, theirs), **_burst_ratios(ours, theirs)} for name, theirs in others.items()}


def _run_ratios(ours: Measured, theirs: Measured) -> dict[str, dict[str, float]]:
    """Hold each of a peer's runs against ours; it may know several ways to do what we do in one."""
    counterparts = {run: run.removesuffix("_before_next_step") for run in theirs.samples}
    return {run: _run_ratio(ours, own, theirs, run) for run, own in counterparts.items() if own in ours.samples}


def _burst_ratios(ours: Measured, theirs: Measured) -> dict[str, dict[str, float]]:
    both = [run for run in ours.bursts if run in theirs.bursts]
    return {f"{run}_burst": _burst_ratio(ours.bursts[run], theirs.bursts[run]) for run in both}


def _burst_ratio(a: Bursts, b: Bursts) -> dict[str, float]:
    return {
        "runs_per_s": round(percentile(a.runs_per_s, 50) / percentile(b.runs_per_s, 50), 3),
        "cpu_median": round(percentile(a.cpu, 50) / percentile(b.cpu, 50), 3),
    }


def _run_ratio(ours: Measured, our_run: str, theirs: Measured, their_run: str) -> dict[str, float]:
    a, b = ours.samples[our_run], theirs.samples[their_run]
    return {
        "cpu_best": round(percentile(a.cpu, 1) / percentile(b.cpu, 1), 3),
        "cpu_median": round(percentile(a.cpu, 50) / percentile(b.cpu, 50), 3),
        "wall_p50": round(percentile(a.wall, 50) / percentile(b.wall, 50), 3),
        "calls": round(ours.calls[our_run] / theirs.calls[their_run], 3),
    }


def targets(everyone: dict[str, Measured]) -> list[Target]:
    """List what Ringwall is held to, always against the cheapest way of driving the peer.

    The peers' agents retrieve nothing, so they are compared with the turn that finds nothing either.
    """
    nobody = Measured("nobody")
    ours = everyone.get(RINGWALL, nobody)
    bar = everyone.get(AGENT_FRAMEWORK, nobody).best_us("agent")
    durable = everyone.get(LANGGRAPH, nobody)
    return [
        Target("RAG run, µs", ours.best_us("rag"), MAX_RAG_US),
        Target("agent turn, µs", ours.best_us("agent"), MAX_AGENT_US),
        Target("agent turn, µs, against agent-framework's", ours.best_us("agent_without_documents"), bar),
        _durable_target("NORMAL", ours, durable),
        _durable_target("FULL", ours, durable),
    ]


def _durable_target(synchronous: str, ours: Measured, theirs: Measured) -> Target:
    run = f"agent_sqlite_{synchronous.lower()}"
    own, bars = ours.best_us(run), [theirs.best_us(name) for name in theirs.samples if name.startswith(run)]
    cheapest = min((bar for bar in bars if bar), default=None)
    ratio = round(own / cheapest, 4) if own and cheapest else None
    return Target(f"durable agent turn, synchronous={synchronous}, over LangGraph's", ratio, MAX_DURABLE_RATIO)


def verdict(everyone: dict[str, Measured], held: list[Target]) -> Verdict:
    """Say `short` if a target is, or if a subject that should have been measured could not be."""
    if any(target.verdict == "short" for target in held) or any(each.error for each in everyone.values()):
        return "short"
    return "met" if any(target.verdict == "met" for target in held) else "not measured"
