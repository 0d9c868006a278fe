"""A provider for a part of the traffic: instead of the others, or beside them and unseen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from ringwall.errors import ConfigurationError
from ringwall.model.base import ModelProvider, Reply

Cohort = Callable[[str], bool]
"""Says of an asker, by its grant (`user:ana`), whether it belongs to a group."""


def everybody(asker: str) -> bool:
    """The cohort of all."""
    return True


@dataclass(frozen=True, slots=True)
class Share:
    """A provider for `percent` of the askers in a `cohort`.

    An asker is always of the same side for the same `name`; with a larger percentage nobody who was in gets out.
    Raises `ConfigurationError` for a percentage that is none.
    """

    provider: ModelProvider
    percent: float
    cohort: Cohort = everybody
    name: str = "rollout"

    def __post_init__(self) -> None:
        if not 0 <= self.percent <= 100:
            raise ConfigurationError(f"a share of {self.percent} percent", expected="0 to 100")

    def takes(self, asker: str) -> bool:
        """Whether this asker's requests go there."""
        return self.cohort(asker) and _place(self.name, asker) < self.percent


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What came of a request that a shadow was asked too: `reply`, or the name of the error it failed with."""

    provider: str
    reply: Reply | None
    error: str = ""


def _place(name: str, asker: str) -> float:
    """Where an asker stands among all, from 0 to 100."""
    digest = hashlib.sha256(f"{name}\n{asker}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100
