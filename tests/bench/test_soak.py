"""Whether a soak sees what it is there to see."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from ringwall import ScriptedModel
from ringwall.model.scripted import Line, call
from soak import MAX_GROWTH_MB, MAX_MORE, Figures, growth
from soak_requests import Ask, CrossTalk, Ticket, choose, schema, stop, tool

ANOTHERS = "green lion"


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (choose, ANOTHERS),
        (schema, f'{{"code": "{ANOTHERS}", "note": ""}}'),
        (tool, call("open_left", code=ANOTHERS)),
        (stop, f"{ANOTHERS}: and so on"),
    ],
)
async def test_the_answer_to_another_is_seen(ask: Ask, answer: Line) -> None:
    ticket = Ticket("white bear", (ANOTHERS,) * 7, Random(1))
    with pytest.raises(CrossTalk, match=ANOTHERS):
        await ask(ScriptedModel([answer]), ticket)


@pytest.mark.parametrize(
    "more", [{"held_mb": 100 + MAX_GROWTH_MB + 1}, {"threads": 4 + MAX_MORE + 1}, {"descriptors": 9 + MAX_MORE + 1}]
)
def test_growth_beyond_its_bound_is_seen(more: dict[str, int]) -> None:
    first = Figures(
        seconds=1, rss_mb=130, held_mb=100, threads=4, descriptors=9, running=0, waiting=0, kept=5, cells_used=900
    )
    assert growth(first, first) == []
    assert len(growth(first, replace(first, **more))) == 1
