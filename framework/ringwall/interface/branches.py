"""Which calls of a plan are made, as far as its results tell: for which items, and by which conditions.

That a call is made at all tells what its condition was read from, and so does that it is not made: each decision has
the label of all that could have changed it. Nothing here asks or changes anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from ringwall.errors import Unavailable
from ringwall.interface.conditions import Compared, When, compare, holds
from ringwall.interface.meaning import Result, Values, evaluate, same
from ringwall.interface.origin import Origin, Read, Taken, parts_of, steps_of
from ringwall.interface.plan import PlannedCall, TaskPlan
from ringwall.label import BOTTOM, Label, Labelled, join


def items_of(planned: PlannedCall, known: Values) -> list[Result | None]:
    """What a call is made for: None if it is made once, else each item. Raises `Unavailable`.

    Records come with the labels of their fields. Which of all records there are counts for nothing here, as for whoever
    takes a field of all of them.
    """
    each = planned.each
    if each is None:
        return [None]
    found = evaluate(each, known)
    values = found.value if isinstance(found.value, list) else [found.value]
    if not isinstance(each, Taken) or each.pick != "all" or each.path:
        return [Result(value, found.label) for value in values]
    source = known.results[each.step]
    choice = source.choice(each) | known.words
    fields = {name: label | choice for name, label in source.fields.items()}
    return [Result(value, source.label | choice, fields) for value in values]


def is_met(when: When, known: Values) -> Labelled[bool]:
    """Whether a condition holds, and the label of everything that it was read from. Raises `Unavailable`."""

    def decide(compared: Compared) -> Labelled[bool]:
        left, right = evaluate(compared.left, known), evaluate(compared.right, known)
        value = compare(left.value, compared.operator, right.value, same)
        parts = (*parts_of(compared.left), *parts_of(compared.right))
        return Labelled(value, join([left.label, right.label, *[_existence(part, known) for part in parts]]))

    return holds(when, decide)


def met(planned: PlannedCall, known: Values) -> list[Labelled[bool]]:
    """For each item of a call with a condition, whether it holds, and what it was read from. Raises `Unavailable`."""
    when = planned.when
    return [is_met(when, replace(known, item=item)) for item in items_of(planned, known)] if when is not None else []


def branches(
    plan: TaskPlan, results: Mapping[str, Result], parts: Mapping[str, int], known: Values, *, whole: bool
) -> Values:
    """The same values with what a condition keeps from being made, and if `whole` without lists that lack a part.

    `parts` tells how many of the calls of each name have returned.
    """
    there, not_made = dict[str, Result](), dict[str, Label]()
    known = replace(known, results=there, not_made=not_made)
    for planned in plan.calls:
        name = planned.name
        if name not in results:
            label = _kept(planned, replace(known, item=None))
            if label is not None:
                not_made[name] = label
        elif not whole or planned.each is None or parts.get(name, 0) >= _wanted(planned, known):
            there[name] = results[name]
    return known


def _wanted(planned: PlannedCall, known: Values) -> float:
    """How many calls are to be made; endless if it cannot be said."""
    try:
        return len(items_of(planned, known)) if planned.when is None else sum(one.value for one in met(planned, known))
    except Unavailable:
        return float("inf")


def _kept(planned: PlannedCall, known: Values) -> Label | None:
    """What decided that a call is not made; None if nothing did."""
    gone = [label for origin in planned.origins for part in parts_of(origin) if (label := _gone(part, known))]
    found: list[Labelled[bool]] = []
    with suppress(Unavailable):
        found = met(planned, known)
    is_kept = gone or (found and not any(one.value for one in found))
    return join([*gone, *[one.label for one in found]]) if is_kept else None


def _gone(part: Origin, known: Values) -> Label | None:
    """What kept all that a value would be taken from from being made; None if something is left to take it from."""
    steps: list[str] = []
    match part:
        case Taken(step):
            steps = [step]
        case Read(shown, quotes=quotes):
            quoted = [] if quotes is None else [step for step in steps_of(quotes) if step in known.not_made]
            steps = quoted or [*shown]
    if not steps or not {*steps} <= known.not_made.keys():
        return None
    return join([known.not_made[step] for step in steps])


def _existence(part: Origin, known: Values) -> Label:
    """What decided which records there are, where a value tells it: where it is not that of the one that is meant."""
    if isinstance(part, Taken) and not part.pick:
        return BOTTOM
    return join([known.results[step].order for step in steps_of(part) if step in known.results])


__all__ = ["branches", "is_met", "items_of", "met"]
