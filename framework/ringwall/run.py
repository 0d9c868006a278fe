"""One run from the inside: how its turn is saved, how its text leaves, and how it is picked up again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from ringwall.data.base import Match
from ringwall.data.retrieve import Trail
from ringwall.deployment.gates import release
from ringwall.deployment.guarded import GuardedAnswer
from ringwall.deployment.journal import Event
from ringwall.deployment.runlog import RunLog, event_body
from ringwall.deployment.unwinding import Stop, stop_of
from ringwall.errors import ConfigurationError
from ringwall.label import Label, Labelled
from ringwall.pipeline import Checkpoint, Outlet
from ringwall.schema import JSON
from ringwall.turn import (
    Turn,
    TurnStatus,
    apply_change,
    describe_change,
    principal_from_json,
    principal_to_json,
    shown,
)

Sink = Callable[[str], Awaitable[None]]
"""Takes each piece of text that leaves for the user."""


class Saved(Checkpoint):
    """Knows how far the turn got, and sees to it that each flush of the journal takes along what changed in it."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._next = 0
        self._turn: Turn | None = None
        self._journaled: Turn | None = None

    def begin(self, turn: Turn, place: int) -> None:
        """From here on `turn` is what the journal holds, and `place` the step that runs."""
        self._journaled = self._turn = turn
        self._next = place
        self._log.before_flush = self._note

    def mark(self, turn: Turn) -> None:
        self._turn = turn

    def words(self) -> tuple[str, ...]:
        """The user's own words, and after them the passages that were found so far."""
        turn = self._turn
        return () if turn is None else (turn.question.value, *[shown(match.chunk) for match in turn.matches])

    async def save(self, turn: Turn) -> None:
        self._turn = turn
        await self._log.flush()

    def finished(self, place: int, turn: Turn) -> None:
        """Told by the pipeline after each step; a step that waits for somebody is not over."""
        self._turn = turn
        if turn.status is TurnStatus.RUNNING:
            self._next = place + 1

    def _note(self) -> None:
        before, after = self._journaled, self._turn
        if before is not after and before is not None and after is not None:
            self._log.note("turn.changed", {"next": self._next, "changed": describe_change(before, after)})
            self._journaled = after


class UserOutlet(Outlet):
    """Lets text out to the user once the policy has said that the user may receive all that the run has seen."""

    def __init__(self, log: RunLog, sink: Sink | None, guarded: GuardedAnswer | None) -> None:
        self._log, self._sink, self._guarded = log, sink, guarded
        self.holds = guarded is not None
        self._settled: Label | None = None

    async def write(self, text: str) -> None:
        if self._sink is None:
            return
        await self._send(text if self._guarded is None else await self._guarded.push(text), self._sink)

    async def end(self) -> None:
        if self._sink is not None and self._guarded is not None:
            await self._send(await self._guarded.end(), self._sink)

    async def _send(self, text: str, sink: Sink) -> None:
        if self._settled is not self._log.floor:
            await release(self._log, as_="answer.begun")
            self._settled = self._log.floor
        if text:
            await sink(text)


class RunTrail(Trail):
    """Writes into the journal what each stage of a retrieval made of the candidates."""

    def __init__(self, log: RunLog) -> None:
        self._log = log

    def note(self, stage: str, matches: Sequence[Match]) -> None:
        found: list[JSON] = [[match.chunk.id, round(match.score, 6)] for match in matches]
        self._log.note("data.ranked", {"stage": stage, "found": found})


@dataclass(frozen=True, slots=True)
class Beginning:
    """Where a run that is picked up again goes on: its turn so far, and the place of the step to run next.

    `stop` is there if it is not to go on.
    """

    turn: Turn
    place: int
    app: str
    steps: tuple[str, ...]
    deadline: Deadline
    stop: Stop | None = None


@dataclass(frozen=True, slots=True)
class Deadline:
    """How long a run may take: until when (Unix time), or while nobody works on it, how many seconds more.

    A run that was started by an older version knows neither.
    """

    until: float | None = None
    more: float | None = None

    def left(self, now: float) -> float | None:
        """The seconds that are left, perhaps none; None if the run knows no deadline."""
        return self.more if self.until is None else self.until - now

    def after(self, event: Event) -> Deadline:
        """The deadline after an event: time that passes while the run waits, or has failed, does not count."""
        match event.kind:
            case "run.started" | "run.resumed":
                seconds = event_body(event).get("seconds")
                return self if seconds is None else Deadline(event.at + seconds)
            case "run.waiting" | "run.failed":
                return Deadline(more=self.left(event.at))
        return self


def started(turn: Turn, *, app: str, steps: Sequence[str], seconds: float | None = None) -> dict[str, JSON]:
    """The body of a run's first event: all that is needed to begin it again, and how long it may take."""
    return {
        "app": app,
        "steps": list(steps),
        "seconds": seconds,
        "principal": principal_to_json(turn.principal),
        "question": turn.question.value,
        "label": cast(JSON, turn.question.label.to_json()),
        "grants": sorted(turn.grants),
        "intent": None if turn.intent is None else sorted(turn.intent),
    }


def fold(events: Sequence[Event]) -> Beginning:
    """Fold a run's events into its turn."""
    first = event_body(events[0])
    question = Labelled(first["question"], Label.from_json(first["label"]))
    intent = None if first["intent"] is None else frozenset(first["intent"])
    principal = principal_from_json(first["principal"])
    turn = Turn(events[0].run, principal, question, frozenset(first["grants"]), intent=intent)
    place, deadline = 0, Deadline()
    for event in events:
        deadline = deadline.after(event)
        if event.kind == "turn.changed":
            body = event_body(event)
            turn, place = apply_change(turn, body["changed"]), body["next"]
    return Beginning(turn, place, first["app"], tuple(first["steps"]), deadline, stop_of(events))


def check_same_pipeline(beginning: Beginning, *, steps: Sequence[str]) -> None:
    """Raise `ConfigurationError` when a run began with other steps than the app has now."""
    if beginning.steps != tuple(steps):
        raise ConfigurationError(
            f"run {beginning.turn.run!r} began with the steps {', '.join(beginning.steps)}",
            expected=f"the same steps as now: {', '.join(steps)}",
            hint="finish it with the version that began it",
        )
