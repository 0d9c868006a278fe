"""What a run's plan lets it do: for each call whether the plan names it, and what each of its arguments carries.

The gate keeps the record. Nothing that a step or a model says of a value counts here: a value's label is that of the
result it was taken from, as the gate itself saw it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, cast

from ringwall.errors import Unavailable
from ringwall.interface.base import PreparedCall, Tool
from ringwall.interface.plan import Origin, PlannedCall, Result, TaskPlan, evaluate, readings_of, same
from ringwall.label import Label, Labelled, join
from ringwall.schema import JSON


class Causes(NamedTuple):
    """What could have made a call what it is: in all, and the choice of its recipients alone.

    `step` is the name that the plan has for the call; empty where no plan is asked.
    """

    label: Label
    recipients: Label
    step: str = ""


class PlanRecord:
    """A plan, which call of the run stands for which of its calls, and what those returned.

    A plan that is executed `by_code` has every value read at the desk; otherwise an agent may have read it for itself,
    and the value carries all that the agent had been shown.
    """

    __slots__ = ("by_code", "calls", "plan", "readings", "results")

    def __init__(self, plan: TaskPlan, *, by_code: bool = False) -> None:
        self.plan, self.by_code = plan, by_code
        self.calls: dict[str, str] = {}
        self.results: dict[str, Result] = {}
        self.readings: dict[str, Labelled[JSON]] = {}

    def causes(
        self, prepared: PreparedCall, words: Label, shown: Label, *, free: Callable[[str], bool], says: Says
    ) -> Causes | None:
        """What could have made this call what it is, if the plan names it; None if it does not.

        `words` is the label of the user's question, `shown` that of all that the model had been shown. `free` tells
        whether the call of this id was refused, so that its place in the plan is open again; `says` whether the
        question says a value, word for word.
        """
        for planned in self._candidates(prepared, free):
            if planned.open:
                return _summed(planned, prepared, _open_labels(prepared, words, shown, says), words)
            labels = self._labels(planned, prepared, words, shown)
            if labels is not None:
                return _summed(planned, prepared, labels, words)
        return None

    def _candidates(self, prepared: PreparedCall, free: Callable[[str], bool]) -> list[PlannedCall]:
        """The planned calls that this one could be: its own, then those not made yet, then those that were refused.

        Code makes each under its own name.
        """
        tool, call = prepared.tool.name, prepared.call.id
        of_tool = [planned for planned in self.plan.calls if planned.tool == tool]
        if self.by_code:
            return [planned for planned in of_tool if planned.name == call]
        holders = [(self.calls.get(planned.name), planned) for planned in of_tool]
        own = [planned for holder, planned in holders if holder == call]
        unmade = [planned for holder, planned in holders if holder is None]
        return own or unmade + [planned for holder, planned in holders if holder is not None and free(holder)]

    def value(self, origin: Origin, words: Label) -> Labelled[JSON]:
        """What an origin means now. Raises `Unavailable`."""
        return evaluate(origin, self.results, self.readings, words)

    def finish(self, step: str, result: Result) -> dict[str, JSON]:
        """Keep what the call of that name returned; the JSON of it is what `read` takes back."""
        self.results[step] = result
        fields: dict[str, JSON] = {name: cast(JSON, each.to_json()) for name, each in result.fields.items()}
        return {"step": step, "rest": cast(JSON, result.label.to_json()), "fields": fields}

    def read(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take in an event of the run, when it is picked up again."""
        if kind == "plan.read":
            self.readings[body["key"]] = Labelled(body["value"], Label.from_json(body["label"]))
        elif kind in ("call.asked", "call.started") and body.get("step"):
            self.calls[body["step"]] = body["call"]
        elif kind == "call.finished" and body.get("step"):
            fields = {name: Label.from_json(each) for name, each in body["fields"].items()}
            self.results[body["step"]] = Result(parsed(body["text"]), Label.from_json(body["rest"]), fields)

    def _labels(
        self, planned: PlannedCall, prepared: PreparedCall, words: Label, shown: Label
    ) -> dict[str, Label] | None:
        """What each argument carries and causes, if the call is the planned one; None otherwise.

        An agent may write content in other words than the plan's, but then what it was shown had a hand in it.
        """
        given = cast("Mapping[str, JSON]", prepared.call.parsed)
        bound = {*given, *planned.arguments} if self.by_code else prepared.tool.control_arguments
        labels: dict[str, Label] = {}
        for name in {*given, *planned.arguments}:
            origin, value = planned.arguments.get(name), given.get(name)
            label = self._origin_label(origin, value, words, shown)
            if label is None and name in bound:
                return None
            if name in prepared.tool.control_arguments:
                labels[name] = words if label is None else label
            elif label is not None or _is_read(origin):
                labels[name] = Label((label or shown).secrecy)
            else:
                labels[name] = shown
        return labels

    def _origin_label(self, origin: Origin | None, value: JSON, words: Label, shown: Label) -> Label | None:
        """What a value carries if it is the one that its origin means; None if it is another."""
        if origin is None:
            return words if value is None else None
        try:
            meant = self.value(origin, words)
        except Unavailable:
            # Nobody has read it at the desk: whoever made the call did, out of all that it was shown.
            return shown if not self.by_code and _is_read(origin) else None
        return meant.label if same(meant.value, value) else None


def _is_read(origin: Origin | None) -> bool:
    return origin is not None and next(readings_of(origin), None) is not None


Says = Callable[[JSON], bool]


def says(value: JSON, contains: Callable[[str], bool]) -> bool:
    """Whether a text says a value word for word, and not by chance.

    A letter or a short number stands in any text: "June 13" does not say "file 13".
    """
    if isinstance(value, list):
        return all(says(item, contains) for item in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    text = str(value)
    is_number = text.replace(".", "").isdecimal()
    return len(text) >= (_LONG_NUMBER if is_number else 2) and contains(text)


_LONG_NUMBER: Final = 4


def result_of(tool: Tool, text: str, call: Label, rest: Label) -> Result:
    """A tool's result: its fields with their labels and that of the call, since it decides what is returned."""
    return Result(parsed(text), rest, {name: each | call for name, each in tool.fields.items()})


def parsed(text: str) -> JSON:
    """A result as what it says: an object or a list if it is one in JSON, or else the text."""
    if text[:1] in ("{", "["):
        try:
            return cast(JSON, json.loads(text))
        except ValueError:
            return text
    return text


def _open_labels(prepared: PreparedCall, words: Label, shown: Label, says_it: Says) -> dict[str, Label]:
    """Without a plan for the arguments: control is the user's if she says it, content tells what it was made from."""
    control = prepared.tool.control_arguments
    given = [name for name, value in prepared.arguments.items() if value is not None]
    labels = {name: words if says_it(prepared.arguments[name]) else shown for name in given}
    return {name: label if name in control else Label(label.secrecy) for name, label in labels.items()}


def _summed(planned: PlannedCall, prepared: PreparedCall, labels: Mapping[str, Label], words: Label) -> Causes:
    chosen = [labels[name] for name in prepared.tool.recipients if name in labels]
    return Causes(join([words, *labels.values()]), join([words, *chosen]), planned.name)
