"""Steps in a line."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

from ringwall import Pipeline, Principal, Turn
from ringwall.errors import ConfigurationError
from ringwall.label import BOTTOM, Labelled
from ringwall.turn import TurnStatus

TURN = Turn("r", Principal.user("ana"), Labelled("hello", BOTTOM), frozenset())


async def shout(turn: Turn) -> Turn:
    return replace(turn, answer=turn.answer + "!")


async def wait(turn: Turn) -> Turn:
    return replace(turn, status=TurnStatus.WAITING)


class Say:
    def __init__(self, word: str) -> None:
        self.word = word

    async def __call__(self, turn: Turn) -> Turn:
        return replace(turn, answer=turn.answer + self.word)


async def test_steps_run_in_the_order_they_are_written() -> None:
    turn = await (Pipeline(Say("a")) | shout | Say("b"))(TURN)
    assert turn.answer == "a!b"


async def test_a_pipeline_is_a_step_of_another() -> None:
    inner = Pipeline(Say("a"), Say("b"))
    assert (await (Pipeline(shout) | inner | shout)(TURN)).answer == "!ab!"


async def test_nothing_runs_after_a_step_that_waits() -> None:
    assert (await Pipeline(Say("a"), wait, Say("b"))(TURN)).answer == "a"


async def test_a_class_must_be_bound_by_an_app_before_it_runs() -> None:
    with pytest.raises(ConfigurationError, match="Say is a class"):
        await Pipeline(partial(Say, "a"))(TURN)


@pytest.mark.parametrize("thing", [len, "Retrieve", int, object()])
def test_what_is_no_step_is_refused_when_the_pipeline_is_made(thing: object) -> None:
    with pytest.raises(ConfigurationError, match="no step"):
        Pipeline(thing)  # type: ignore[arg-type]


def test_steps_are_known_by_their_names() -> None:
    assert Pipeline(Say, shout, Say("a")).names == ("Say", "shout", "Say")
