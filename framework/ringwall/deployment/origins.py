"""What a run's plan lets it do: for each call whether the plan names it, and what each of its arguments carries.

The gate keeps the record. Nothing that a step or a model says of a value counts here: a value's label is that of the
result it was taken from, as the gate itself saw it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from ringwall.deployment.branching import Branching
from ringwall.deployment.disarm import DISARM
from ringwall.deployment.results import parsed, together
from ringwall.errors import Unavailable
from ringwall.interface.base import PreparedCall, Tool
from ringwall.interface.branches import items_of
from ringwall.interface.conditions import origins_of
from ringwall.interface.meaning import Result, Values, evaluate, same, texts_of
from ringwall.interface.origin import Item, Origin, Read, Taken, Words, parts_of, readings_of, steps_of
from ringwall.interface.plan import PlannedCall, TaskPlan
from ringwall.label import BOTTOM, Label, Labelled, join
from ringwall.schema import JSON


class Causes(NamedTuple):
    """What could have made a call what it is: in all, and the choice of its recipients alone.

    `step` is the name that the plan has for the call; empty where no plan is asked; `key` is its own among those made
    for each of several items. `choice` is what decided which result it has, `arguments` what each of them carries.
    """

    label: Label
    recipients: Label
    step: str = ""
    key: str = ""
    choice: Label | None = None
    arguments: Mapping[str, Label] = MappingProxyType({})

    def under(self, condition: Label) -> Causes:
        """The same for a call that is made only if a condition holds: what that was read from is a cause of all."""
        choice = None if self.choice is None else self.choice | condition
        label, recipients = self.label | condition, self.recipients | condition
        arguments = {**self.arguments, CONDITION: condition}
        return self._replace(label=label, recipients=recipients, choice=choice, arguments=arguments)

    def suspected(self, by: Label) -> Causes:
        """The same for a call whose arguments a guard suspects: it could have had a hand in all of them."""
        arguments = {name: label | by for name, label in self.arguments.items()}
        return self._replace(label=self.label | by, recipients=self.recipients | by, arguments=arguments)


CONDITION: Final = "$when"
"""Where the causes of a call tell of its condition, among its arguments."""


class PlanRecord:
    """A plan, which call of the run stands for which of its calls, and what those returned.

    A plan that is executed `by_code` has every value read at the desk; otherwise an agent may have read it for itself,
    and the value carries all that the agent had been shown. `passed` names the calls of which it was written down that
    a condition keeps them from being made.
    """

    __slots__ = ("_branching", "_parts", "by_code", "calls", "known", "passed", "plan", "readings", "results")

    def __init__(self, plan: TaskPlan, *, by_code: bool = False) -> None:
        self.plan, self.by_code = plan, by_code
        self.calls: dict[str, str] = {}
        self.results: dict[str, Result] = {}
        self.known: dict[str, Causes] = {}
        self._parts: dict[str, list[Result]] = {}
        self.readings: dict[str, Labelled[JSON]] = {}
        self.passed: set[str] = set()
        self._branching = Branching(plan, whole=not by_code)

    def causes(
        self, prepared: PreparedCall, words: Label, shown: Label, *, free: Callable[[str], bool], says: Says
    ) -> Causes | None:
        """What could have made this call what it is, if the plan names it; None if it does not.

        `words` is the label of the user's question, `shown` that of all that the model had been shown. `free` tells
        whether the call of this id was refused, so that its place in the plan is open again; `says` whether the
        question says a value, word for word.
        """
        now = self.values(words)
        for planned, key, item in self._candidates(prepared, words, free):
            known = replace(now, item=item)
            causes = None
            if planned.open:
                causes = _summed(planned, prepared, _open_labels(prepared, words, shown, says), words)
            elif (labels := self._labels(planned, prepared, known, shown)) is not None:
                causes = _summed(planned, prepared, labels, words)._replace(key=key)
                causes = causes if item is None else self._for_each(causes, planned, prepared, known, shown)
            label = None if causes is None else self._branching.condition(planned, known)
            if causes is not None and label is not None:
                return causes if planned.when is None else causes.under(label)
        return None

    def assign(self, causes: Causes, call: str) -> bool:
        """Let a call stand for the planned one; whether that is new."""
        self.known[call] = causes
        if not causes.key or self.calls.get(causes.key) == call:
            return False
        self.calls[causes.key] = call
        return True

    def _candidates(
        self, prepared: PreparedCall, words: Label, free: Callable[[str], bool]
    ) -> list[tuple[PlannedCall, str, Result | None]]:
        """The planned calls that this one could be, each with its key and the item that it is made for.

        First its own, then those not made yet, then those that were refused. Code makes each under its own key.
        """
        tool, call = prepared.tool.name, prepared.call.id
        of_tool = [one for planned in self.plan.calls if planned.tool == tool for one in self.unrolled(planned, words)]
        if self.by_code:
            return [one for one in of_tool if one[1] == call]
        own = [one for one in of_tool if self.calls.get(one[1]) == call]
        unmade = [one for one in of_tool if one[1] not in self.calls]
        return own or unmade + [one for one in of_tool if one[1] in self.calls and free(self.calls[one[1]])]

    def unrolled(self, planned: PlannedCall, words: Label) -> list[tuple[PlannedCall, str, Result | None]]:
        """The calls that a planned one stands for: itself, or one for each item there is now."""
        if planned.each is None:
            return [(planned, planned.name, None)]
        try:
            items = items_of(planned, self.values(words))
        except Unavailable:
            return []
        return [(planned, f"{planned.name}.{n}", item) for n, item in enumerate(items)]

    def unread(self, prepared: PreparedCall) -> list[Read]:
        """What the desk must read before it is known whether the plan names a call: all but free text."""
        if self.by_code:
            return []
        alike = [planned for planned in self.plan.calls if planned.tool == prepared.tool.name and not planned.open]
        origins = [
            origin for planned in alike for name, origin in planned.arguments.items() if _binds(prepared, name, origin)
        ]
        origins += [planned.each for planned in alike if planned.each is not None]
        whens = [planned.when for planned in self.plan.calls if planned.tool == prepared.tool.name]
        origins += [origin for when in whens for origin in origins_of(when)]
        needed = [reading for origin in origins for reading in readings_of(origin)]
        known = self.values(BOTTOM)  # which there are, whatever they carry
        there = known.results.keys() | known.not_made.keys()
        return [read for read in needed if read.key not in self.readings and there >= set(steps_of(read))]

    def conditions(self, tool: str) -> str:
        """When the plan names a tool, as the plan itself tells it; empty if it names none of its calls so."""
        return "; when ".join(str(call.when) for call in self.plan.calls if call.tool == tool and call.when is not None)

    def meant(self, prepared: PreparedCall, words: Label) -> list[JSON]:
        """What the plan has for the calls of this tool that are not made yet: all arguments but free text."""
        found: list[JSON] = []
        now = self.values(words)
        for planned, key, item in self._candidates(prepared, words, lambda _: False):
            named = {name: origin for name, origin in planned.arguments.items() if _binds(prepared, name, origin)}
            known = replace(now, item=item)
            with suppress(Unavailable):
                if key not in self.calls and named and self._branching.condition(planned, known) is not None:
                    found.append(_values(named, prepared.tool, known))
        return found

    def _for_each(
        self, causes: Causes, planned: PlannedCall, prepared: PreparedCall, known: Values, shown: Label
    ) -> Causes:
        """What is done for all items is chosen by what they were chosen by, and by nothing that they say."""
        assert known.item is not None
        each, label = planned.each, known.item.label
        if isinstance(each, Taken) and each.pick == "all":
            label = known.results[each.step].choice(each) | known.words
        blind = replace(known, item=Result(known.item.value, label))
        labels = self._labels(planned, prepared, blind, shown) or {}
        return causes._replace(choice=join([label, *labels.values()]))

    def each_of(self, call: str) -> str:
        """The planned call that this one stands for with others, one for each of several items; empty if none."""
        key = next((key for key, made in self.calls.items() if made == call), "")
        step = key.rpartition(".")[0]
        return step if any(planned.name == step and planned.each for planned in self.plan.calls) else ""

    def values(self, words: Label, item: Result | None = None) -> Values:
        """What origins are worked out from now.

        An agent that could choose which of the calls for several items it makes could choose what comes of them: from
        the list of their results nothing is taken until it is complete.
        """
        known = Values(self.results, self.readings, words, item)
        return self._branching.values(known, self._parts)

    def value(self, origin: Origin, words: Label, item: Result | None = None) -> Labelled[JSON]:
        """What an origin means now. Raises `Unavailable`."""
        return evaluate(origin, self.values(words, item))

    def arguments(self, planned: PlannedCall, tool: Tool, words: Label, item: Result | None = None) -> dict[str, JSON]:
        """The arguments of a planned call as things stand. Raises `Unavailable`."""
        return _values(planned.arguments, tool, self.values(words, item))

    def finish(self, step: str, result: Result) -> dict[str, JSON]:
        """Keep what the call of that name returned; the JSON of it is what `read` takes back."""
        self._keep(step, result)
        fields: dict[str, JSON] = {name: cast(JSON, each.to_json()) for name, each in result.fields.items()}
        rest, lookup = cast(JSON, result.label.to_json()), cast(JSON, result.lookup.to_json())
        return {"step": step, "rest": rest, "fields": fields, "lookup": lookup}

    def read(self, kind: str, body: Mapping[str, Any]) -> None:
        """Take in an event of the run, when it is picked up again."""
        if kind == "plan.read":
            self.readings[body["key"]] = Labelled(body["value"], Label.from_json(body["label"]))
        elif kind == "plan.skipped":
            self.passed.add(body["step"])
        elif kind == "plan.called":
            self.calls[body["key"]] = body["call"]
        elif kind == "call.finished" and body.get("step"):
            fields = {name: Label.from_json(each) for name, each in body["fields"].items()}
            rest, lookup = Label.from_json(body["rest"]), Label.from_json(body["lookup"])
            self._keep(body["step"], Result(parsed(body["text"]), rest, fields, lookup))

    def _keep(self, step: str, result: Result) -> None:
        self.results[step] = result
        if self.plan.call(step).each is not None:
            self._parts.setdefault(step, []).append(result)
            self.results[step] = together(self._parts[step])

    def _labels(
        self, planned: PlannedCall, prepared: PreparedCall, known: Values, shown: Label
    ) -> dict[str, Label] | None:
        """What each argument carries and causes, if the call is the planned one; None otherwise.

        Where the plan has free text read, an agent may have read it itself, and then what it was shown had a hand in
        it. But an address in what somebody is sent asks the receiver to follow it: it counts as control, and the agent
        has none of its own to give.
        """
        tool, given = prepared.tool, cast("Mapping[str, JSON]", prepared.call.parsed)
        labels: dict[str, Label] = {}
        for name in {*given, *planned.arguments}:
            origin, value = planned.arguments.get(name), given.get(name)
            label = _origin_label(origin, value, _as_sent(tool, name, known))
            asks = tool.recipients and _addresses(value)
            if label is None:
                if self.by_code or _binds(prepared, name, origin) or (asks and not asks <= _said_by(origin)):
                    return None
                label = shown
            labels[name] = label if asks or name in tool.control_arguments else Label(label.secrecy)
        return labels


def _values(origins: Mapping[str, Origin], tool: Tool, known: Values) -> dict[str, JSON]:
    """The values of arguments, just as a call must have them. Raises `Unavailable`."""
    return {name: evaluate(origin, _as_sent(tool, name, known)).value for name, origin in origins.items()}


def _as_sent(tool: Tool, argument: str, known: Values) -> Values:
    """For an argument: what others wrote is inert in what somebody is sent."""
    is_sent = tool.recipients and argument not in tool.control_arguments
    return replace(known, inert=DISARM.disarmed) if is_sent else known


def _origin_label(origin: Origin | None, value: JSON, known: Values) -> Label | None:
    """What a value carries if it is the one that its origin means; None if it is another."""
    if origin is None:
        return known.words if value is None else None
    try:
        meant = evaluate(origin, known)
    except Unavailable:
        return None
    return meant.label if same(meant.value, value) else None


_ADDRESS: Final = re.compile(r"(?:https?:|www\.)\S*", re.IGNORECASE)


def _addresses(value: JSON) -> frozenset[str]:
    return frozenset(found.rstrip(".,;:!?)") for text in texts_of(value) for found in _ADDRESS.findall(text))


def _said_by(origin: Origin | None) -> frozenset[str]:
    """The addresses that the planner wrote down from the user's words."""
    return frozenset() if origin is None else _addresses([w.value for w in parts_of(origin) if isinstance(w, Words)])


def _binds(prepared: PreparedCall, argument: str, origin: Origin | None) -> bool:
    """Whether an argument must be what the plan means: whatever causes something, and all but free text."""
    if origin is None or argument in prepared.tool.control_arguments:
        return True
    return not any(isinstance(part, Item) or (isinstance(part, Read) and part.is_free) for part in parts_of(origin))


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


def contains_value(text: str, value: str) -> bool:
    """Whether `value` stands in `text` word for word: not as a part of a longer word or number."""
    return bool(value) and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def _open_labels(prepared: PreparedCall, words: Label, shown: Label, says_it: Says) -> dict[str, Label]:
    """Without a plan for the arguments: control is the user's if she says it, content tells what it was made from."""
    control = prepared.tool.control_arguments
    given = [name for name, value in prepared.arguments.items() if value is not None]
    labels = {name: words if says_it(prepared.arguments[name]) else shown for name in given}
    return {name: label if name in control else Label(label.secrecy) for name, label in labels.items()}


def _summed(planned: PlannedCall, prepared: PreparedCall, labels: Mapping[str, Label], words: Label) -> Causes:
    chosen = [labels[name] for name in prepared.tool.recipients if name in labels]
    return Causes(join([words, *labels.values()]), join([words, *chosen]), planned.name, arguments=labels)
