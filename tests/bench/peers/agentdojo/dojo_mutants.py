"""Ringwall with one rule taken away or turned around: what `--mutate` measures, to see that the harness notices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from dojo_tools import DojoTool

from ringwall.deployment import origins, plandesk, toolgate
from ringwall.deployment.base import Decision, Verdict
from ringwall.interface import plan as plans
from ringwall.interface.base import Effect
from ringwall.label import BOTTOM, Label, Labelled


def what_no_plan_names_is_the_users() -> None:
    old = origins.PlanRecord.causes

    def causes(self: Any, call: Any, words: Label, shown: Label, **more: Any) -> Any:
        return old(self, call, words, shown, **more) or origins.Causes(words, words)

    origins.PlanRecord.causes = causes


def any_argument_is_the_planned_one() -> None:
    origins.same = lambda one, other: True


def what_was_read_is_the_users() -> None:
    old, causes = plandesk.GatedDesk._read, origins.PlanRecord.causes

    async def read(self: Any, reading: Any) -> Any:
        return Labelled((await old(self, reading)).value, self._log.question.label)

    plandesk.GatedDesk._read = read
    origins.PlanRecord.causes = lambda self, call, words, shown, **more: causes(self, call, words, words, **more)


def control_arguments_cause_nothing() -> None:
    origins._summed = lambda planned, call, labels, words: origins.Causes(words, words, planned.name)


def whatever_others_write_is_a_record() -> None:
    plans._label_of = lambda value, inherited, fields: Label(inherited.secrecy, frozenset(("record:own",)))


def choices_leave_no_trace() -> None:
    plans.Result._field = lambda self, name: BOTTOM


def nobody_is_asked() -> None:
    old = toolgate.caused_by

    async def caused_by(*given: Any) -> Decision:
        decision = await old(*given)
        return Decision(Verdict.ALLOW, "not asked") if decision.verdict is Verdict.ASK else decision

    toolgate.caused_by = caused_by


def recipients_are_content() -> None:
    DojoTool.control_arguments = property(
        lambda self: frozenset(() if self.effect is not Effect.READ else self.parameters["properties"])
    )


MUTANTS: Final[dict[str, Callable[[], None]]] = {
    mutant.__name__: mutant
    for mutant in (
        what_no_plan_names_is_the_users,
        any_argument_is_the_planned_one,
        what_was_read_is_the_users,
        control_arguments_cause_nothing,
        whatever_others_write_is_a_record,
        choices_leave_no_trace,
        nobody_is_asked,
        recipients_are_content,
    )
}
