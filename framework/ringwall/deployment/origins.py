"""What a run's plan lets it do: for each call whether the plan names it, and what each of its arguments carries.

The gate keeps the record. Nothing that a step or a model says of a value counts here: a value's label is that of the
result it was taken from, as the gate itself saw it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from ringwall.errors import Unavailable
from ringwall.interface.base import PreparedCall, Tool
from ringwall.interface.meaning import Result, Values, evaluate, same
from ringwall.interface.plan import Composed, Item, Listed, Origin, PlannedCall, Read, Taken, TaskPlan
from ringwall.label import Label, Labelled, join
from ringwall.principal import ACL, Principal
from ringwall.schema import JSON, dumps


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


class PlanRecord:
    """A plan, which call of the run stands for which of its calls, and what those returned.

    A plan that is executed `by_code` has every value read at the desk; otherwise an agent may have read it for itself,
    and the value carries all that the agent had been shown.
    """

    __slots__ = ("_parts", "by_code", "calls", "known", "plan", "readings", "results")

    def __init__(self, plan: TaskPlan, *, by_code: bool = False) -> None:
        self.plan, self.by_code = plan, by_code
        self.calls: dict[str, str] = {}
        self.results: dict[str, Result] = {}
        self.known: dict[str, Causes] = {}
        self._parts: dict[str, list[Result]] = {}
        self.readings: dict[str, Labelled[JSON]] = {}

    def causes(
        self, prepared: PreparedCall, words: Label, shown: Label, *, free: Callable[[str], bool], says: Says
    ) -> Causes | None:
        """What could have made this call what it is, if the plan names it; None if it does not.

        `words` is the label of the user's question, `shown` that of all that the model had been shown. `free` tells
        whether the call of this id was refused, so that its place in the plan is open again; `says` whether the
        question says a value, word for word.
        """
        for planned, key, item in self._candidates(prepared, words, free):
            if planned.open:
                return _summed(planned, prepared, _open_labels(prepared, words, shown, says), words)
            known = Values(self.results, self.readings, words, item)
            labels = self._labels(planned, prepared, known, shown)
            if labels is not None:
                causes = _summed(planned, prepared, labels, words)._replace(key=key)
                return causes if item is None else self._for_each(causes, planned, prepared, known, shown)
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
    ) -> list[tuple[PlannedCall, str, Labelled[JSON] | None]]:
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

    def unrolled(self, planned: PlannedCall, words: Label) -> list[tuple[PlannedCall, str, Labelled[JSON] | None]]:
        """The calls that a planned one stands for: itself, or one for each item there is now."""
        if planned.each is None:
            return [(planned, planned.name, None)]
        try:
            items = self.value(planned.each, words)
        except Unavailable:
            return self._unread(planned)
        values = items.value if isinstance(items.value, list) else [items.value]
        return [(planned, f"{planned.name}.{n}", Labelled(item, items.label)) for n, item in enumerate(values)]

    def _unread(self, planned: PlannedCall) -> list[tuple[PlannedCall, str, Labelled[JSON] | None]]:
        """The calls so far, and one more, where an agent reads for itself for which items they are made."""
        if self.by_code or not _is_read(planned.each):
            return []
        made = sum(key.startswith(f"{planned.name}.") for key in self.calls)
        return [(planned, f"{planned.name}.{n}", None) for n in range(made + 1)]

    def _for_each(
        self, causes: Causes, planned: PlannedCall, prepared: PreparedCall, known: Values, shown: Label
    ) -> Causes:
        """What is done for all items is chosen by what they were chosen by, and by nothing that they say."""
        assert known.item is not None
        each, label = planned.each, known.item.label
        if isinstance(each, Taken) and each.pick == "all":
            label = self.results[each.step].choice(each) | known.words
        blind = replace(known, item=Labelled(known.item.value, label))
        labels = self._labels(planned, prepared, blind, shown) or {}
        return causes._replace(choice=join([label, *labels.values()]))

    def value(self, origin: Origin, words: Label, item: Labelled[JSON] | None = None) -> Labelled[JSON]:
        """What an origin means now. Raises `Unavailable`."""
        return evaluate(origin, Values(self.results, self.readings, words, item))

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

        An agent may write content in other words than the plan's, but then what it was shown had a hand in it. And an
        address in what somebody is sent asks the receiver to follow it: it counts as control.
        """
        given = cast("Mapping[str, JSON]", prepared.call.parsed)
        bound = {*given, *planned.arguments} if self.by_code else prepared.tool.control_arguments
        labels: dict[str, Label] = {}
        for name in {*given, *planned.arguments}:
            origin, value = planned.arguments.get(name), given.get(name)
            label = self._origin_label(origin, value, known, shown)
            if label is None and name in bound:
                return None
            if name in prepared.tool.control_arguments:
                labels[name] = known.words if label is None else label
            elif prepared.tool.recipients and _has_address(value):
                labels[name] = label or shown
            elif label is not None or _is_read(origin):
                labels[name] = Label((label or shown).secrecy)
            else:
                labels[name] = shown
        return labels

    def _origin_label(self, origin: Origin | None, value: JSON, known: Values, shown: Label) -> Label | None:
        """What a value carries if it is the one that its origin means; None if it is another."""
        if origin is None:
            return known.words if value is None else None
        try:
            meant = evaluate(origin, known)
        except Unavailable:
            # Nobody has read it at the desk: whoever made the call did, out of all that it was shown.
            return shown if not self.by_code and _is_read(origin) else None
        return meant.label if same(meant.value, value) else None


_ADDRESS: Final = re.compile(r"https?:|www\.", re.IGNORECASE)


def _has_address(value: JSON) -> bool:
    return _ADDRESS.search(dumps(value)) is not None


def _is_read(origin: Origin | None) -> bool:
    """Whether something must be read for a value: by whoever makes the call, or for the items it is made for."""
    match origin:
        case Read() | Item():
            return True
        case Listed(items):
            return any(map(_is_read, items))
        case Composed(members):
            return any(_is_read(member) for _, member in members)
    return False


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


def result_label(tool: Tool, asker: Principal, call: Label) -> Label:
    """What a whole result carries: what the call carried, and what the tool says of itself."""
    own = Label.of(ACL((asker.own_grant,)), f"tool:{tool.name}")
    return call | (own if tool.label is None else tool.label)


def result_of(tool: Tool, text: str, call: Label, rest: Label) -> Result:
    """A tool's result: its fields with their labels and that of the call, since it decides what is returned."""
    return Result(parsed(text), rest, {name: each | call for name, each in tool.fields.items()}, call)


def together(results: Sequence[Result]) -> Result:
    """The results of several calls as one list; each field carries what any of them has it carry."""
    values: list[JSON] = []
    for each in results:
        values += each.value if isinstance(each.value, list) else [each.value]
    fields = {name: join([each.fields[name] for each in results]) for name in results[0].fields}
    return Result(values, join([each.label for each in results]), fields, join([each.lookup for each in results]))


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
    return Causes(join([words, *labels.values()]), join([words, *chosen]), planned.name, arguments=labels)
