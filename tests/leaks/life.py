"""Apps that live on while everything around them changes, what is told of it to whom, and everybody's doors to them.

Two that converse, and one that plans, share all that they keep. Their models and tools are the worst there can be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Final

from structlog.testing import CapturingLogger

from ringwall import App, Budgets, Label, Pipeline, Principal, Rules, Turn
from ringwall.data import Mmr, Neighbours
from ringwall.deployment import EventSink
from ringwall.deployment.guard import Crossing, Guard
from ringwall.deployment.sealing import SealedJournal
from ringwall.errors import RingwallError
from ringwall.model import Location, Sampling
from ringwall.model.cache import CachedModel
from ringwall.personalization import Memory, Profile
from ringwall.personalization import MemoryStore as Memories
from ringwall.planning import plan_pipeline
from ringwall.principal import ACL
from ringwall.steps import Agent, Answer, Compose, Personalize, Plan, Remember, Retrieve
from ringwall_guards import Pii, Pseudonyms
from ringwall_guards.pii import by_patterns
from ringwall_guards.spans import Span
from tests.leaks.doing import DOING, Clock, Doing, PlanWish, Run, Trouble, Wish
from tests.leaks.hijacked import Hijacked
from tests.leaks.outbox import OUTBOX
from tests.leaks.parts import CountedReplies, Embedder, Flaky, Parts
from tests.leaks.spending import BUDGETS, Spending
from tests.leaks.town import ALWAYS, CLUBS, PEOPLE, RECEIVERS, SINKS, TENANTS, Rights, lines_of
from tests.leaks.watchers import Watchers
from tests.leaks.witness import Dress, Readers, Witness, dressed
from tests.leaks.world import QUESTIONS, everything_from, shown_forms, words_in
from tests.leaks.yeses import Yeses

GREEDY: Final = Sampling(temperature=0.0)
_PASSWORD: Final = re.compile(r"(?<=password: )secret-[\w-]+")


def guards() -> list[Guard]:
    """Models elsewhere are given pseudonyms of addresses, and nobody a password."""
    spans = lambda text: (Span(*match.span(), "password") for match in _PASSWORD.finditer(text))  # noqa: E731
    return [Pseudonyms(find=by_patterns(("email",))), Pii(frozenset(Crossing) - {Crossing.REPLY}, find=spans)]


class Keep:
    """A careless step: remembers the answer as if it were made of the question alone."""

    def __init__(self, memories: Memories) -> None:
        self._memories = memories

    async def __call__(self, turn: Turn) -> Turn:
        if "keep it" in turn.question.value:
            memory = Memory(turn.run, turn.principal.own_grant, turn.answer, turn.question.label)
            await self._memories.add(turn.principal, [memory])
        return turn


class Life:
    """Three apps on the same parts; `witness` is told of all that comes out."""

    def __init__(self, lines: CapturingLogger, folder: Path | None = None) -> None:
        self.clock, self.trouble = Clock(), Trouble()
        self.witness = Witness(dict(ALWAYS))
        self.yeses = Yeses(self.witness, dict.fromkeys(PEOPLE, Rights()), self.clock)
        self.spending = Spending(self.witness, self.clock)
        self.watchers = Watchers(self.witness, lines)
        self.runs: list[Run] = []
        self.documents: dict[str, tuple[str, str]] = {}
        self.embedder = Embedder(self.witness)
        self.outbox = OUTBOX.opened(self.witness, self.yeses, self.spending, self.trouble)
        self.outbox.breaks = self._break
        self.rules = Rules("")
        parts, replies = Parts(folder), CountedReplies(self.witness)
        self.journals: list[Flaky] = []
        self.apps = [self._app(place, parts, replies, sinks) for place, sinks in enumerate(self.watchers.sinks)]
        self.give(dict.fromkeys((*PEOPLE, *RECEIVERS, *SINKS), frozenset(CLUBS)))

    def _app(self, place: int, parts: Parts, replies: CountedReplies, sinks: tuple[EventSink, ...]) -> App:
        """The first has neither guards nor budgets, the third plans."""
        journal, sealer, documents, memories, profiles = parts.open()
        self.journals.append(journal)
        far = [self._model(Principal("model:far", tenant), Location.REMOTE) for tenant in TENANTS]
        near = self._model(Principal("model:near"), Location.IN_PROCESS)
        return App(
            name="plan" if place == 2 else "app",
            policy=self.rules,
            model=[CachedModel(model, replies) for model in (*far, near)],
            tools=self.outbox.tools,
            journal=SealedJournal(journal, sealer),
            documents=documents,
            memories=memories,
            profiles=profiles,
            embeddings=self.embedder,
            pipeline=plan_pipeline() if place == 2 else self._pipeline(),
            guards=guards() if place else (),
            budgets=Budgets(BUDGETS, parts.ledger(), now=self.clock) if place else (),
            sinks=sinks,
            clock=self.clock,
        )

    def _model(self, principal: Principal, location: Location) -> Hijacked:
        return Hijacked(self.witness, self.trouble, principal, location)

    def _pipeline(self) -> Pipeline:
        return Pipeline(
            partial(Plan, sampling=GREEDY),
            partial(Personalize, k=20),
            partial(Retrieve, k=20, fetch=40, stages=(Mmr(0.0), Neighbours())),
            self._stumble,
            Compose,
            partial(Agent, sampling=GREEDY, rounds=7),
            Answer,
            Keep,
            Remember,
        )

    async def _stumble(self, turn: Turn) -> Turn:
        if self.trouble.steps:
            raise ValueError(f"stumbled over {turn.matches} and {turn.memories}")
        return turn

    def _break(self) -> None:
        for journal in self.journals:
            journal.is_down = True

    # What changes

    def give(self, clubs: dict[Principal, frozenset[str]]) -> None:
        """These hold these clubs from now on, and no others."""
        self.witness.held |= {who: ALWAYS[who] | held for who, held in clubs.items()}
        self._obey()

    def let(self, who: Principal, rights: Rights) -> None:
        """Somebody may decide this from now on, and nothing else."""
        self.yeses.rights[who] = rights
        self._obey()

    def _obey(self) -> None:
        self.rules.replace(lines_of(self.witness.held, self.yeses.rights))
        self.watchers.gives()

    async def write(self, name: str, tenant: str, readers: frozenset[str], dress: Dress = "") -> None:
        """A document with new words; it stays as it was if the embedder may not receive them."""
        word = self.witness.new("doc", readers, tenant, source=f"doc:{tenant}::{name}.md")
        self.embedder.tenant = tenant
        acl = ACL.of(*readers, tenant=tenant)
        text = f"the wine is {dressed(word, dress)}"
        report = await self.apps[0].ingest([(f"{name}.md", text)], acl, tenant=tenant)
        for each in report.ingested:  # an embedder that may not receive it has the old words stand
            self.documents[each.document] = word, tenant

    async def relabel(self, document: str, readers: frozenset[str]) -> None:
        word, tenant = self.documents[document]
        self.witness.relabel(word, Readers(readers, tenant))
        await self.apps[1].documents.set_readers([document], ACL.of(*readers, tenant=tenant))

    async def remember(self, who: Principal, readers: frozenset[str] | None, dress: Dress = "") -> None:
        """What the owner may read now, and perhaps not later."""
        word = self.witness.new("memory", readers or (who.id,), who.tenant)
        label = Label.of(ACL((who.own_grant,)), who.id)
        if readers is not None:
            label |= Label.of(ACL.of(*readers, tenant=who.tenant))
        memory = Memory(word, who.own_grant, f"the wine is {dressed(word, dress)}", label)
        await self.apps[0].memories.add(who, [memory])

    async def change_profile(self, who: Principal) -> None:
        word = self.witness.new("profile", (who.id,), who.tenant)
        await self.apps[0].profiles.put(who, Profile(who.own_grant, preferences=(word,)))

    async def erase(self, app: App, who: Principal) -> None:
        """All that is kept of somebody is erased: nobody is told any of it from now on, not even itself."""
        await app.erase(who, by=who)
        self.witness.erases(who, [run.id for run in self.runs if run.who == who])

    # What is asked

    def app_of(self, run: Run, place: int) -> App:
        """The app that a run is one of."""
        return self.apps[2 if run.is_planned else place]

    async def ask(
        self, place: int, who: Principal, wish: Wish | PlanWish, *, named: bool, streams: bool = False
    ) -> Run:
        run = Run(f"run-{len(self.runs)}", who, wish)
        self.runs.append(run)
        word = self.witness.new("question", (who.id, QUESTIONS), who.tenant) if named else ""
        question, intent = f"{word} {wish.words}", None if wish.intent is None else (wish.intent,)
        app = self.app_of(run, place)
        if streams:
            asked = everything_from(app.stream(question, as_=who, intent=intent, run=run.id))
            await self._within(run, place, "stream", asked)
        else:
            await self._within(run, place, "answer", app.ask(question, as_=who, intent=intent, run=run.id))
        return run

    async def resume(self, place: int, run: Run, *, streams: bool = False) -> None:
        app = self.app_of(run, place)
        if streams:
            await self._within(run, place, "resumed stream", everything_from(app.resume_stream(run.id)))
        else:
            await self._within(run, place, "resumed", app.resume(run.id))

    async def _within(self, run: Run, place: int, channel: str, work: object) -> None:
        is_second = run.is_planned or place == 1
        token = DOING.set(Doing(run.id, run.who, run.is_planned, guarded=is_second, budgeted=is_second))
        self.outbox.of(run.who.tenant)
        self.spending.going.append(run)
        hear = partial(self.witness.hears, run.who, run=run.id, asker=run.who)
        try:
            hear(channel, repr(await work))  # type: ignore[misc]
        except RingwallError as error:
            hear(f"{channel}, failing", *shown_forms(error))
            self.spending.hears(run, error)
        finally:
            self.spending.going.remove(run)
            DOING.reset(token)
        for journal in self.journals:
            journal.is_down = False
        await self._note_what_it_knows(run)

    async def _note_what_it_knows(self, run: Run) -> None:
        try:
            events = await self.apps[0].journal.read(run.id)
        except RingwallError:
            return
        self.witness.comes_to_know(run.id, run.who, words_in(*events))
        if getattr(run.wish, "keeps", False) or getattr(run.wish, "remembers", False):
            self.witness.remembers(run.who, run.id)

    # What is looked at

    async def look(self, place: int, who: Principal, runs: Iterable[Run]) -> None:
        """Somebody looks at all that it is shown of these runs, and of the rules that stand."""
        by_id = {run.id: run for run in runs}
        for app in dict.fromkeys(self.app_of(run, place) for run in by_id.values()):
            for question in await app.waiting(as_=who):
                if run := by_id.get(question.run):
                    self.witness.hears(who, "approvals", question, run=run.id, asker=run.who)
            await self._look_at_what_stands(app, who)
        for run in by_id.values():
            app = self.app_of(run, place)
            for channel, door in ("events", app.events), ("explain", app.explain):
                try:
                    self.witness.hears(who, channel, repr(await door(run.id, as_=who)), run=run.id, asker=run.who)
                except RingwallError as error:
                    self.witness.hears(who, channel, repr(error), run=run.id, asker=run.who)

    async def _look_at_what_stands(self, app: App, who: Principal) -> None:
        for standing in await app.standing(as_=who):
            asker = next(run.who for run in self.runs if run.id == standing.run)
            said = (standing.rule.line, standing)
            self.witness.hears(who, "standing rules", *said, run=standing.run, asker=asker, outlives=True)
        for door in app.events, app.explain:
            try:
                self.witness.hears(who, "events", await door(f"standing:{app.name}", as_=who))
            except RingwallError as error:
                self.witness.hears(who, "events", repr(error))

    async def close(self) -> None:
        for app in self.apps:
            await app.close()
