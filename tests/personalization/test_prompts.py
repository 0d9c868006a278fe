"""The prompt registry: versions that never change, stages, and who gets which."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringwall import InMemoryJournal, Pipeline, Principal, PromptTemplate
from ringwall.errors import ConfigurationError, InvalidInput
from ringwall.personalization.prompts import PromptRegistry, Stage
from ringwall.steps import Agent, Compose
from tests.scenes import ANA, app_with

ONE = PromptTemplate("answer", "1", "Answer briefly.")
TWO = PromptTemplate("answer", "2", "Answer briefly.\nNever guess.")


@pytest.fixture
def registry(tmp_path: Path) -> PromptRegistry:
    """With `answer@1` in production and `answer@2` as a draft."""
    made = PromptRegistry(tmp_path / "prompts.json")
    made.add(ONE)
    made.move("answer", "1", Stage.PRODUCTION)
    made.add(TWO, note="it guessed")
    return made


def stages(registry: PromptRegistry) -> dict[str, Stage]:
    return {version.template.version: version.stage for version in registry.versions("answer")}


def test_a_version_never_changes(registry: PromptRegistry) -> None:
    with pytest.raises(ConfigurationError, match="answer@2 is there already"):
        registry.add(PromptTemplate("answer", "2", "Do as you please."))
    assert registry.find("answer", "2").template == TWO


def test_what_takes_a_stage_retires_what_was_there(registry: PromptRegistry) -> None:
    assert stages(registry) == {"1": Stage.PRODUCTION, "2": Stage.DRAFT}
    registry.move("answer", "2", Stage.PRODUCTION)
    assert stages(registry) == {"1": Stage.RETIRED, "2": Stage.PRODUCTION}
    registry.move("answer", "1", Stage.PRODUCTION, note="back")
    assert stages(registry) == {"1": Stage.PRODUCTION, "2": Stage.RETIRED}


def test_production_is_never_left_empty(registry: PromptRegistry) -> None:
    with pytest.raises(ConfigurationError, match="in production"):
        registry.move("answer", "1", Stage.RETIRED)


def test_a_draft_is_given_to_nobody_and_a_canary_to_its_share(registry: PromptRegistry) -> None:
    choose = registry.choice("answer")
    askers = [f"user:{number}" for number in range(1000)]
    assert {choose(asker) for asker in askers} == {ONE}
    registry.move("answer", "2", Stage.CANARY, percent=10)
    tried = {asker for asker in askers if choose(asker) == TWO}
    assert 60 < len(tried) < 140
    registry.move("answer", "2", Stage.CANARY, percent=30)
    assert tried < {asker for asker in askers if choose(asker) == TWO}


def test_a_canary_is_given_to_its_cohort_alone(registry: PromptRegistry) -> None:
    registry.move("answer", "2", Stage.CANARY, percent=100)
    choose = registry.choice("answer", cohort=lambda asker: asker.startswith("acme::"))
    assert choose("acme::user:ana") == TWO
    assert choose("zeta::user:ana") == ONE


def test_another_process_sees_a_roll_back_at_its_next_choice(registry: PromptRegistry, tmp_path: Path) -> None:
    registry.move("answer", "2", Stage.CANARY, percent=100)
    elsewhere = PromptRegistry(tmp_path / "prompts.json").choice("answer")
    assert elsewhere("user:ana") == TWO
    registry.roll_back("answer", note="it failed")
    assert elsewhere("user:ana") == ONE
    assert [(change.version, change.stage, change.note) for change in registry.history("answer")][-1] == (
        "2", Stage.RETIRED, "it failed",
    )  # fmt: skip


def test_a_difference_is_told_line_by_line(registry: PromptRegistry) -> None:
    assert "+system: Never guess." in registry.diff("answer", "1", "2")
    assert registry.diff("answer", "1", "1") == ""


def test_the_default_prompt_is_there_until_another_takes_its_place(registry: PromptRegistry) -> None:
    name = "answer-from-passages"
    assert registry.choice(name)("user:ana").version == "1"
    registry.add(PromptTemplate(name, "2", "Answer."))
    registry.move(name, "2", Stage.PRODUCTION)
    assert registry.choice(name)("user:ana").version == "2"
    registry.move(name, "1", Stage.PRODUCTION)
    assert registry.choice(name)("user:ana").version == "1"


@pytest.mark.parametrize(
    "template",
    [
        PromptTemplate("a name", "1", ""),
        PromptTemplate("answer", "", ""),
        PromptTemplate("answer", "3", "", context="{question.__class__}"),
        PromptTemplate("answer", "3", "", bare="{passages}"),
        PromptTemplate("answer", "3", "", passage="{"),
    ],
)
def test_a_template_that_could_not_be_used_is_refused(registry: PromptRegistry, template: PromptTemplate) -> None:
    with pytest.raises(InvalidInput):
        registry.add(template)


@given(asker=st.text(min_size=1), percent=st.floats(0.1, 50), more=st.floats(0, 50))
def test_who_was_in_stays_in_when_the_share_grows(
    tmp_path_factory: pytest.TempPathFactory, asker: str, percent: float, more: float
) -> None:
    made = PromptRegistry(tmp_path_factory.mktemp("prompts") / "prompts.json", bundled=[ONE])
    made.add(TWO)
    choose, got = made.choice("answer"), []
    for share in (percent, percent + more):
        made.move("answer", "2", Stage.CANARY, percent=share)
        got.append(choose(asker))
    assert got != [TWO, ONE]


@pytest.mark.parametrize(("stage", "percent"), [(Stage.CANARY, 0.0), (Stage.CANARY, 101.0), (Stage.PRODUCTION, 5.0)])
def test_a_share_that_makes_no_sense_is_refused(registry: PromptRegistry, stage: Stage, percent: float) -> None:
    with pytest.raises(ConfigurationError, match="percent"):
        registry.move("answer", "2", stage, percent=percent)


def test_a_file_that_is_none_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text('{"prompts": 7}')
    with pytest.raises(ConfigurationError, match="cannot be used"):
        PromptRegistry(tmp_path / "prompts.json").versions()


async def test_the_journal_says_of_each_run_which_prompt_it_was_given(registry: PromptRegistry) -> None:
    registry.move("answer", "2", Stage.CANARY, percent=100)
    journal, choice = InMemoryJournal(), registry.choice("answer", cohort=lambda asker: asker == "user:ana")
    app = app_with(["Yes."] * 2, journal=journal, pipeline=Pipeline(partial(Compose, choice=choice), Agent))
    prompts = []
    for who in (ANA, Principal.user("bo", "guest")):
        result = await app.ask("Is it?", as_=who)
        bodies = [json.loads(event.body) for event in await journal.read(result.run) if event.kind == "turn.changed"]
        prompts += [body["changed"]["prompt"] for body in bodies if "prompt" in body["changed"]]
    assert prompts == ["answer@2", "answer@1"]
