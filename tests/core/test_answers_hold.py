"""Whatever people answer, whenever: a call is made once, after enough of the right people said yes, in time."""

from __future__ import annotations

import asyncio
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import App, Label, Principal, RunStatus
from ringwall.deployment.asking import is_endorsed
from ringwall.deployment.journal import Draft, chain
from ringwall.deployment.questions import Kind, Question
from ringwall.deployment.runlog import CallPhase, CallState, fold_calls
from ringwall.errors import Denied, NotWaiting, RingwallError
from ringwall.interface import PreparedCall, ToolCall
from ringwall_sql import SqlJournal
from tests.core.test_questions import DORA, EVE, THREE, Clock, scene
from tests.scenes import ANA, BEN, CARLA, booking_tool

SPAN, HANDOVER = 100.0, 50.0
PEOPLE: Final = (ANA, BEN, CARLA, DORA, EVE)


@dataclass
class Terms:
    """The terms of a scene, and who may answer by them: worked out here once more."""

    needing: int
    asker: bool
    only: bool

    @property
    def text(self) -> str:
        words = "of role:manager,role:guest" if self.asker else "of role:manager"
        asker, only = " or asker" if self.asker else "", "only " if self.only else ""
        return (
            f"{words} needing {self.needing}{asker} within {SPAN:.0f}s then {only}role:director after {HANDOVER:.0f}s"
        )

    def may_answer(self, who: Principal, waited: float) -> bool:
        if waited >= SPAN:
            return False
        if waited >= HANDOVER and who == EVE:
            return True
        if waited >= HANDOVER and self.only:
            return False
        return who in (CARLA, DORA) or (who == ANA and self.asker)  # Ben may not be shown it


@dataclass
class Told:
    """What was answered about one call."""

    asked: float
    yes: dict[str, float] = field(default_factory=dict)
    declined: bool = False

    def may_run(self, needing: int, now: float) -> bool:
        return not self.declined and len(self.yes) >= needing and now < max(self.yes.values()) + SPAN


TERMS = st.builds(Terms, st.integers(1, 2), st.booleans(), st.booleans())
MOVES = st.lists(
    st.tuples(
        st.sampled_from(["approve", "approve", "approve", "deny", "resume", "reopen", "wait"]),
        st.sampled_from(PEOPLE),
        st.sampled_from(["0.0", "0.1", "0.2"]),
        st.sampled_from([1.0, 30.0, 49.0, 100.0]),
    ),
    max_size=16,
)


@settings(max_examples=80, deadline=None)
@given(TERMS, MOVES)
def test_a_call_is_made_once_after_enough_of_the_right_people_said_yes_in_time(
    terms: Terms, moves: list[tuple[str, Principal, str, float]]
) -> None:
    asyncio.run(live_through(terms, moves))


async def live_through(terms: Terms, moves: list[tuple[str, Principal, str, float]]) -> None:
    booked: list[str] = []
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:

        def opened() -> App:
            journal = SqlJournal(Path(folder, "journal.db"))
            return scene(booked, terms.text, script=[THREE, "Done."], journal=journal, clock=clock)

        app = opened()
        await app.ask("book", as_=ANA, run="r")
        told = {f"0.{n}": Told(clock.now) for n in range(3)}
        for what, who, call, seconds in moves:
            if what == "reopen":
                await app.close()
                app = opened()
            about = told[call]
            if what == "wait":
                clock.now += seconds
            elif what == "resume":
                before = set(booked)
                with suppress(NotWaiting):
                    await app.resume("r")
                for table in set(booked) - before:
                    assert told[f"0.{table}"].may_run(terms.needing, clock.now)
            elif what in ("approve", "deny"):
                with suppress(NotWaiting, Denied):
                    await getattr(app, what)("r", by=who, call=call)
                    assert terms.may_answer(who, clock.now - about.asked)
                    assert who.id not in about.yes
                    assert len(about.yes) < terms.needing
                    assert not about.declined
                    about.declined = what == "deny"
                    about.yes |= {who.id: clock.now} if what == "approve" else {}
            assert len(booked) == len(set(booked))
        assert await app.verify()
        await app.close()


@pytest.mark.parametrize("how", ["two yes", "yes and no", "yes and time"])
async def test_of_two_who_come_at_once_exactly_one_counts(tmp_path: Path, how: str) -> None:
    booked: list[str] = []
    clock, journal = Clock(), tmp_path / "journal.db"
    one, two = (scene(booked, "within 1h", clock=clock, journal=SqlJournal(journal)) for _ in range(2))
    await one.ask("book", as_=ANA, run="r")
    if how == "yes and time":
        late = Clock()
        late.now = clock.now + 3600
        await two.close()
        two = scene(booked, "within 1h", clock=late, journal=SqlJournal(journal))
    second = two.approve("r", by=DORA) if how != "yes and no" else two.deny("r", by=DORA)
    answers = await asyncio.gather(one.approve("r", by=CARLA), second, return_exceptions=True)
    kinds = [event.kind for event in await one.events("r", as_=ANA)]
    ends = [kind for kind in kinds if kind in ("call.approved", "call.declined", "call.expired")]
    assert len(ends) == 1
    assert [isinstance(answer, RingwallError) for answer in answers].count(True) in (1, 2)
    await one.resume("r")
    assert booked == (["7"] if ends == ["call.approved"] else [])
    await one.close()
    await two.close()


async def test_an_approval_of_one_run_is_for_no_other() -> None:
    booked: list[str] = []
    async with scene(booked) as app:
        await app.ask("book", as_=ANA, run="one")
    async with scene(booked, journal=app.journal) as other:
        await other.ask("book", as_=ANA, run="two")
        await other.approve("one", by=CARLA)
        assert (await other.resume("two")).status is RunStatus.WAITING
    assert booked == []


def test_a_journal_from_before_there_were_terms_is_read_as_it_was_meant() -> None:
    asked = '{"call": "0.0", "tool": "book", "arguments": "{}", "reason": "why", "rule": "rules:1", "label": %s}'
    label = '{"secrecy": [], "influence": ["doc:a"]}'
    drafts = [
        Draft("call.asked", asked % label, label, 5.0),
        Draft("call.approved", '{"call": "0.0", "digest": "d", "by": "user:mia", "note": ""}', label, 6.0),
    ]
    events = chain("r", drafts, seq=0, previous="")
    (waits,), (approved,) = fold_calls(events[:1]).values(), fold_calls(events).values()
    assert (waits.phase, waits.reason, waits.label) == (CallPhase.ASKED, "why", Label.of(None, "doc:a"))
    assert waits.question is not None
    assert waits.question.expires == float("inf")
    assert (approved.phase, approved.by) == (CallPhase.APPROVED, "user:mia")


LABELS = st.builds(Label, st.just(frozenset()), st.frozensets(st.sampled_from(["user:ana", "doc:a", "web:b"])))
CALLS = st.builds(ToolCall, st.just("0.0"), st.sampled_from(["book", "look"]), st.sampled_from(["", "{}", '{"a":1}']))


@given(CALLS, LABELS, CALLS, LABELS, st.sampled_from(CallPhase))
def test_an_approval_is_for_exactly_its_tool_arguments_and_label(
    approved: ToolCall, its: Label, asked: ToolCall, now: Label, phase: CallPhase
) -> None:
    state = CallState(approved, phase, its, question=Question(Kind.CALL, (), 0.0))
    prepared = PreparedCall(asked, booking_tool([]), {})
    same = (approved.tool, approved.arguments or "{}", its) == (asked.tool, asked.arguments or "{}", now)
    assert is_endorsed(prepared, now, state) == (same and phase is CallPhase.APPROVED)
