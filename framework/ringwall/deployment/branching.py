"""Which calls of a run's plan are made: worked out anew whenever there are other results, and then kept."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sized
from dataclasses import replace

from ringwall.errors import Unavailable
from ringwall.interface.branches import branches, is_met, met
from ringwall.interface.meaning import Result, Values
from ringwall.interface.origin import steps_of
from ringwall.interface.plan import PlannedCall, TaskPlan
from ringwall.label import BOTTOM, Label, join


class Branching:
    """Says of a plan what a condition keeps from being made, and what conditions were read from.

    With `whole`, lists that lack a part are no results yet. A plan without conditions costs nothing.
    """

    __slots__ = ("_decided", "_is_needed", "_now", "_plan", "_whole")

    def __init__(self, plan: TaskPlan, *, whole: bool) -> None:
        self._plan, self._whole = plan, whole
        self._is_needed = any(call.when is not None or (whole and call.each is not None) for call in plan.calls)
        self._now: tuple[tuple[Result, ...], tuple[int, Label], Values] | None = None
        self._decided: dict[str, tuple[tuple[Result | None, ...], Label]] = {}

    def values(self, known: Values, parts: Mapping[str, Sized]) -> Values:
        """These values as far as the plan may use them; `parts` are the results of each of several calls."""
        if not self._is_needed:
            return known
        results, state = tuple(known.results.values()), (len(known.readings), known.words)
        if self._now is None or state != self._now[1] or not _are_same(results, self._now[0]):
            counts = {name: len(each) for name, each in parts.items()}
            now = branches(self._plan, known.results, counts, known, whole=self._whole)
            self._now = results, state, now
        return replace(self._now[2], item=known.item)

    def condition(self, planned: PlannedCall, known: Values) -> Label | None:
        """What the condition of a call was read from; None if it does not hold for this item, or nobody can say."""
        if planned.when is None:
            return BOTTOM
        try:
            own = is_met(planned.when, known)
            return own.label | self._for_all(planned, known) if own.value else None
        except Unavailable:
            return None

    def _for_all(self, planned: PlannedCall, known: Values) -> Label:
        """What it was read from for all items: which are not made is told by those that are. Raises `Unavailable`."""
        rests_on = tuple(known.results.get(step) for origin in planned.origins for step in steps_of(origin))
        before, label = self._decided.get(planned.name, (None, BOTTOM))
        if before is None or not _are_same(before, rests_on):
            label = join([one.label for one in met(planned, known)])
            self._decided[planned.name] = (rests_on, label)
        return label


def _are_same(some: tuple[object, ...], others: tuple[object, ...]) -> bool:
    return len(some) == len(others) and all(map(operator.is_, some, others))


__all__ = ["Branching"]
