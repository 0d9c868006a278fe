"""Bursts become figures, one JSON line each, and figures are held against their targets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from engine_roster import Burst
from figures import Verdict, percentile


@dataclass(frozen=True, slots=True)
class Target:
    """A figure, and the least or the most it may be."""

    name: str
    figure: float | None
    least: float | None = None
    most: float | None = None

    @property
    def verdict(self) -> Verdict:
        if self.figure is None:
            return "not measured"
        low = self.least is not None and self.figure < self.least
        high = self.most is not None and self.figure > self.most
        return "short" if low or high else "met"


@dataclass(slots=True)
class Report:
    """What was measured so far; each figure is printed as soon as it is there."""

    targets: list[Target] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)

    def add(self, figure: str, of: dict[str, Any], *targets: Target) -> None:
        """Print a figure with its targets."""
        self.targets += targets
        held = [{**asdict(target), "verdict": target.verdict} for target in targets]
        print(json.dumps({"figure": figure, **of, "targets": held}), flush=True)

    def end(self, **setting: object) -> Verdict:
        """Print the verdict: `met` if every target is, and no engine failed."""
        missed = {target.name: target.verdict for target in self.targets if target.verdict != "met"}
        verdict: Verdict = "short" if missed or self.errors else "met"
        print(json.dumps({"verdict": verdict, "missed": missed, "errors": self.errors, **setting}), flush=True)
        return verdict


def ratio(one: float | None, other: float | None) -> float | None:
    """One over the other, if both were measured."""
    return round(one / other, 4) if one is not None and other else None


def speed(bursts: Sequence[Burst]) -> float | None:
    """Tokens a second, the median of the bursts."""
    return round(median(burst.tokens_per_s for burst in bursts), 2) if bursts else None


def wait(bursts: Sequence[Burst], percent: float) -> float | None:
    """Seconds to the first token, over all chats of the bursts."""
    firsts = [first for burst in bursts for first in burst.firsts]
    return round(percentile(firsts, percent), 3) if firsts else None


def line(bursts: Sequence[Burst]) -> dict[str, Any]:
    """An engine's bursts, with how many tokens came and how its first answer begins."""
    return {
        "tokens_per_s": speed(bursts),
        "ttft_p50_s": wait(bursts, 50),
        "ttft_p95_s": wait(bursts, 95),
        "tokens": [burst.tokens for burst in bursts],
        "begins": bursts[0].answers[0].text if bursts else None,
    }
