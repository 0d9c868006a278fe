"""Versions that never change, each at a stage: what the registries of prompts and of models have in common."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import Field as DataclassField
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar, Protocol, TypeVar

from ringwall.cohort import Cohort, place
from ringwall.errors import ConfigurationError


class Stage(StrEnum):
    """How far a version got: of one name at most one is `CANARY` and one `PRODUCTION`."""

    DRAFT = "draft"
    CANARY = "canary"
    PRODUCTION = "production"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Change:
    """What was done to a version at what time (Unix, in seconds), and why."""

    at: float
    name: str
    version: str
    stage: Stage
    note: str = ""


class Staged(Protocol):
    """A version at its stage; `percent` of the askers get a canary."""

    __dataclass_fields__: ClassVar[dict[str, DataclassField[Any]]]

    @property
    def stage(self) -> Stage: ...

    @property
    def percent(self) -> float: ...


V = TypeVar("V", bound=Staged)


def check_move(what: str, at: Stage, to: Stage, percent: float) -> None:
    """Raise `ConfigurationError` for a canary for nobody, and for what leaves production before another is there."""
    if at is Stage.PRODUCTION and to is not Stage.PRODUCTION:
        raise ConfigurationError(f"{what} is in production", hint="bring another version there instead")
    if (to is Stage.CANARY) != (0 < percent <= 100):
        raise ConfigurationError(f"{to} for {percent:g} percent", expected="0 to 100 for a canary, else none")


def moved(kept: Iterable[V], version: V, key: Callable[[V], tuple[str, Hashable]]) -> tuple[V, ...]:
    """What was kept with `version` at its new stage; whichever of its name was there is retired."""
    name, _ = key(version)
    others = [each for each in kept if key(each) != key(version)]
    if version.stage in (Stage.CANARY, Stage.PRODUCTION):
        others = [
            replace(each, stage=Stage.RETIRED, percent=0.0)
            if key(each)[0] == name and each.stage is version.stage
            else each
            for each in others
        ]
    return (*others, version)


def chosen(versions: Iterable[V], asker: str, cohort: Cohort, called: Callable[[V], str]) -> V | None:
    """The version that an asker gets: the canary for its share of a cohort, else production; None if there is none.

    An asker is always of the same side for the same canary; with a larger percentage nobody who was in gets out.
    """
    found = {each.stage: each for each in versions}
    canary = found.get(Stage.CANARY)
    if canary is not None and cohort(asker) and place(called(canary), asker) < canary.percent:
        return canary
    return found.get(Stage.PRODUCTION)


def difference(old: Sequence[str], new: Sequence[str], names: tuple[str, str]) -> str:
    """What changed, line by line (a unified diff); empty if nothing did."""
    return "\n".join(difflib.unified_diff(old, new, *names, lineterm=""))


__all__ = ["Change", "Stage", "Staged", "check_move", "chosen", "difference", "moved"]
