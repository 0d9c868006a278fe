"""Whatever the documents, their readers, the asker, the policy and the model: no unreadable text reaches anybody."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import App, Principal, Rules
from ringwall.data import DocumentStore
from ringwall.deployment import EventSink
from ringwall.deployment.guard import Crossing, Guard, Passing, Ruling
from ringwall.model import Location
from ringwall.personalization import Memory, Profile
from tests.leaks.stores import STORES, Digests
from tests.leaks.world import (
    APPROVER,
    AUDITOR,
    CLUBS,
    DOORS,
    ERRORS,
    EVERYTHING,
    OUTBOX,
    QUESTIONS,
    RECEIVERS,
    Ask,
    Fate,
    Hijacked,
    Secret,
    Stage,
    Words,
    everything_from,
    fate_of,
    heard_from_events,
    heard_from_questions,
    heard_through,
    words_in,
    words_of,
)

TENANTS = st.sampled_from([("", ""), ("acme", "zeta"), ("acme", "")])
EVERY_CLUB = frozenset((*CLUBS, QUESTIONS))
CLUB_SETS = st.sampled_from([frozenset(some) for n in range(len(CLUBS) + 1) for some in combinations(CLUBS, n)])
NEARLY_EVERY_CLUB = st.sampled_from([EVERY_CLUB] * 4 + [EVERY_CLUB - {club} for club in CLUBS] + [frozenset()])
READERS = st.frozensets(st.sampled_from(["public", "user:ana", "user:ben", "user:zoe", *CLUBS]), min_size=1, max_size=3)
MOVES = st.lists(st.sampled_from(["peek", "post", "mail", "book"]), max_size=3, unique=True).map(tuple)
ENDS = st.sampled_from(["answer", "answer", *ERRORS])


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    """Three people of one tenant and one of another, of none or of the same; texts of both; what everybody holds."""
    home, away = draw(TENANTS)
    names = {"user:ana": home, "user:ben": home, "user:cy": home, "user:zoe": away}
    people = tuple(Principal(name, tenant) for name, tenant in names.items())
    texts = draw(st.lists(st.tuples(READERS, st.sampled_from((home, home, home, away))), max_size=4))
    documents = tuple(Secret(f"secret-{number}", *text) for number, text in enumerate(texts))
    far = Principal("model:far", home)
    receivers = [far, *(Principal(name, home) for names in RECEIVERS.values() for name in names)]
    held = {receiver: draw(NEARLY_EVERY_CLUB) for receiver in receivers}
    held[Principal("tool:mail", home)] = EVERY_CLUB  # it counts for nothing: a mail has recipients
    held |= {somebody: draw(CLUB_SETS) for somebody in people}
    for overseer in people[1], people[3]:
        held[overseer] |= {APPROVER, AUDITOR, QUESTIONS}
    remembered = draw(st.frozensets(st.sampled_from(people), max_size=2))
    return Stage(
        people, documents, held, far, draw(st.booleans()), Secret("secret-peek", draw(READERS), home), remembered
    )


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Stage, list[Ask]]:
    world, asks = draw(stages()), []
    for number in range(draw(st.integers(1, 3))):
        who, moves = draw(st.sampled_from(world.people)), draw(MOVES)
        intent = draw(st.sampled_from([None, None, "post"]))
        door = draw(st.sampled_from(["ask", "stream"] if intent else sorted(DOORS)))
        question = Secret(f"secret-question-{number}", frozenset((who.id, QUESTIONS)), who.tenant)
        asks.append(Ask(who, door, (intent, *moves) if intent else moves, draw(ENDS), question, intent))
    return world, asks


class Play:
    """A stage as an app, with models and tools that keep what they are shown, and the asks that are made of it."""

    def __init__(
        self,
        world: Stage,
        asks: list[Ask],
        documents: DocumentStore,
        sinks: Sequence[EventSink] = (),
        guards: Sequence[Guard] = (),
    ) -> None:
        self.world, self.asks = world, asks
        self.far = Hijacked(asks, principal=world.far, location=Location.REMOTE)
        self.near = Hijacked(asks, principal=Principal("model:near"), location=Location.IN_PROCESS)
        OUTBOX.open(world)
        self.app = App(
            policy=Rules(world.rules),
            model=[self.far, self.near] if world.has_local_model else self.far,
            tools=OUTBOX.tools,
            pipeline=EVERYTHING,
            documents=documents,
            embeddings=Digests(),
            sinks=sinks,
            guards=guards,
        )

    async def fill(self) -> None:
        for secret in self.world.documents:
            document = (f"{secret.word}.md", secret.text)
            assert (await self.app.ingest([document], secret.acl, tenant=secret.tenant)).passages == 1
        for who in self.world.remembered:
            memory, profile = sorted(self.world.personal(who), key=lambda secret: secret.word)
            label = memory.label(who.id)
            await self.app.memories.add(who, [Memory("1", who.own_grant, memory.text, label)])
            await self.app.profiles.put(who, Profile(who.own_grant, preferences=(profile.text,)))

    async def ask(self) -> list[Words]:
        """Ask all at once; what each asker heard."""
        return await asyncio.gather(*(heard_through(DOORS[ask.door](self.app, ask)) for ask in self.asks))

    async def runs_of(self, ask: Ask) -> list[str]:
        runs = [record.run for record in await self.app.journal.runs()]
        return [run for run in runs if ask.question.word in words_in((await self.app.journal.read(run))[0].body)]

    def may_approve(self, who: Principal, ask: Ask, fate: Fate) -> bool:
        may = who != ask.who and who.tenant == ask.who.tenant and APPROVER in self.world.held[who]
        return fate.waits and may and self.world.may_read(who, *fate.known)

    def may_audit(self, who: Principal, ask: Ask) -> bool:
        return who == ask.who or (AUDITOR in self.world.held[who] and who.tenant in ("", ask.who.tenant))


@pytest.mark.parametrize("store", STORES)
def test_what_anybody_is_told_is_what_it_may_read(store: str, caplog: pytest.LogCaptureFixture) -> None:
    kind = STORES[store]

    @settings(max_examples=kind.examples(of=300), deadline=None)
    @given(scene=scenes())
    def holds(scene: tuple[Stage, list[Ask]]) -> None:
        caplog.clear()
        with kind.opened() as documents:
            play = Play(*scene, documents)
            with caplog.at_level(logging.DEBUG), play.app as app:
                app.run_sync(play_and_look_everywhere(play))
        assert caplog.records
        assert not words_in(caplog.text)

    holds()


class LetsPass(Guard):
    """Stands everywhere, and lets pass what comes."""

    name, crossings = "lets-pass", frozenset(Crossing)

    async def inspect(self, passing: Passing) -> Ruling:
        return Ruling(passing.text)


@settings(max_examples=150, deadline=None)
@given(scene=scenes())
def test_guards_open_no_way_and_close_none(scene: tuple[Stage, list[Ask]]) -> None:
    with STORES["memory"].opened() as documents:
        play = Play(*scene, documents, guards=[LetsPass()])
        with play.app as app:
            app.run_sync(play_and_look_everywhere(play))


async def play_and_look_everywhere(play: Play) -> None:
    world, app = play.world, play.app
    await play.fill()
    shown, sent = set(), set()
    for ask, heard in zip(play.asks, await play.ask(), strict=True):
        fate = fate_of(ask, world, approved=False)
        approvers = [who for who in world.people if play.may_approve(who, ask, fate)]
        for run in await play.runs_of(ask):
            for who in world.people:
                told = words_of(fate.known) if who in approvers else frozenset()
                assert await heard_from_questions(app, run, who) == told
            if approvers:
                await app.approve(run, by=approvers[0])
                again = everything_from(app.resume_stream(run)) if ask.streams else app.resume(run)
                heard |= await heard_through(again)
        if approvers:
            fate = fate_of(ask, world, approved=True)
        assert words_of(fate.heard) <= heard <= world.readable(ask.who, fate.known)
        for run in await play.runs_of(ask):
            for who in world.people:
                told = world.readable(who, fate.known) if play.may_audit(who, ask) else frozenset()
                seen = await heard_from_events(app, run, who)
                assert seen == told if told == words_of(fate.known) else seen <= told
        shown |= fate.shown
        sent |= fate.sent
    assert {*play.far.shown, *play.near.shown} == shown
    assert set(OUTBOX.sent) == sent
