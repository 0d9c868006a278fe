"""What goes on: runs that were asked for, what is done within which of them, and what does not work meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ringwall import Principal


@dataclass(frozen=True)
class Wish:
    """What a run is asked to do: tools to call one after the other, and how it ends."""

    moves: tuple[str, ...] = ()
    end: str = "answer"
    intent: str | None = None
    keeps: bool = False
    remembers: bool = False

    @property
    def words(self) -> str:
        begin = "remember: " if self.remembers else "what of "
        return f"{begin}the wine? do({','.join(self.moves)}) end({self.end})" + (" keep it" if self.keeps else "")


class Step(NamedTuple):
    """A call of a plan; its text is `taken` or `read` from the results of earlier ones, or `said` by the user."""

    tool: str
    how: str = "said"
    of: tuple[int, ...] = ()


@dataclass(frozen=True)
class PlanWish:
    """What a run is asked to do by a plan."""

    steps: tuple[Step, ...]
    answer: Step

    intent = None
    keeps = remembers = False

    @property
    def words(self) -> str:
        calls = [
            {"name": f"s{place}", "tool": step.tool, "arguments": _arguments(step, self.steps[:place])}
            for place, step in enumerate(self.steps)
        ]
        return "plan " + json.dumps({"calls": calls, "answer": _text(self.answer, self.steps)})


def _arguments(step: Step, earlier: tuple[Step, ...]) -> dict[str, Any]:
    return {"text": _text(step, earlier)} | ({"to": "bo"} if step.tool == "mail" else {})


def _text(step: Step, earlier: tuple[Step, ...]) -> Any:
    names = list(dict.fromkeys(f"s{place % len(earlier)}" for place in step.of)) if earlier else []
    if step.how == "said" or not names:
        return "the wine"
    is_find = earlier[int(names[0][1:])].tool == "find"
    if step.how == "taken":
        return {"$from": names[0], **({"field": "owner", "pick": "last"} if is_find else {})}
    reading = {"$read": names, "ask": "all of it", "schema": {"type": "string"}}
    return {**reading, "$read": names[:1], "fields": ["owner"]} if step.how == "read owner" and is_find else reading


@dataclass
class Run:
    """A run that was asked for."""

    id: str
    who: Principal
    wish: Wish | PlanWish

    @property
    def is_planned(self) -> bool:
        return isinstance(self.wish, PlanWish)


@dataclass(frozen=True)
class Doing:
    """Within which run something happens, who asked it, and what stands in the way of it there."""

    run: str
    who: Principal
    planned: bool = False
    guarded: bool = False
    budgeted: bool = False


NOTHING: Final = Doing("", Principal("user:nobody"))
DOING: Final[ContextVar[Doing]] = ContextVar("DOING")


@dataclass
class Trouble:
    """What does not work at present, and the change of policy that comes while a model thinks."""

    models: bool = False
    tools: str = ""
    steps: bool = False
    meanwhile: list[Callable[[], None]] = field(default_factory=list)


@dataclass
class Clock:
    """The town's time, in seconds."""

    now: float = 2e9

    def __call__(self) -> float:
        return self.now
