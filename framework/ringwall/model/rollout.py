"""A provider for a part of the traffic: instead of the others, or beside them and unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ringwall.cohort import Cohort, everybody, place
from ringwall.errors import ConfigurationError
from ringwall.model.base import ModelProvider, Reply


def unless_taken_back() -> bool:
    """Of a share that nothing takes back."""
    return True


@dataclass(frozen=True, slots=True)
class Share:
    """A provider for `percent` of the askers in a `cohort`.

    An asker is always of the same side for the same `name`; with a larger percentage nobody who was in gets out.
    Once `holds` says no, as `ringwall.deployment.rollout.Trial.holds` does, nobody is in any more.
    Raises `ConfigurationError` for a percentage that is none.
    """

    provider: ModelProvider
    percent: float
    cohort: Cohort = everybody
    name: str = "rollout"
    holds: Callable[[], bool] = unless_taken_back

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ConfigurationError(f"a share of {self.percent} percent", expected="0 to 100")

    def takes(self, asker: str) -> bool:
        """Whether this asker's requests go there."""
        return self.cohort(asker) and place(self.name, asker) < self.percent


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What came of a request that a shadow was asked too: `reply`, or the name of the error it failed with."""

    provider: str
    reply: Reply | None
    error: str = ""


__all__ = ["Cohort", "Shadowed", "Share", "everybody", "unless_taken_back"]
