"""Steps in a line.

A step is any async callable `Turn -> Turn`: a function qualifies. A class qualifies as a recipe: its
constructor's arguments are injected once for each run, and its instances are the steps.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any, cast

from ringwall.errors import ConfigurationError
from ringwall.turn import Turn, TurnStatus

Step = Callable[[Turn], Awaitable[Turn]]
"""What moves a run forward: takes a turn, returns a fuller one."""

Recipe = Step | type | partial[Any]
"""A step, a class whose instances are steps, or `partial(Class, k=8)` with some arguments given."""

Observer = Callable[[int, Turn], None]
"""Told after each step: its place in the line, and the turn it returned."""


class Pipeline:
    """Steps in a line, composed with `|`: `Pipeline(Retrieve) | Compose | Agent`.

    A pipeline of ready-made steps is itself a step. One that holds classes is bound by the app, which injects
    their constructors' arguments.
    """

    def __init__(self, *steps: Recipe | Pipeline) -> None:
        flat: list[Recipe] = []
        for step in steps:
            flat.extend(step.steps if isinstance(step, Pipeline) else (_checked(step),))
        self.steps: tuple[Recipe, ...] = tuple(flat)
        self.names = tuple(step_name(step) for step in flat)
        """The steps' names, in order: what an audit calls them, and what a resumed run must find again."""

    def __or__(self, other: Recipe | Pipeline) -> Pipeline:
        return Pipeline(self, other)

    def __ror__(self, other: Recipe) -> Pipeline:
        return Pipeline(other, self)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Recipe]:
        return iter(self.steps)

    async def __call__(self, turn: Turn) -> Turn:
        return await run_steps(self._ready(), turn)

    def _ready(self) -> tuple[Step, ...]:
        for step in self.steps:
            if step_class(step) is not None:
                raise ConfigurationError(
                    f"step {step_name(step)} is a class, and nobody injected its arguments",
                    hint="give the pipeline to an App, or put an instance into it",
                )
        return cast("tuple[Step, ...]", self.steps)


async def run_steps(steps: Sequence[Step], turn: Turn, *, start: int = 0, observe: Observer | None = None) -> Turn:
    """Run `steps` from place `start` on until the last, or until the turn waits for somebody."""
    for place in range(start, len(steps)):
        turn = await steps[place](turn)
        if observe is not None:
            observe(place, turn)
        if turn.status is not TurnStatus.RUNNING:
            break
    return turn


def step_class(step: Recipe) -> type | None:
    """The class to make the step from; None for a ready-made step."""
    target = step.func if isinstance(step, partial) else step
    return target if inspect.isclass(target) else None


def step_name(step: Recipe) -> str:
    """The name of a step: its class's or function's."""
    target = step.func if isinstance(step, partial) else step
    name = getattr(target, "__qualname__", None)
    return name if isinstance(name, str) else type(target).__qualname__


def _checked(step: Recipe) -> Recipe:
    kind = step_class(step)
    call = getattr(kind, "__call__", None) if kind is not None else step  # noqa: B004 (wanted: the method)
    if kind is not None:
        good = inspect.iscoroutinefunction(call)
    else:
        target = step.func if isinstance(step, partial) else step
        good = inspect.iscoroutinefunction(target) or inspect.iscoroutinefunction(
            getattr(target, "__call__", None)  # noqa: B004
        )
    if not good:
        raise ConfigurationError(
            f"{step_name(step)} is no step",
            expected="an async function `Turn -> Turn`, or a class with `async def __call__(self, turn)`",
        )
    return step


class Checkpoint(ABC):
    """Where a long step says how far it got, so that nothing before is done again after a crash."""

    @abstractmethod
    def mark(self, turn: Turn) -> None:
        """Say how far the step got; what changed goes into the journal with the next thing that must be there."""

    @abstractmethod
    async def save(self, turn: Turn) -> None:
        """Put what changed since the last time into the journal now."""


class Outlet(ABC):
    """Where text leaves for the user while it is being written.

    `holds` says whether it may hold text back, so that it must be told when a text is over.
    """

    holds = False

    @abstractmethod
    async def write(self, text: str) -> None:
        """Hand a piece on. Raises `FlowDenied` when the user may not receive what the run has read."""

    async def end(self) -> None:
        """Say that the text is over: what was held back until all of it was known leaves now."""
