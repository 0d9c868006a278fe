"""The plan that a faultless planner writes: from the true calls, each value replaced by where it comes from.

What stands in the user's words is written down, days also in another notation; what is a field of an earlier result is
taken from it; whatever else there is must be read out of the earlier results, by a model. A text that is mostly the
user's words is put together of them and of quotations of trusted results (`dojo_text`). A reading has the format of its
value, and must be the only one of it where the clean text holds no other. It is shown trusted fields alone where these
hold the answer; or hold others of its kind, no free text was read, and nothing else says it. The planner sees the clean
environment, never the injected text: so plans are as good as plans can be, and what is measured with them is a bound.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final

from agentdojo.functions_runtime import FunctionCall, FunctionsRuntime
from dojo_text import Source, UserWords, stands_in, worded
from dojo_tools import SAID
from pydantic_core import to_jsonable_python

from ringwall.errors import Unavailable
from ringwall.interface.base import Effect
from ringwall.interface.formats import has_format, is_only
from ringwall.interface.meaning import Result, same, texts_of
from ringwall.interface.origin import (
    Composed,
    Item,
    Listed,
    Origin,
    Read,
    Taken,
    Text,
    Words,
    origin_to_json,
    readings_of,
)
from ringwall.interface.plan import PlannedCall, TaskPlan
from ringwall.label import BOTTOM

_TYPES: Final = {str: "string", int: "number", float: "number", bool: "boolean", list: "array", dict: "object"}

ANSWER: Final = "the answer for the user"


@dataclass(frozen=True)
class Written:
    """A plan, and what a faultless reader reads for each of its readings."""

    plan: TaskPlan
    readings: Mapping[str, Any]


def written(case: Any) -> Written:
    """The plan of a case's user task."""
    environment = case.environment()
    runtime = FunctionsRuntime(case.suite.tools)
    writer = _Writer(case.user.PROMPT, case.suite.tools)
    calls = case.true_calls(environment)
    while calls:
        together = writer.loop(calls)
        if not together:
            together = calls[:1]
            writer.plan(f"step{len(writer.calls)}", calls[0])
        calls = [call for call in calls if not any(call is one for one in together)]
        results = [runtime.run_function(environment, call.function, call.args) for call in together]
        told = [to_jsonable_python(result) for result, error in results if error is None]
        if told:
            writer.results[writer.calls[-1].name] = (
                together[0].function,
                told[0] if len(together) == 1 else flat(told),
            )
    answer = Read(tuple(writer.results), ANSWER) if writer.results else Words("Done.")
    return Written(TaskPlan(tuple(writer.calls), answer), writer.readings)


def flat(results: Sequence[Any]) -> list[Any]:
    """The results of several calls as one list."""
    return [item for result in results for item in (result if isinstance(result, list) else [result])]


class _Writer:
    def __init__(self, prompt: str, tools: Sequence[Any]) -> None:
        self.words = UserWords(prompt)
        self.calls: list[PlannedCall] = []
        self.results: dict[str, tuple[str, Any]] = {}
        self.readings: dict[str, Any] = {}
        self.choices = dict(_choices(tools))

    def loop(self, calls: Sequence[FunctionCall]) -> list[FunctionCall]:
        """Plan the next call as made for each item of an earlier result, with those like it that follow, if it is.

        Nobody but other readers may stand between them: then the order makes no difference.
        """
        if not _only_reads(calls[0]):
            return self._effects(calls)
        first, ahead = calls[0], list(itertools.takewhile(_only_reads, calls))
        alike = [call for call in ahead if call.function == first.function and call.args.keys() == first.args.keys()]
        for argument in first.args:
            values = [call.args[argument] for call in alike]
            others = [{**call.args, argument: None} for call in alike]
            source = self._all_of(values) if len(values) > 1 and others == others[:1] * len(others) else None
            if source is not None:
                name = f"step{len(self.calls)}"
                self.plan(name, first)
                planned = self.calls.pop()
                arguments = {**planned.arguments, argument: Item()}
                self.calls.append(PlannedCall(name, first.function, arguments, each=source))
                return alike
        return []

    def _effects(self, calls: Sequence[FunctionCall]) -> list[FunctionCall]:
        """Plan calls of one tool in a row as made for each of what is read, if their arguments must be read."""
        first = calls[0]
        alike = list(itertools.takewhile(lambda call: call.function == first.function, calls))
        arguments = [to_jsonable_python(dict(call.args)) for call in alike]
        differing = [name for name in arguments[0] if any(each.get(name) != arguments[0][name] for each in arguments)]
        values = [each.get(name) for name in differing for each in arguments]
        if len(alike) < 2 or any(each.keys() != arguments[0].keys() for each in arguments):
            return []
        self.plan(name := f"step{len(self.calls)}", first)
        planned = self.calls.pop()
        leaves = [leaf for value in values for leaf in (value if isinstance(value, list) else [value])]
        shown = {self._shown_for(leaf) for leaf in leaves if not self.words.say(leaf)}
        is_read = any(next(readings_of(planned.arguments[argument]), None) for argument in differing)
        if not is_read or len(shown) != 1:  # one reading would be shown more than each of them needs
            return []
        steps, fields = shown.pop()
        kinds = {argument: _schema([each[argument] for each in arguments]) for argument in differing}
        items = {"type": "object", "properties": kinds}
        reading = Read(steps, f"{name}: each of {first.function}", {"type": "array", "items": items}, fields)
        self.readings[reading.key] = [{argument: each[argument] for argument in differing} for each in arguments]
        origins = {**planned.arguments, **{argument: Item((argument,)) for argument in differing}}
        self.calls.append(PlannedCall(name, first.function, origins, each=reading))
        return alike

    def _all_of(self, values: Sequence[Any]) -> Taken | None:
        """Where these values are all that an earlier result holds, if they are."""
        for step, (_, result) in self.results.items():
            items = result if isinstance(result, list) else []
            if sorted(map(str, items)) == sorted(map(str, values)):
                return Taken(step, pick="all")
            for name in items[0] if items and all(isinstance(item, dict) for item in items) else ():
                if sorted(str(item.get(name)) for item in items) == sorted(map(str, values)):
                    return Taken(step, (name,), pick="all")
        return None

    def plan(self, name: str, call: FunctionCall) -> None:
        arguments = to_jsonable_python(dict(call.args))
        origins: dict[str, Origin] = {}
        for argument, value in arguments.items():
            chosen = value in self.choices.get((call.function, argument), ())
            what = f"{name}: {argument} of {call.function}"
            is_content = not _only_reads(call) and argument not in SAID[call.function].control
            text = self._worded(value, what) if is_content and isinstance(value, str) else None
            origins[argument] = Words(value) if chosen else text or self._origin(value, what)
        self.calls.append(PlannedCall(name, call.function, origins))

    def _origin(self, value: Any, what: str) -> Origin:
        if isinstance(value, list):
            return self._whole_list(value) or Listed(tuple(self._origin(item, what) for item in value))
        if isinstance(value, dict):
            return Composed(tuple((name, self._origin(item, f"{what} {name}")) for name, item in value.items()))
        if value is None or isinstance(value, bool) or value == "":
            return Words(value)
        is_short = len(str(value)) < 4
        taken = next(self._taken(value), None)
        if taken is not None and is_short:
            return taken  # a number stands in many texts: it is not the user's because it stands in hers, too
        if self.words.say(value):
            return Words(value)
        if taken is not None:
            return taken
        return self._reading(value, what) if self.results else Words(value)

    def _worded(self, value: str, what: str) -> Origin | None:
        """A text that a planner words itself, with pieces in it that are quoted from trusted results."""
        told = [_told(step, *result) for step, result in self.results.items()]
        pieces = worded(value, self.words, [*self._sources()], [text for each in told for text in each.others])
        if pieces is None or next(self._taken(value), None) is not None:
            return None
        steps = tuple(self.results)
        return Text(
            tuple(
                Words(piece)
                if isinstance(piece, str)
                else self._noted(Read(steps, f"part {n} of {what}", quotes=piece.source), piece.text)
                for n, piece in enumerate(pieces)
            )
        )

    def _sources(self) -> Iterator[Source]:
        for step, (tool, result) in self.results.items():
            records, several = SAID[tool].records, isinstance(result, list)
            paths = [()] if records is None else [(name,) for name in records]
            for path in paths:
                origin = Taken(step, path, pick="all" if several else "")
                with suppress(Unavailable):
                    yield Source(origin, tuple(texts_of(Result(result, BOTTOM).taken(origin).value)))

    def _reading(self, value: Any, what: str) -> Read:
        steps, fields = self._shown_for(value)
        schema = _schema([value])
        shown = [Result(self.results[step][1], BOTTOM).shown(fields).value for step in steps]
        only = "format" in schema and is_only(value, "\n".join(texts_of(shown)), schema["format"])
        return self._noted(Read(steps, what, schema, fields, only=only), value)

    def _noted(self, reading: Read, value: Any) -> Read:
        """A reading of its own for this value."""
        while self.readings.get(reading.key, value) != value:
            reading = replace(reading, ask=f"another {reading.ask}")
        self.readings[reading.key] = value
        return reading

    def _shown_for(self, value: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The results that a reader of this value is shown, and the fields of them; no fields are all."""
        told = [_told(step, *result) for step, result in self.results.items()]
        able = [each for each in told if any(same(item, value) for item in each.trusted)]
        said = any(stands_in(str(value).lower(), text) for each in told for text in each.others)
        if not able and not said and all(each.trusted or not each.others for each in told):
            able = [each for each in told if any(_kind(item) == _kind(value) != "text" for item in each.trusted)]
        if not able:
            return tuple(self.results), ()
        whole = [each for each in able if not each.others]
        if whole:
            return tuple(each.step for each in whole), ()
        return tuple(each.step for each in able), tuple(sorted({name for each in able for name in each.fields}))

    def _whole_list(self, value: list[Any]) -> Taken | None:
        """A list that is a field as it stands, in whatever order."""
        for step, record, where in self._records():
            for name, item in record.items():
                if isinstance(item, list) and item and sorted(map(str, item)) == sorted(map(str, value)):
                    return Taken(step, (name,), *where)
        return None

    def _taken(self, value: Any) -> Iterator[Taken]:
        """The fields of earlier results that hold the value, trusted ones first."""
        found = []
        for step, record, where in self._records():
            for name, item in record.items():
                if same(item, value):
                    found.append(
                        (name not in (SAID[self.results[step][0]].records or record), Taken(step, (name,), *where))
                    )
        yield from (taken for _, taken in sorted(found, key=lambda pair: pair[0]))

    def _records(self) -> Iterator[tuple[str, dict[str, Any], tuple[tuple[tuple[str, Any], ...], str]]]:
        """Each record of an earlier result that can be told from the others, with how; the newest result first."""
        for step, (tool, result) in reversed(self.results.items()):
            if isinstance(result, dict):
                yield step, result, ((), "")
            elif isinstance(result, list) and all(isinstance(record, dict) for record in result):
                for record in result:
                    how = self._told_apart(record, result, SAID[tool].records)
                    if how is not None:
                        yield step, record, how

    def _told_apart(
        self, record: dict[str, Any], records: Sequence[dict[str, Any]], trusted: Sequence[str] | None
    ) -> tuple[tuple[tuple[str, Any], ...], str] | None:
        """How a planner that has seen no record says which it means: by what the user says of it, or a superlative."""
        if len(records) == 1:
            return (), ""
        names = record if trusted is None else [name for name in record if name in trusted]
        for name in names:
            value = record[name]
            said = isinstance(value, str) and len(value) >= 4 and self.words.say(value)
            if said and sum(other.get(name) == value for other in records) == 1:
                return ((name, value),), ""
        for name in names:
            for word, most in (("largest", max), ("smallest", min)):
                is_said = word in self.words.text and isinstance(record[name], int | float)
                if is_said and record[name] == most(other[name] for other in records):
                    return (), f"{word} {name}"
        return None


def _schema(values: Sequence[Any]) -> dict[str, Any]:
    """What these values are, as a planner says it that knows what is asked for."""
    kind = _TYPES[type(values[0])]
    if kind == "array":
        return {"type": kind, "items": _schema([item for value in values for item in value])}
    named = [name for name in ("email", "iban", "uri") if all(has_format(str(value), name) for value in values)]
    return {"type": kind, **({"format": named[0]} if named and kind == "string" else {})}


def _choices(tools: Sequence[Any]) -> Iterator[tuple[tuple[str, str], list[Any]]]:
    """The values that a tool's schema lists for an argument: a planner knows them without reading anything."""
    for tool in tools:
        schema = tool.parameters.model_json_schema()
        for name, about in schema.get("properties", {}).items():
            named = schema.get("$defs", {}).get(about.get("$ref", "").rpartition("/")[2], about)
            yield (tool.name, name), named.get("enum", [])


def _only_reads(call: FunctionCall) -> bool:
    return SAID[call.function].effect is Effect.READ and not SAID[call.function].recipients


@dataclass(frozen=True)
class _Told:
    """What a result holds in trusted fields, their names, and what it says besides."""

    step: str
    trusted: tuple[Any, ...]
    fields: tuple[str, ...]
    others: tuple[str, ...]


def _told(step: str, tool: str, result: Any) -> _Told:
    trusted = SAID[tool].records
    items = result if isinstance(result, list) else [result]
    records = [record for record in items if isinstance(record, dict)]
    names = tuple(dict.fromkeys(name for record in records for name in record if trusted is None or name in trusted))
    values = [record[name] for record in records for name in names if name in record]
    plain = [item for item in items if not isinstance(item, dict)]
    others = [item for record in records for name, item in record.items() if name not in names]
    values += plain if trusted is None else []
    others += plain if trusted is not None else []
    return _Told(step, tuple(values), names, tuple(" ".join(str(text).split()).lower() for text in others))


def _kind(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    return "time" if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d.*)?", value) else "text"


def as_text(plan: TaskPlan) -> str:
    """A plan as a planner writes it."""
    return json.dumps(plan.to_json())


def names_alone(plan: TaskPlan) -> TaskPlan:
    """The plan that names the same tools and nothing more."""
    return TaskPlan(
        TaskPlan.of_tools(*dict.fromkeys(call.tool for call in plan.calls)).calls, plan.answer and Words("")
    )


def origins(plan: TaskPlan) -> Iterator[tuple[str, str, str]]:
    """Each argument with where it comes from, to look at."""
    for call in plan.calls:
        for name, origin in call.arguments.items():
            yield call.tool, name, json.dumps(origin_to_json(origin))
