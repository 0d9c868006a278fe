"""Whatever happens in runs: nothing beyond a sink's grants reaches a span, a measurement, a log line or a report."""

from __future__ import annotations

from dataclasses import replace

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import CapturingLogger

from ringwall import Principal
from ringwall.data.memory import MemoryStore
from ringwall.deployment.logs import LogSink
from ringwall.deployment.rollout import Limit, RolledBack, RunsWith, Trial
from tests.deployment.test_sinks import Kept
from tests.leaks.test_nothing_unreadable_gets_out import CLUB_SETS, Play, scenes
from tests.leaks.world import QUESTIONS, Ask, Secret, Stage, Words, words_in
from tests.plugins.test_otel import CAPTURE, Collector

RECEIVER, OTEL = "sink:receiver", "sink:contents"


@st.composite
def watched_scenes(draw: st.DrawFn) -> tuple[Stage, list[Ask]]:
    """A scene with two sinks that want contents and hold something; all other sinks hold everything, and want none."""
    world, asks = draw(scenes())
    home, clubs = world.far.tenant, draw(CLUB_SETS) | draw(st.sampled_from([frozenset(), frozenset((QUESTIONS,))]))
    everything = frozenset().union(*world.held.values()) | {QUESTIONS}
    holders = dict.fromkeys((RECEIVER, OTEL), clubs) | dict.fromkeys(
        ("sink:facts", "sink:otel", "sink:log"), everything
    )
    held = {Principal(name, home): held for name, held in holders.items()}
    return replace(world, held={**world.held, **held}), asks


class Watched:
    """Everybody who watches, and what came of it."""

    def __init__(self) -> None:
        self.receiver, self.facts = Kept("receiver", contents=True), Kept("facts")
        self.contents, self.otel = Collector(contents=True, name="contents"), Collector()
        self.rolled_back: list[RolledBack] = []
        limits = [Limit("runs", 0.01, RunsWith(prompt="answer-from-passages@1"))]
        self.trial = Trial("trial", limits, at_least=1, alpha=0.99, then=self.rolled_back.append)
        self.lines = CapturingLogger()
        structlog.configure(processors=[], logger_factory=lambda *names: self.lines)
        self.sinks = (
            self.receiver, self.facts, self.contents.sink, self.otel.sink, self.trial, LogSink(),
        )  # fmt: skip

    def without_contents(self) -> str:
        return "\n".join((str(self.facts.told), self.otel.text(), str(self.rolled_back), str(self.lines.calls)))


def all_secrets(play: Play) -> list[Secret]:
    world = play.world
    personal = [secret for who in world.people for secret in world.personal(who)]
    return [*world.documents, world.peeked, *personal, *(ask.question for ask in play.asks)]


def readable(play: Play, name: str, tenant: str) -> Words:
    return play.world.readable(Principal(name, tenant), all_secrets(play))


def test_what_a_sink_puts_out_is_what_it_may_receive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CAPTURE, "SPAN_ONLY")
    told: set[str] = set()

    @settings(max_examples=150, deadline=None)
    @given(scene=watched_scenes())
    def holds(scene: tuple[Stage, list[Ask]]) -> None:
        watched = Watched()
        play = Play(*scene, MemoryStore(), watched.sinks)
        with play.app as app:
            app.run_sync(play.fill())
            app.run_sync(play.ask())
            report = app.run_sync(app.health())
        assert not words_in(watched.without_contents(), report)
        for event in watched.receiver.told:
            may = readable(play, RECEIVER, event.tenant)
            assert words_in(event) <= may
            if event.kind == "run.started":
                asked = {ask.question.word for ask in play.asks}
                assert bool(words_in(event.body)) == bool(event.body)
                assert words_in(event.body) <= asked & may
                told.update(words_in(event.body))
        tenants = {who.tenant for who in play.world.people}
        spans = words_in(watched.contents.text())
        assert spans <= frozenset().union(*(readable(play, OTEL, tenant) for tenant in tenants))
        told.update(f"span {word}" for word in spans)

    try:
        holds()
    finally:
        structlog.reset_defaults()
    assert any(not word.startswith("span") for word in told)
    assert any(word.startswith("span") for word in told)
