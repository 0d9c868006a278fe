"""Asks, answers to what waits, resumptions, and changes of everything around them, in any order."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.leaks.gates_off import OFF
from tests.leaks.machines import Machine, MachineOnSqlite
from tests.leaks.more_gates_off import MORE_OFF

STEPS = 50
CHANNELS = {
    "a rule that stands", "answer", "answer, failing", "approvals", "budget reached", "cache", "declassified",
    "declassify", "draft", "embedder", "erased", "events", "explain", "happened", "hosted model", "let stand",
    "resumed", "revoked", "search and recall", "sink:log", "sink:otel", "sink:receiver", "standing rules", "stream",
    "tool", "yes to a call", "yes to a flow",
}  # fmt: skip
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@pytest.mark.parametrize(("machine", "examples"), [(Machine, 42), (MachineOnSqlite, 4)], ids=["memory", "sqlite"])
def test_whatever_happens_nobody_is_told_what_it_may_not_read(machine: type[Machine], examples: int) -> None:
    run = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=SLOW,
        database=None,
        derandomize=True,
    )
    run_state_machine_as_test(machine, settings=run)
    if machine is Machine:
        assert machine.steps >= 2000
        assert CHANNELS - {channel for channel, count in machine.told.items() if count} == set()


@pytest.mark.parametrize("gate", [*OFF, *MORE_OFF])
def test_a_gate_that_is_switched_off_is_noticed(gate: str) -> None:
    search = settings(
        max_examples=200,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=SLOW,
        phases=[Phase.generate],  # one is enough, the smallest need not be found
        report_multiple_bugs=False,
        database=None,
        derandomize=True,
    )
    with (OFF | MORE_OFF)[gate](), pytest.raises(AssertionError, match="was told"):
        run_state_machine_as_test(Machine, settings=search)
