"""A plan: the calls that the user's words ask for, and where each argument of each comes from.

A plan is made from the user's words alone, before anything else is read, and is fixed from then on. Its arguments
name their origins instead of holding values found later: so what a value may cause is carried from where it came, and
never guessed from what it looks like.

In JSON a plan is `{"calls": [{"name": ..., "tool": ..., "arguments": {...}}, ...], "answer": ...}`. An argument is a
value (the planner's own, from the user's words), or an object with one of these keys, or a list or object of such:

- `{"$from": "step", "field": "id", "where": {"sender": "bo@x"}, "pick": "last"}`: a field of an earlier result;
- `{"$read": ["step"], "ask": "the amount of the bill", "schema": {"type": "number"}, "fields": [...]}`: what a model
  that may do nothing else reads out of earlier results; with `"quotes": {"$from": "hotels"}` or `"only": true` it can
  say less yet;
- `{"$text": ["Dinner at ", {"$from": "place", "field": "name"}]}`: a text put together of such;
- `{"$item": "sender"}`: a field of what the call is made for, in a call that is made for `each` of several.

Beside its arguments a call may have `each`, the list of what it is made for, and `when`, what must hold for it to be
made (see `ringwall.interface.conditions`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ringwall.errors import InvalidInput
from ringwall.interface.conditions import When, origins_of, when_from_json, when_to_json
from ringwall.interface.origin import Item, Origin, origin_from_json, origin_to_json, parts_of, steps_of
from ringwall.schema import JSON


@dataclass(frozen=True, slots=True)
class PlannedCall:
    """A call that the user's words ask for, made once.

    With `each` it is made once for each item of that list, and returns all their results as one list. With `when` it
    is made only if that holds, for this item if it is made for several. An `open` one names the tool alone: it may be
    called with any arguments, any number of times.
    """

    name: str
    tool: str
    arguments: Mapping[str, Origin] = field(default_factory=dict)
    open: bool = False
    each: Origin | None = None
    when: When | None = None

    @property
    def origins(self) -> Iterator[Origin]:
        """Where everything in it comes from."""
        yield from self.arguments.values()
        if self.each is not None:
            yield self.each
        yield from origins_of(self.when)


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """What a run may do. `answer` is what is told at the end; None tells what was done.

    Raises `InvalidInput` when two calls have one name, an origin names no earlier call, or a condition looks at an item
    of a call that is made for none.
    """

    calls: tuple[PlannedCall, ...]
    answer: Origin | None = None

    def __post_init__(self) -> None:
        earlier: set[str] = set()
        for call in self.calls:
            if call.name in earlier:
                raise InvalidInput(f"two calls of the plan are named {call.name!r}")
            _check_steps(call.origins, earlier)
            if call.each is None and any(_is_item(origin) for origin in origins_of(call.when)):
                raise InvalidInput(f"call {call.name!r} of the plan has a condition on an item, and no `each`")
            earlier.add(call.name)
        if self.answer is not None:
            _check_steps((self.answer,), earlier)

    @classmethod
    def of_tools(cls, *tools: str) -> TaskPlan:
        """The plan that names tools alone."""
        return cls(tuple(PlannedCall(tool, tool, open=True) for tool in tools))

    def call(self, name: str) -> PlannedCall:
        """The call of that name. Raises `InvalidInput`."""
        for call in self.calls:
            if call.name == name:
                return call
        raise InvalidInput(f"the plan has no call named {name!r}")

    def to_json(self) -> JSON:
        """The JSON form: see the module."""
        calls: list[JSON] = [_call_to_json(call) for call in self.calls]
        return {"calls": calls} | ({} if self.answer is None else {"answer": origin_to_json(self.answer)})

    @classmethod
    def from_json(cls, value: Any) -> TaskPlan:
        """Read what `to_json` or a planner wrote. Raises `InvalidInput` saying what does not fit."""
        if not isinstance(value, dict) or not isinstance(value.get("calls"), list):
            raise InvalidInput("this is no plan", expected='`{"calls": [...]}`')
        calls = tuple(_call_from_json(call, place) for place, call in enumerate(value["calls"]))
        return cls(calls, origin_from_json(value["answer"]) if value.get("answer") is not None else None)


class Desk(ABC):
    """Where a run's plan is kept, and where its arguments are worked out.

    Behind it stands the gate: it alone fixes a plan, and computes what each argument is and carries.
    """

    @property
    @abstractmethod
    def plan(self) -> TaskPlan | None:
        """The run's plan, once it is fixed."""

    @abstractmethod
    async def fix(self, plan: TaskPlan, *, by_code: bool) -> None:
        """Make this the run's plan, which is executed `by_code`, or else by an agent that is held to it.

        Raises `ActionDenied` if there is a plan already, or the run has read what others wrote.
        """

    @abstractmethod
    async def calls(self, name: str) -> Sequence[tuple[str, Mapping[str, JSON]]]:
        """The ids and arguments of the calls that the plan has under `name`, read where they must be read.

        One, or with `each` as many as there are items. Raises `NotMade` if a condition keeps all of them from being
        made; `Unavailable`, `BadReply`.
        """

    @abstractmethod
    async def answer(self) -> str:
        """What the plan's answer comes to; empty without one. Raises `Unavailable`, `BadReply`."""


def _call_to_json(call: PlannedCall) -> JSON:
    arguments: dict[str, JSON] = {name: origin_to_json(origin) for name, origin in call.arguments.items()}
    told: dict[str, JSON] = {"name": call.name, "tool": call.tool, "arguments": arguments}
    told |= {} if call.each is None else {"each": origin_to_json(call.each)}
    told |= {} if call.when is None else {"when": when_to_json(call.when)}
    return told | ({"open": True} if call.open else {})


def _call_from_json(value: Any, place: int) -> PlannedCall:
    if not isinstance(value, dict) or not isinstance(value.get("tool"), str):
        raise InvalidInput(f"call {place} of the plan names no tool", expected='`{"tool": ..., "arguments": {...}}`')
    if unknown := value.keys() - {*_OF_A_CALL}:  # it might be a condition by another name
        raise InvalidInput(f"call {place} of the plan has {', '.join(sorted(unknown))}", expected=", ".join(_OF_A_CALL))
    arguments = value.get("arguments", {})
    if not isinstance(arguments, dict):
        raise InvalidInput(f"the arguments of call {place} of the plan are no object")
    origins = {name: origin_from_json(argument) for name, argument in arguments.items()}
    each = origin_from_json(value["each"]) if value.get("each") is not None else None
    when = when_from_json(value["when"]) if value.get("when") is not None else None
    name, is_open = str(value.get("name", place)), value.get("open") is True
    return PlannedCall(name, value["tool"], origins, open=is_open, each=each, when=when)


_OF_A_CALL: Final = ("name", "tool", "arguments", "each", "when", "open")


def _is_item(origin: Origin) -> bool:
    return any(isinstance(part, Item) for part in parts_of(origin))


def _check_steps(origins: Iterable[Origin], earlier: set[str]) -> None:
    named = {step for origin in origins for step in steps_of(origin)}
    if not named <= earlier:
        raise InvalidInput(f"the plan takes from {', '.join(sorted(named - earlier))}, which is no earlier call")


__all__ = ["Desk", "PlannedCall", "TaskPlan"]
