"""Trials: what is new and does worse than it may is taken back, by itself, and stays so."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringwall import App, InMemoryJournal, Rules, ScriptedModel
from ringwall.deployment import Told
from ringwall.deployment.guard import Crossing
from ringwall.deployment.rollout import (
    Evidence,
    Limit,
    RolledBack,
    RunsWith,
    Trial,
    failed,
    failures,
    guarded,
    slower_than,
)
from ringwall.deployment.sink_contract import EventSinkContract
from ringwall.deployment.sinks import EventSink
from ringwall.errors import ConfigurationError, GuardRefused, InvalidInput, ProviderUnavailable
from ringwall.model import Reply
from ringwall.model.rollout import Share
from ringwall.model.router import Router
from tests.deployment.test_guards import Refuses
from tests.scenes import ANA, RULES


class TestTrial(EventSinkContract):
    @pytest.fixture
    def sink(self) -> EventSink:
        self.said: list[RolledBack] = []
        limits = [Limit("failures", 0.01, failures("far")), Limit("runs", 0.01, RunsWith(prompt="answer@1"))]
        return Trial("new", limits, at_least=1, alpha=0.9, then=self.said.append)

    def put_out(self, sink: EventSink) -> str:
        return str(self.said)


@given(st.lists(st.booleans(), max_size=60), st.floats(0.001, 0.9))
def test_at_the_limit_nobody_expects_to_win(history: list[bool], most: float) -> None:
    def after(*more: bool) -> float:
        evidence = Evidence(most)
        for bad in (*history, *more):
            evidence.observe(bad=bad)
        return evidence.wealth

    assert after() > 0
    assert most * after(True) + (1 - most) * after(False) == pytest.approx(after(), rel=1e-6)


def looks_until(rate: float, most: float, *, seed: int, alpha: float = 0.01, at_most: int = 3000) -> int | None:
    """How many observations of which `rate` are bad it takes to take something back."""
    evidence, chance = Evidence(most), random.Random(seed)
    for number in range(1, at_most + 1):
        evidence.observe(bad=chance.random() < rate)
        if evidence.wealth >= 1 / alpha:
            return number
    return None


def test_what_keeps_its_limit_is_hardly_ever_taken_back_however_often_one_looks() -> None:
    taken_back = sum(looks_until(0.05, 0.05, seed=seed, alpha=0.05) is not None for seed in range(200))
    assert taken_back <= 0.05 * 200


@pytest.mark.parametrize(("rate", "within"), [(1.0, 5), (0.5, 40), (0.2, 200)])
def test_the_worse_it_does_the_sooner_it_is_taken_back(rate: float, within: int) -> None:
    needed = [looks_until(rate, 0.05, seed=seed) for seed in range(20)]
    assert all(number is not None and number <= within for number in needed)


def test_a_long_good_time_does_not_hide_that_things_got_bad() -> None:
    evidence = Evidence(0.05)
    for _ in range(20_000):
        evidence.observe(bad=False)
    for _ in range(15):
        evidence.observe(bad=True)
    assert evidence.wealth >= 100


def thumbs(trial: Trial, *, down: int, up: int = 0) -> None:
    for _ in range(up):
        trial.observe("feedback", bad=False)
    for _ in range(down):
        trial.observe("feedback", bad=True)


def test_few_observations_are_not_enough() -> None:
    trial = Trial("new", [Limit("feedback", 0.1)], at_least=10)
    thumbs(trial, down=9)
    assert trial.holds()
    thumbs(trial, down=1)
    assert not trial.holds()
    assert str(trial.rolled_back) == "feedback: 10 of 10 were bad, and 10.0% may be"


def test_what_was_taken_back_stays_so_for_every_process_until_it_is_tried_again(tmp_path: Path) -> None:
    def trial(name: str) -> Trial:
        return Trial(name, [Limit("feedback", 0.1)], file=tmp_path / "trials.json")

    here, elsewhere, other = trial("new"), trial("new"), trial("other")
    thumbs(here, down=20)
    assert (here.holds(), elsewhere.holds(), other.holds(), trial("new").holds()) == (False, False, True, False)
    elsewhere.try_again()
    assert here.holds()
    thumbs(elsewhere, down=2)
    assert elsewhere.holds()


def test_it_says_once_why(tmp_path: Path) -> None:
    said: list[RolledBack] = []
    trial = Trial("new", [Limit("feedback", 0.1)], then=said.append)
    thumbs(trial, down=50)
    assert [(why.limit, why.bad, why.observed) for why in said] == [("feedback", 10, 10)]


class Failing(ScriptedModel):
    """Is down for everybody."""

    def __init__(self) -> None:
        def fail(request: object) -> str:
            raise ProviderUnavailable("down", provider="new")

        super().__init__(fail, name="new")


async def test_a_canary_that_fails_is_taken_back_and_the_journal_says_so() -> None:
    trial = Trial("new-model", [Limit("failures", 0.05, failures("new"))], at_least=3)
    router = Router(
        ScriptedModel(lambda _: Reply("Yes."), name="old"),
        canary=Share(Failing(), 100, name="new-model", holds=trial.holds),
    )
    journal = InMemoryJournal()
    async with App(policy=Rules(RULES), model=router, sinks=[trial], journal=journal) as app:

        async def why_skipped() -> list[str]:
            result = await app.ask("Is it?", as_=ANA)
            assert result.text == "Yes."
            events = await journal.read(result.run)
            return [json.loads(event.body)["why"] for event in events if event.kind == "model.skipped"]

        assert await why_skipped() == ["ProviderUnavailable"]
        async with asyncio.timeout(30):  # a sink hears of a run a moment later
            while trial.rolled_back is None:
                await why_skipped()
        assert await why_skipped() == ["RolledBack"]


async def test_answers_that_a_guard_refuses_take_a_model_back() -> None:
    trial = Trial("new-model", [Limit("guards", 0.1, RunsWith(provider="new", bad=guarded))], at_least=3)
    model = ScriptedModel(["No!", "Yes.", *["No!"] * 9], name="new")
    async with App(policy=Rules(RULES), model=model, sinks=[trial], guards=[Refuses("!", Crossing.ANSWER)]) as app:
        for _ in range(11):
            with contextlib.suppress(GuardRefused):
                await app.ask("Is it?", as_=ANA)
    assert trial.rolled_back is not None
    assert (trial.rolled_back.limit, trial.holds()) == ("guards", False)


def told(run: str, kind: str, **facts: float | str) -> Told:
    return Told("app", "", run, 0, kind, 0.0, facts)


def test_runs_are_told_apart_by_a_fact_and_judged_when_they_end() -> None:
    reads = RunsWith(prompt="answer@2", bad=lambda event: failed(event) or guarded(event))
    script = [
        ("r1", "turn.changed", {"prompt": "answer@2"}, None),
        ("r2", "turn.changed", {"prompt": "answer@1"}, None),
        ("r1", "guard.ran", {"did": "rewrote"}, None),
        ("r3", "guard.ran", {"did": "refused"}, None),
        ("r3", "turn.changed", {"prompt": "answer@2"}, None),
        ("r1", "run.finished", {}, False),
        ("r2", "run.failed", {}, None),
        ("r3", "run.finished", {}, True),
    ]
    assert [reads(told(run, kind, **facts)) for run, kind, facts, _ in script] == [bad for *_, bad in script]


def test_slow_replies_of_one_model_are_told_from_others() -> None:
    reads = slower_than("new", 2.0)
    assert reads(told("r", "model.replied", provider="new", ms=2500.0)) is True
    assert reads(told("r", "model.replied", provider="new", ms=1500.0)) is False
    assert reads(told("r", "model.replied", provider="old", ms=9000.0)) is None


def test_what_cannot_be_a_limit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="between 0 and 1"):
        Limit("feedback", 1.0)
    with pytest.raises(ConfigurationError, match="no limits"):
        Trial("new", [])
    with pytest.raises(InvalidInput, match="feedback"):
        Trial("new", [Limit("feedback", 0.1)]).observe("feetback", bad=True)
    (tmp_path / "trials.json").write_text("no JSON")
    with pytest.raises(ConfigurationError, match="cannot be used"):
        Trial("new", [Limit("feedback", 0.1)], file=tmp_path / "trials.json")
