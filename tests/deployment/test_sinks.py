"""Event sinks: what they are told, and that no run waits for them or fails with them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence

import pytest

from ringwall import ACL, App, InMemoryJournal, Pipeline, Principal, Turn, call
from ringwall.deployment import EventSink, SinkState, Told
from ringwall.deployment.delivery import Delivery
from ringwall.deployment.facts import facts_of
from ringwall.deployment.journal import Draft
from ringwall.deployment.rules import Rules
from ringwall.deployment.sink_contract import EventSinkContract
from ringwall.errors import ConfigurationError
from ringwall.principal import Grants
from tests.scenes import ANA, CARLA, RULES, app_with, booking_tool

LABEL = '{"secrecy": [["user:ana"]], "influence": []}'
WINE = "the wine is in the cellar"


class Kept(EventSink):
    """Keeps what it is told."""

    def __init__(self, name: str = "kept", *, contents: bool = False) -> None:
        self.contents = contents
        self._principal = Principal(f"sink:{name}")
        self.told: list[Told] = []
        self.closed = 0

    @property
    def principal(self) -> Principal:
        return self._principal

    async def receive(self, events: Sequence[Told]) -> None:
        self.told += events

    async def close(self) -> None:
        self.closed += 1

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.told]


class Blocked(Kept):
    """Does not return before it is let."""

    def __init__(self) -> None:
        super().__init__("blocked")
        self.let = threading.Event()

    async def receive(self, events: Sequence[Told]) -> None:
        self.let.wait()
        await super().receive(events)


class Broken(Kept):
    async def receive(self, events: Sequence[Told]) -> None:
        raise OSError(str(events))


class TestKept(EventSinkContract):
    @pytest.fixture
    def sink(self) -> EventSink:
        return Kept()

    def put_out(self, sink: EventSink) -> str:
        assert isinstance(sink, Kept)
        return str(sink.told)


async def ask_about_wine(app: App) -> str:
    await app.ingest([("wine.md", WINE)], ACL.of("role:guest"))
    result = await app.ask("where is the wine?", as_=ANA)
    await app.close()
    return result.run


async def test_a_sink_is_told_every_event_of_the_journal_in_order() -> None:
    sink = Kept()
    journal = InMemoryJournal()
    run = await ask_about_wine(app_with(["It is [1] in the cellar."], sinks=[sink], journal=journal))
    events = await journal.read(run)
    assert [(t.run, t.seq, t.kind, t.at) for t in sink.told] == [(e.run, e.seq, e.kind, e.at) for e in events]
    assert sink.closed == 1


async def test_a_sink_that_does_not_ask_for_contents_gets_facts_alone() -> None:
    sink = Kept()
    rules = f"{RULES}\nmember sink:kept role:guest\ngrant sink:kept collection:questions"
    await ask_about_wine(app_with(["It is [1] in the cellar."], sinks=[sink], rules=rules))
    assert not any(event.body or event.label for event in sink.told)
    replied = next(event for event in sink.told if event.kind == "model.replied")
    assert replied.facts["provider"] == "scripted"
    assert "calls" not in replied.facts


@pytest.mark.parametrize(
    ("grants", "sees"),
    [
        ([], []),
        (["grant sink:kept collection:questions"], ["where is the wine?"]),
        (
            ["grant sink:kept collection:questions", "member sink:kept role:guest"],
            ["where is the wine?", "in the cellar"],
        ),
    ],
)
async def test_contents_are_told_as_far_as_the_sinks_grants_admit(grants: list[str], sees: list[str]) -> None:
    sink = Kept(contents=True)
    rules = "\n".join([RULES, *grants])
    await ask_about_wine(app_with(["It is [1] in the cellar."], sinks=[sink], rules=rules))
    bodies = "\n".join(event.body for event in sink.told)
    assert [text for text in ("where is the wine?", "in the cellar") if text in bodies] == sees


async def test_a_run_neither_waits_for_a_sink_that_blocks_nor_for_one_that_fails() -> None:
    blocked, broken, kept = Blocked(), Broken("broken"), Kept()
    app = app_with(["Yes."] * 3, sinks=[blocked, broken, kept])
    for _ in range(3):
        assert (await asyncio.wait_for(app.ask("Is it?", as_=ANA), 5)).text == "Yes."
    assert not blocked.told
    blocked.let.set()
    await app.close()
    assert len(blocked.told) == len(kept.told) > 0


async def test_events_that_find_the_queue_full_are_dropped_and_counted() -> None:
    sink = Blocked()
    delivery = Delivery("app", Rules(""), [sink], capacity=10)
    for number in range(100):
        await delivery.tell(f"r{number}", "", 0, [Draft("run.resumed", "{}")])
    (state,) = delivery.states()
    assert state.waiting <= 10
    assert state.dropped >= 89
    sink.let.set()
    await delivery.close()
    (state,) = delivery.states()
    assert state.delivered + state.dropped == 100
    assert len(sink.told) == state.delivered


class NeverSays(Rules):
    async def grants(self, principal: Principal) -> Grants:
        await asyncio.sleep(60)
        return frozenset()


class Fails(Rules):
    async def grants(self, principal: Principal) -> Grants:
        raise OSError("the policy is gone")


@pytest.mark.parametrize("policy", [NeverSays(""), Fails("")])
async def test_while_nobody_says_what_a_sink_holds_it_is_told_facts_alone(policy: Rules) -> None:
    sink = Kept(contents=True)
    delivery = Delivery("app", policy, [sink])
    telling = asyncio.create_task(
        delivery.tell("r", "", 0, [Draft("run.failed", '{"error": "E", "what": "w"}', LABEL)])
    )
    await asyncio.sleep(0.01)
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await delivery.close()
    assert [(told.facts, told.body) for told in sink.told] == [({"error": "E"}, "")]


async def test_what_a_sink_raises_is_counted_by_the_name_of_the_error() -> None:
    delivery = Delivery("app", Rules(""), [Broken("broken")])
    await delivery.tell("r", "", 0, [Draft("run.resumed", "{}")])
    await delivery.close()
    assert delivery.states() == (SinkState("sink:broken", failed=1, error="OSError"),)


async def test_closing_leaves_a_sink_behind_that_does_not_end() -> None:
    sink = Blocked()
    delivery = Delivery("app", Rules(""), [sink], patience=0.1)
    await delivery.tell("r", "", 0, [Draft("run.resumed", "{}")])
    began = time.monotonic()
    await delivery.close()
    assert time.monotonic() - began < 5
    sink.let.set()


async def test_two_sinks_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="sink:kept"):
        app_with(["Yes."], sinks=[Kept(), Kept()])


async def test_an_answer_to_an_open_question_is_told_too() -> None:
    sink = Kept()
    booked: list[str] = []
    app = app_with([call("book", table="7"), "Booked."], sinks=[sink], tools=[booking_tool(booked)])
    await app.ingest([("menu.md", "book table 7")], ACL.of("public"))
    result = await app.ask("book a table", as_=ANA)
    await app.approve(result.run, by=CARLA)
    await app.resume(result.run)
    await app.close()
    assert booked == ["7"]
    wanted = ["call.asked", "run.waiting", "call.approved", "run.resumed", "call.started", "call.finished"]
    assert [kind for kind in sink.kinds if kind in wanted] == wanted
    assert [event.seq for event in sink.told] == list(range(len(sink.told)))


async def test_a_cancelled_run_is_told_to_its_end() -> None:
    sink = Kept()

    async def wait(turn: Turn) -> Turn:
        await asyncio.sleep(60)
        return turn

    app = app_with(["Yes."], sinks=[sink], pipeline=Pipeline(wait))
    task = asyncio.create_task(app.ask("Is it?", as_=ANA))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await app.close()
    assert sink.kinds[-1] == "run.cancelled"


def test_the_facts_of_an_event_are_numbers_and_names_of_the_deployers() -> None:
    body = json.dumps({"provider": "near", "finish": "secret words", "ms": 1.0, "calls": [["secret", "words"]]})
    assert facts_of("model.replied", body) == {"provider": "near", "finish": "", "ms": 1.0}
    assert facts_of("unheard.of", "not even JSON") == {}
