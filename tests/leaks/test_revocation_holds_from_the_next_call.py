"""Readers, texts, roles and collections change between calls in any order: each call obeys those of its moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ringwall import App, Label, Pipeline, Principal, Rules, ScriptedModel, Turn, call, tool
from ringwall.data import DocumentStore
from ringwall.errors import FlowDenied
from ringwall.model import ModelRequest, Reply
from ringwall.personalization import Memory, MemoryStore
from ringwall.steps import Agent, Compose, Personalize, Retrieve
from tests.leaks.stores import STORES, Digests
from tests.leaks.world import (
    APPROVER,
    QUESTIONS,
    Secret,
    Words,
    World,
    heard_from_events,
    heard_from_questions,
    heard_through,
    words_in,
    words_of,
    words_shown,
)

ANA, BEN = Principal("user:ana", "acme"), Principal("user:ben", "acme")
BOOK = Principal("tool:book", "acme")
CLUBS = ("collection:red", "role:staff")
ALWAYS = {ANA: frozenset((APPROVER, QUESTIONS)), BEN: frozenset((APPROVER, QUESTIONS)), BOOK: frozenset((QUESTIONS,))}
AT_FIRST = {who: clubs.union(CLUBS) for who, clubs in ALWAYS.items()}


@dataclass(frozen=True)
class Ask:
    """Somebody, or both at once, asks the same question; the model answers or books, or the run fails at its start."""

    who: tuple[Principal, ...]
    wish: Literal["answer", "book", "stumble"]


@dataclass(frozen=True)
class Return:
    """Somebody comes back to a run: the other one approves what it waits for, or it is resumed."""

    runs_ago: int
    approves: bool


@dataclass(frozen=True)
class Write:
    """A document gets other readers, and perhaps other words."""

    place: int
    readers: frozenset[str]
    anew: bool


@dataclass(frozen=True)
class Give:
    """Somebody holds these from now on, and nothing else."""

    who: Principal
    clubs: frozenset[str]


SOME_CLUBS = st.sampled_from([frozenset(), frozenset(CLUBS[:1]), frozenset(CLUBS[1:]), frozenset(CLUBS)])
SOME_READERS = st.sampled_from([frozenset((one,)) for one in (*CLUBS, "user:ana", "public")] + [frozenset(CLUBS)])
ASKS = st.builds(Ask, st.sampled_from([(ANA,), (BEN,), (ANA, BEN)]), st.sampled_from(["answer", "book", "stumble"]))
CHANGES = st.one_of(
    st.builds(Write, st.integers(0, 1), SOME_READERS, st.booleans()),
    st.builds(Give, st.sampled_from([ANA, BEN, BOOK]), SOME_CLUBS),
)
ACTIONS = st.one_of(ASKS, CHANGES, CHANGES, st.builds(Return, st.integers(0, 2), st.booleans()))


REMEMBERED_AND_REVOKED = [
    Ask((ANA,), "answer"),
    Ask((ANA,), "stumble"),
    Give(ANA, frozenset()),
    Return(0, approves=False),
]
RELABELLED_AND_REVOKED = [
    Ask((ANA,), "answer"),
    Write(0, frozenset(("user:ana",)), anew=False),
    Ask((ANA,), "answer"),
    Give(ANA, frozenset()),
    Return(0, approves=False),
]
"""One word is known with two sets of readers: as it was, and as it is."""


@pytest.mark.parametrize("store", STORES)
def test_every_call_obeys_the_readers_and_the_policy_of_its_moment(store: str) -> None:
    kind = STORES[store]

    @example([frozenset(("collection:red",)), frozenset(("user:ana",))], RELABELLED_AND_REVOKED)
    @example([frozenset(CLUBS), frozenset(("public",))], REMEMBERED_AND_REVOKED)
    @settings(max_examples=kind.examples(of=200), deadline=None)
    @given(st.lists(SOME_READERS, min_size=2, max_size=2), st.lists(ACTIONS, min_size=3, max_size=10))
    def holds(readers: list[frozenset[str]], actions: list[Ask | Return | Write | Give]) -> None:
        written = [Write(place, of, anew=True) for place, of in enumerate(readers)]
        with kind.opened() as documents:
            asyncio.run(live([*written, *actions], documents))

    holds()


async def live(actions: Iterable[Ask | Return | Write | Give], documents: DocumentStore) -> None:
    life = Life(documents)
    async with life.app:
        for action in actions:
            match action:
                case Ask():
                    await asyncio.gather(*(life.ask(who, action.wish) for who in action.who))
                case Return():
                    await life.come_back(action)
                case Write():
                    await life.write(action)
                case Give():
                    life.give(action)


@dataclass
class Run:
    """What its principal held when a run began, and what it has read, each text with the readers that it had then."""

    id: str
    who: Principal
    held: frozenset[str]
    known: frozenset[Secret]
    phase: Literal["stumbled", "waiting", "approved", "over"] = "over"


class Keep:
    """A careless step: remembers the answer as if it were made of the question alone."""

    def __init__(self, memories: MemoryStore) -> None:
        self._memories = memories

    async def __call__(self, turn: Turn) -> Turn:
        memory = Memory(turn.run, turn.principal.own_grant, turn.answer, turn.question.label)
        await self._memories.add(turn.principal, [memory])
        return turn


class Life:
    """An app that goes on while readers and policy change, and beside it what must come of every call."""

    def __init__(self, documents: DocumentStore) -> None:
        self.world = World((ANA, BEN), documents=(), held=AT_FIRST)
        self.rules = Rules(self.world.rules)
        self.runs: list[Run] = []
        self.kept: dict[str, Run] = {}
        self.versions = 0
        self.sent: list[Words] = []
        self.shown: list[Words] = []
        self.stumbled: set[str] = set()

        @tool(effect="write", label=Label())
        async def book(text: str) -> str:
            self.sent.append(words_in(text))
            return "booked"

        recall = partial(Personalize, k=99)
        pipeline = Pipeline(self.stumble, recall, Retrieve, Compose, Agent, Keep)
        self.app = App(
            policy=self.rules,
            model=ScriptedModel(self.tell_all),
            tools=[book],
            pipeline=pipeline,
            documents=documents,
            embeddings=Digests(),
        )

    def tell_all(self, request: ModelRequest) -> Reply:
        """Book what it was shown, if it is asked to and did not yet, or else answer with it."""
        shown = words_shown(request)
        self.shown.append(shown)
        told = " ".join(sorted(shown))
        books = "book" in str(request.messages[1].content) and request.messages[-1].type == "human"
        return Reply("" if books else told, (call("book", text=told),) if books else ())

    async def write(self, change: Write) -> None:
        documents, place = list(self.world.documents), change.place
        if change.anew:
            self.versions += 1
            documents[place : place + 1] = [Secret(f"secret-{self.versions}", change.readers, "acme")]
            text = (f"{place}.md", documents[place].text)
            assert (await self.app.ingest([text], documents[place].acl, tenant="acme")).passages == 1
        else:
            documents[place] = replace(documents[place], readers=change.readers)
            await self.app.documents.set_readers([f"acme::{place}.md"], documents[place].acl)
        self.world = replace(self.world, documents=tuple(documents))

    def give(self, gift: Give) -> None:
        self.world = replace(self.world, held={**self.world.held, gift.who: gift.clubs | ALWAYS[gift.who]})
        self.rules.replace(self.world.rules)

    async def stumble(self, turn: Turn) -> Turn:
        """A step that fails when it is first asked to."""
        if "stumble" in turn.question.value and turn.run not in self.stumbled:
            self.stumbled.add(turn.run)
            raise ValueError("stumbled")
        return turn

    def reads(self, who: Principal, held: frozenset[str]) -> frozenset[Secret]:
        """What a run finds for somebody who held this when it began: by that and by what it holds now."""
        world = replace(self.world, held={**self.world.held, who: held & self.world.held[who]})
        memories = [run.known for run in self.kept.values() if run.who == who and world.may_read(who, *run.known)]
        own = frozenset((Secret("", frozenset((who.id,)), who.tenant),)) if memories else frozenset()
        return world.found_for(who).union(own, *memories)

    async def ask(self, who: Principal, wish: str) -> None:
        held = self.world.held[who]
        run = Run(f"run-{len(self.runs)}", who, held, self.reads(who, held))
        self.runs.append(run)
        if wish == "stumble":
            run.known, run.phase = frozenset(), "stumbled"
        elif wish == "book" and self.world.may_read(BOOK, *run.known):
            run.phase = "waiting"
        heard = await heard_through(self.app.ask(f"{wish} the wine", as_=who, run=run.id))
        assert heard == words_of(run.known)
        await self.check(run)

    async def come_back(self, action: Return) -> None:
        if not self.runs:
            return
        run = self.runs[-1 - action.runs_ago % len(self.runs)]
        await (self.approve(run) if action.approves and run.phase == "waiting" else self.resume(run))
        await self.check(run)

    async def approve(self, run: Run) -> None:
        (other,) = {ANA, BEN} - {run.who}
        if self.world.may_read(other, *run.known):
            await self.app.approve(run.id, by=other)
            run.phase = "approved"
        else:
            with pytest.raises(FlowDenied):
                await self.app.approve(run.id, by=other)

    async def resume(self, run: Run) -> None:
        if run.phase == "stumbled":
            run.known = self.reads(run.who, run.held)
        flows = self.world.may_read(BOOK, *run.known)
        still_waits, sends = run.phase == "waiting" and flows, run.phase == "approved" and flows
        goes_on = run.phase != "over" and not still_waits
        self.sent.clear()
        self.shown.clear()
        heard = await heard_through(self.app.resume(run.id))
        assert heard == (words_of(run.known) if self.world.may_read(run.who, *run.known) else frozenset())
        assert self.shown == ([words_of(run.known)] if goes_on else [])
        assert self.sent == ([words_of(run.known)] if sends else [])
        run.phase = "waiting" if still_waits else "over"

    async def check(self, run: Run) -> None:
        """Its events and its open question are shown to whoever may receive them now; once over, it is remembered."""
        if run.phase == "over":
            self.kept[run.id] = run
        for who in ANA, BEN:
            told = self.world.readable(who, run.known)
            all_of_it = words_of(run.known) if self.world.may_read(who, *run.known) else frozenset()
            events = await heard_from_events(self.app, run.id, who)
            assert all_of_it <= events <= told if who == run.who else not events
            questions = await heard_from_questions(self.app, run.id, who)
            assert questions == (all_of_it if run.phase == "waiting" and who != run.who else frozenset())
