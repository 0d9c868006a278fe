"""Each rule about the conditions of a plan is needed: without it one of the thief's attacks succeeds.

What the thief writes decides here whether something is done, is told in what was left undone, or what an agent leaves
undone decides it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from ringwall.deployment import branching, origins
from ringwall.interface import branches
from ringwall.label import BOTTOM, Label
from tests.deployment.office import RULES, Office, call, plan_of, read_from, step, taken
from tests.deployment.test_plan_conditions import LIST, LONG, SIZE, tell, when
from tests.deployment.test_plan_mutations import asked

SAID = when(taken("list", "content", where={"name": "contract.txt"}), "contains", "XX")
TO_ALL = RULES.replace("ask   tool:* call tool:send", "allow tool:* call tool:send")


async def said_in_a_text(office: Office) -> bool:
    """A text says that the user's file is to be deleted."""
    await asked(office, office.executing(plan_of(LIST, step("go", "delete", file=7) | SAID)))
    return bool(office.done)


async def said_to_an_agent(office: Office) -> bool:
    """The same, with an agent that makes the call."""
    plan = plan_of(LIST, step("go", "delete", file=7) | SAID)
    await asked(office, office.acting(plan, call("files"), call("delete", file=7)))
    return bool(office.done)


async def there_is_one_more(office: Office) -> bool:
    """Something is done if there is a record of some name, and anybody can add one."""
    there = {"not": when(taken("list", "id", where={"name": "fee.txt"}, pick="all"), "empty")["when"]}
    await asked(office, office.executing(plan_of(LIST, step("go", "delete", file=7) | {"when": there})))
    return bool(office.done)


async def looked_up_because_of_a_text(office: Office) -> bool:
    """A trusted field is taken of what was looked up because a text says so."""
    more = step("more", "files", name="rota") | SAID
    await asked(office, office.executing(plan_of(LIST, more, step("go", "delete", file=taken("more", "id")))))
    return bool(office.done)


async def looked_up_for_each_because_of_a_text(office: Office) -> bool:
    """The same of what was looked up for each of several."""
    more = step("more", "files", name={"$item": ""}) | {"each": ["rota", "notes"]} | SAID
    go = step("go", "delete", file=taken("more", "id", pick="largest size"))
    await asked(office, office.executing(plan_of(LIST, more, go)))
    return bool(office.done)


async def left_undone_because_of_a_text(office: Office) -> bool:
    """What is read of several results depends on which of them there are, and a text has decided that."""
    more = step("more", "files", name="rota") | {"when": {"not": SAID["when"]}}
    which = {**read_from("more", "which?", "integer", fields=["id"]), "$read": ["more", "other"]}
    plan = plan_of(LIST, step("other", "files", name="notes"), more, step("go", "delete", file=which))
    await asked(office, office.executing(plan, read=lambda ask, text: 21))
    return bool(office.done)


async def told_by_being_told_anything(office: Office) -> bool:
    """That Bo is told hello tells him the size of a file, which he may not read, and nobody let him."""
    rules = RULES.replace("allow user:ana declassify to:*", "").replace("allow record:* declassify to:*", "")
    rules = rules.replace("grant role:deputy collection:questions", "grant to:* collection:questions")
    await asked(office, office.executing(plan_of(LIST, tell(**LONG)), rules=rules))
    return bool(office.done)


async def told_because_of_a_text(office: Office) -> bool:
    """A text decides when Bo is told, by leave that only the user has."""
    await asked(office, office.executing(plan_of(LIST, tell(**SAID)), rules=TO_ALL))
    return bool(office.done)


async def against_the_condition(office: Office) -> bool:
    """The agent makes the call although the condition does not hold."""
    plan = plan_of(LIST, tell(**when(SIZE, "<", 50)))
    await asked(office, office.acting(plan, call("files"), call("send", to=["bo@example.org"], text="hello")))
    return bool(office.done)


async def one_left_out(office: Office) -> bool:
    """The agent leaves out the largest of those that it is to look up, and the largest of the others is deleted."""
    all_ = step("all", "files", name={"$item": ""}) | {"each": ["rota", "contract"]}
    plan = plan_of(all_, step("go", "delete", file=taken("all", "id", pick="largest size")))
    await asked(office, office.acting(plan, call("files", name="rota"), call("delete", file=7)))
    return bool(office.done)


ATTACKS: list[Callable[[Office], Awaitable[bool]]] = [
    said_in_a_text, said_to_an_agent, there_is_one_more, looked_up_because_of_a_text,
    looked_up_for_each_because_of_a_text, left_undone_because_of_a_text, told_by_being_told_anything,
    told_because_of_a_text, against_the_condition, one_left_out,
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_no_attack_on_a_condition_succeeds(attack: Callable[[Office], Awaitable[bool]]) -> None:
    assert not await attack(Office())


Patch = Callable[[pytest.MonkeyPatch], None]


def conditions_leave_no_trace(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(origins.Causes, "under", lambda self, condition: self)


def conditions_cause_nothing(patch: pytest.MonkeyPatch) -> None:
    _under(patch, lambda condition: Label(condition.secrecy))


def conditions_are_no_secret(patch: pytest.MonkeyPatch) -> None:
    _under(patch, lambda condition: Label(frozenset(), condition.influence))


def _under(patch: pytest.MonkeyPatch, changed: Callable[[Label], Label]) -> None:
    old = origins.Causes.under
    patch.setattr(origins.Causes, "under", lambda self, condition: old(self, changed(condition)))


def conditions_do_not_choose_results(patch: pytest.MonkeyPatch) -> None:
    old = origins.Causes.under
    patch.setattr(origins.Causes, "under", lambda self, label: old(self, label)._replace(choice=self.choice))


def conditions_do_not_choose_recipients(patch: pytest.MonkeyPatch) -> None:
    old = origins.Causes.under
    patch.setattr(origins.Causes, "under", lambda self, label: old(self, label)._replace(recipients=self.recipients))


def conditions_always_hold(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(branching.Branching, "condition", lambda self, planned, known: BOTTOM)


def existence_leaves_no_trace(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(branches, "_existence", lambda part, known: BOTTOM)


def what_is_not_made_leaves_no_trace(patch: pytest.MonkeyPatch) -> None:
    old = branches.branches

    def forgetful(*given: Any, **more: Any) -> Any:
        known = old(*given, **more)
        return replace(known, not_made=dict.fromkeys(known.not_made, BOTTOM))

    patch.setattr(branching, "branches", forgetful)


def any_part_is_the_whole_list(patch: pytest.MonkeyPatch) -> None:
    old = branches.branches
    patch.setattr(branching, "branches", lambda *given, whole: old(*given, whole=False))


MUTANTS: dict[Patch, set[str]] = {
    conditions_leave_no_trace: {
        "said_in_a_text", "said_to_an_agent", "there_is_one_more", "looked_up_because_of_a_text",
        "looked_up_for_each_because_of_a_text", "told_by_being_told_anything", "told_because_of_a_text",
    },
    conditions_cause_nothing: {"said_in_a_text", "said_to_an_agent", "looked_up_because_of_a_text"},
    conditions_are_no_secret: {"told_by_being_told_anything"},
    conditions_do_not_choose_results: {"looked_up_for_each_because_of_a_text"},
    conditions_do_not_choose_recipients: {"told_because_of_a_text"},
    conditions_always_hold: {"against_the_condition"},
    existence_leaves_no_trace: {"there_is_one_more"},
    what_is_not_made_leaves_no_trace: {"left_undone_because_of_a_text"},
    any_part_is_the_whole_list: {"one_left_out"},
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.__name__)
async def test_without_any_one_rule_an_attack_on_a_condition_succeeds(
    mutant: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutant(monkeypatch)
    succeeded = {attack.__name__ for attack in ATTACKS if await attack(Office())}
    assert succeeded >= MUTANTS[mutant]
