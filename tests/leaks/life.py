"""An app that lives on while everything around it changes, in two copies, and what is told of it to whom.

Its models and tools are the worst there can be: each says all that it was ever shown in a run, wherever it can.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from ringwall import App, Label, MemoryStore, Pipeline, Principal, Rules, ScriptedModel, Turn, call, tool
from ringwall.data import DocumentStore, Mmr, Neighbours
from ringwall.deployment.journal import (
    Draft,
    Event,
    Head,
    InMemoryJournal,
    Inspection,
    Journal,
    RunRecord,
    RunStatus,
    Worker,
)
from ringwall.deployment.sealing import SealedJournal, Sealer
from ringwall.errors import JournalUnavailable, RingwallError
from ringwall.interface import FunctionTool
from ringwall.model import Location, ModelRequest, Reply, Sampling
from ringwall.model.cache import CachedModel, InMemoryReplies, KeptReply
from ringwall.personalization import InMemoryMemories, InMemoryProfiles, Memory, ProfileStore
from ringwall.personalization import MemoryStore as Memories
from ringwall.principal import ACL
from ringwall.steps import Agent, Answer, Compose, Personalize, Plan, Remember, Retrieve
from ringwall_audit import AesSealer, InMemoryKeys
from ringwall_sql import SqlDocuments, SqlJournal, SqlMemories, SqlProfiles
from tests.leaks.stores import Digests
from tests.leaks.witness import Readers, Witness
from tests.leaks.world import APPROVER, AUDITOR, ERRORS, QUESTIONS, everything_from, shown_forms, words_in

ANA, BEN, ZOE, YAN = (
    Principal("user:ana", "acme"),
    Principal("user:ben", "acme"),
    Principal("user:zoe", "zeta"),
    Principal("user:yan", "zeta"),
)
PEOPLE: Final = (ANA, BEN, ZOE, YAN)
TENANTS: Final = ("acme", "zeta")
CLUBS: Final = ("collection:red", "role:staff", "role:boss")
TOOLS: Final = ("post", "mail", "book", "peek", "look")
RECEIVERS: Final = tuple(
    Principal(name, tenant)
    for tenant in TENANTS
    for name in ("model:far", "model:embedder", "to:bo", *(f"tool:{name}" for name in TOOLS))
)
ALWAYS: Final = {who: frozenset((QUESTIONS, APPROVER, AUDITOR)) for who in PEOPLE} | {
    who: frozenset((QUESTIONS,)) for who in RECEIVERS
}
RULES: Final = """
role boss includes staff
allow user:* ask app:app
allow user:* call tool:*
allow doc:*  call tool:*
allow tool:* call tool:*
ask   user:* call tool:book
allow role:approver approve tool:*
allow role:auditor audit app:app
allow user:* erase subject:self
"""
GREEDY: Final = Sampling(temperature=0.0)

RUN: Final[ContextVar[tuple[str, Principal]]] = ContextVar("RUN")
"""The run within which something happens, and who asked it."""


@dataclass(frozen=True)
class Wish:
    """What a run is asked to do: tools to call one after the other, and how it ends."""

    moves: tuple[str, ...] = ()
    end: str = "answer"
    intent: str | None = None
    keeps: bool = False
    remembers: bool = False

    @property
    def words(self) -> str:
        begin = "remember: " if self.remembers else "what of "
        return f"{begin}the wine? do({','.join(self.moves)}) end({self.end})" + (" keep it" if self.keeps else "")


@dataclass
class Run:
    id: str
    who: Principal
    wish: Wish


@dataclass
class Trouble:
    """What does not work at present, and the change of policy that comes while a model thinks."""

    models: bool = False
    tools: str = ""
    steps: bool = False
    meanwhile: list[Callable[[], None]] = field(default_factory=list)


class Parts:
    """Where everything is kept; opened twice for two apps that share it."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._journal = InMemoryJournal()
        self._sealer = AesSealer(InMemoryKeys())
        self._documents, self._memories, self._profiles = MemoryStore(), InMemoryMemories(), InMemoryProfiles()

    def open(self) -> tuple[Flaky, Sealer, DocumentStore, Memories, ProfileStore]:
        if self.folder is None:
            return Flaky(self._journal), self._sealer, self._documents, self._memories, self._profiles
        file = self.folder / "all.db"
        sealer = AesSealer.at(self.folder / "keys.db")
        documents = SqlDocuments(self.folder / "documents.db")
        return Flaky(SqlJournal(file)), sealer, documents, SqlMemories(file), SqlProfiles(file)


class Flaky(Journal):
    """A journal whose disk may fail for a while: what a run did last is then in doubt."""

    def __init__(self, inner: Journal) -> None:
        self.inner, self.is_down = inner, False

    def _check(self) -> None:
        if self.is_down:
            raise JournalUnavailable("the disk is gone")

    async def start(
        self,
        run: str,
        owner: str,
        drafts: Sequence[Draft],
        *,
        status: RunStatus = RunStatus.RUNNING,
        durable: bool = False,
        worker: Worker | None = None,
    ) -> Head:
        self._check()
        return await self.inner.start(run, owner, drafts, status=status, durable=durable, worker=worker)

    async def append(
        self,
        run: str,
        drafts: Sequence[Draft],
        after: Head,
        *,
        status: RunStatus | None = None,
        durable: bool = False,
        worker: Worker | None = None,
    ) -> Head:
        self._check()
        return await self.inner.append(run, drafts, after, status=status, durable=durable, worker=worker)

    async def read(self, run: str) -> list[Event]:
        return await self.inner.read(run)

    async def record(self, run: str) -> RunRecord:
        return await self.inner.record(run)

    async def runs(self, status: RunStatus | None = None) -> list[RunRecord]:
        return await self.inner.runs(status)

    async def inspect(self, inspection: Inspection) -> None:
        await self.inner.inspect(inspection)

    async def close(self) -> None:
        await self.inner.close()


class CountedReplies(InMemoryReplies):
    """Counts how often somebody was given a reply that was kept."""

    def __init__(self, witness: Witness) -> None:
        super().__init__()
        self._witness = witness

    async def get(self, key: str) -> KeptReply | None:
        reply = await super().get(key)
        self._witness.told["cache"] += reply is not None
        return reply


class Embedder(Digests):
    """An embedder elsewhere: it receives what it embeds."""

    principal = Principal("model:embedder")  # type: ignore[assignment]

    def __init__(self, witness: Witness) -> None:
        self.witness = witness
        self.tenant = ""

    def embed_query(self, text: str) -> list[float]:
        run, asker = RUN.get(("", Principal("user:nobody", self.tenant)))
        self.witness.hears(Principal("model:embedder", asker.tenant), "embedder", text, run=run, asker=asker)
        return super().embed_query(text)


class Hijacked(ScriptedModel):
    """Tells all it was shown, in its text and in every argument, and does what the question asks for."""

    def __init__(self, life: Life, principal: Principal, location: Location) -> None:
        super().__init__(self.tell, name=principal.id.partition(":")[2], location=location, window=1_000_000)
        self._life, self._principal = life, principal

    @property
    def principal(self) -> Principal:
        return self._principal

    def tell(self, request: ModelRequest) -> Reply:
        run, asker = RUN.get()
        texts = [(message.content, getattr(message, "tool_calls", ())) for message in request.messages]
        witness = self._life.witness
        if self.info.location is Location.REMOTE:
            witness.hears(self.principal, "hosted model", texts, run=run, asker=asker)
        witness.arrives(run, asker, texts)
        while self._life.trouble.meanwhile:
            self._life.trouble.meanwhile.pop()()
        told = " ".join(sorted(words_in(texts)))
        move = self._move(str(texts), sum(message.type == "ai" for message in request.messages), request)
        if move in ERRORS or self._life.trouble.models:
            error = ERRORS.get(move, ValueError)(told)
            error.add_note(told)
            raise error from KeyError(told)
        if move == "answer":
            return Reply(told)
        return Reply(told, (call(move, text=told, **({"to": "bo"} if move == "mail" else {})),))

    @staticmethod
    def _move(texts: str, said: int, request: ModelRequest) -> str:
        moves, end = re.findall(r"do\(([a-z,]*)\) end\((\w+)\)", texts)[-1]
        if request.tool_choice:
            return str(request.tool_choice)
        line: list[str] = [*filter(None, moves.split(",")), *[end] * 9]
        return line[said]


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
    """Two apps on the same parts, and everybody's doors to them; `witness` is told of all that comes out."""

    def __init__(self, folder: Path | None = None) -> None:
        self.witness = Witness(dict(ALWAYS))
        self.rules = Rules(RULES)
        self.trouble = Trouble()
        self.runs: list[Run] = []
        self.documents: dict[str, tuple[str, str]] = {}
        self.peeked = frozenset(("role:staff",))
        self.embedder = Embedder(self.witness)
        self.tools = self._tools()
        parts, replies = Parts(folder), CountedReplies(self.witness)
        self.journals: list[Flaky] = []
        self.apps = [self._app(parts, replies) for _ in range(2)]
        self.give(dict.fromkeys((*PEOPLE, *RECEIVERS), frozenset(CLUBS)))

    def _app(self, parts: Parts, replies: CountedReplies) -> App:
        journal, sealer, documents, memories, profiles = parts.open()
        self.journals.append(journal)
        far = [Hijacked(self, Principal("model:far", tenant), Location.REMOTE) for tenant in TENANTS]
        near = Hijacked(self, Principal("model:near"), Location.IN_PROCESS)
        return App(
            policy=self.rules,
            model=[CachedModel(model, replies) for model in (*far, near)],
            tools=self.tools,
            journal=SealedJournal(journal, sealer),
            documents=documents,
            memories=memories,
            profiles=profiles,
            embeddings=self.embedder,
            pipeline=Pipeline(
                partial(Plan, sampling=GREEDY),
                partial(Personalize, k=20),
                partial(Retrieve, k=20, fetch=40, stages=(Mmr(0.0), Neighbours())),
                self.stumble,
                Compose,
                partial(Agent, sampling=GREEDY, rounds=7),
                Answer,
                Keep,
                Remember,
            ),
        )

    def _tools(self) -> list[FunctionTool]:
        nothing = Label()

        @tool(effect="write", control=(), label=nothing)
        async def post(text: str) -> str:
            return self._received("tool:post", text)

        @tool(effect="write", recipients=("to",), label=nothing)
        async def mail(text: str, to: str) -> str:
            return self._received(f"to:{to}", text)

        @tool(effect="write", label=nothing)
        async def book(text: str) -> str:
            return self._received("tool:book", text)

        @tool(effect="read", label=nothing)
        async def peek(text: str) -> str:
            return self._received("tool:peek", text, Readers(self.peeked, RUN.get()[1].tenant))

        @tool(effect="read")
        async def look(text: str) -> str:
            asker = RUN.get()[1]
            return self._received("tool:look", text, Readers(frozenset((asker.id,)), asker.tenant))

        self.peek = peek
        return [post, mail, book, peek, look]

    def _received(self, receiver: str, text: str, returned: Readers | None = None) -> str:
        """What a tool was given; what it finds is a new secret, and so is what it says when it fails."""
        run, asker = RUN.get()
        self.witness.hears(Principal(receiver, asker.tenant), "tool", text, run=run, asker=asker)
        if self.trouble.tools == "doubt":
            for journal in self.journals:
                journal.is_down = True
        if returned is None:
            word = "done"
        else:
            word = self.witness.new("found", *returned)
            self.witness.comes_to_know(run, asker, [word])
        if self.trouble.tools == "fail":
            raise ValueError(f"{word} {text}")
        return word

    async def stumble(self, turn: Turn) -> Turn:
        if self.trouble.steps:
            raise ValueError(f"stumbled over {turn.matches} and {turn.memories}")
        return turn

    # What changes

    def give(self, clubs: dict[Principal, frozenset[str]]) -> None:
        """These hold these clubs from now on, and no others."""
        self.witness.held |= {who: ALWAYS[who] | held for who, held in clubs.items()}
        lines = [
            f"{'member' if club.startswith('role:') else 'grant'} {who.id} {club} in {who.tenant}"
            for who, held in self.witness.held.items()
            for club in sorted(held)
        ]
        self.rules.replace([RULES, *lines])

    async def write(self, name: str, tenant: str, readers: frozenset[str]) -> None:
        """A document with new words; it stays as it was if the embedder may not receive them."""
        word = self.witness.new("doc", readers, tenant)
        self.embedder.tenant = tenant
        acl = ACL.of(*readers, tenant=tenant)
        report = await self.apps[0].ingest([(f"{name}.md", f"the wine is {word}")], acl, tenant=tenant)
        if report.passages:
            acl = ACL.of(*readers, tenant=tenant)
        report = await self.apps[0].ingest([(f"{name}.md", f"the wine is {word}")], acl, tenant=tenant)
        for each in report.ingested:  # an embedder that may not receive it has the old words stand
            self.documents[each.document] = word, tenant

    async def relabel(self, document: str, readers: frozenset[str]) -> None:
        word, tenant = self.documents[document]
        self.witness.readers[word] = Readers(readers, tenant)
        await self.apps[1].documents.set_readers([document], ACL.of(*readers, tenant=tenant))

    async def erase(self, app: App, who: Principal) -> None:
        """All that is kept of somebody is erased: nobody is told any of it from now on, not even itself."""
        await app.erase(who, by=who)
        self.witness.erases(who, [run.id for run in self.runs if run.who == who])

    # What is asked

    async def ask(self, app: App, who: Principal, wish: Wish, *, named: bool, streams: bool) -> None:
        run = Run(f"run-{len(self.runs)}", who, wish)
        self.runs.append(run)
        word = self.witness.new("question", (who.id, QUESTIONS), who.tenant) if named else ""
        question, intent = f"{word} {wish.words}", None if wish.intent is None else (wish.intent,)
        if streams:
            asked = everything_from(app.stream(question, as_=who, intent=intent, run=run.id))
            await self._within(run, "stream", asked)
        else:
            await self._within(run, "answer", app.ask(question, as_=who, intent=intent, run=run.id))

    async def resume(self, app: App, run: Run, *, streams: bool) -> None:
        if streams:
            await self._within(run, "resumed stream", everything_from(app.resume_stream(run.id)))
        else:
            await self._within(run, "resumed", app.resume(run.id))

    async def _within(self, run: Run, channel: str, work: object) -> None:
        token = RUN.set((run.id, run.who))
        self.peek.label = Label.of(ACL.of(*self.peeked, tenant=run.who.tenant), "tool:peek")
        hear = partial(self.witness.hears, run.who, run=run.id, asker=run.who)
        try:
            hear(channel, repr(await work))  # type: ignore[misc]
        except RingwallError as error:
            hear(f"{channel}, failing", *shown_forms(error))
        finally:
            RUN.reset(token)
        for journal in self.journals:
            journal.is_down = False
        await self._note_what_it_knows(run)

    async def _note_what_it_knows(self, run: Run) -> None:
        try:
            events = await self.apps[0].journal.read(run.id)
        except RingwallError:
            return
        self.witness.comes_to_know(run.id, run.who, words_in(*events))
        if run.wish.keeps or run.wish.remembers:
            self.witness.remembers(run.who, run.id)

    # What is looked at

    async def answer(self, app: App, run: Run, by: Principal, how: str) -> None:
        """Somebody approves, denies or resolves, and says something with it."""
        word = self.witness.new("note", (run.who.id, QUESTIONS), run.who.tenant)
        try:
            if how == "approve":
                await app.approve(run.id, by=by, note=word)
            elif how == "deny":
                await app.deny(run.id, by=by, note=word)
            else:
                await app.resolve(run.id, by=by, happened=how == "happened", result=word)
            self.witness.told[how] += 1
        except RingwallError as error:
            said = [str(error), repr(error), vars(error), error.__cause__, error.__context__]
            self.witness.hears(by, "approver's error", *said, run=run.id, asker=run.who)

    async def look(self, app: App, who: Principal, runs: Iterable[Run]) -> None:
        """Somebody looks at all that it is shown of these runs."""
        by_id = {run.id: run for run in runs}
        for question in await app.waiting(as_=who):
            if run := by_id.get(question.run):
                self.witness.hears(who, "approvals", question, run=run.id, asker=run.who)
        for run in by_id.values():
            for channel, door in ("events", app.events), ("explain", app.explain):
                try:
                    self.witness.hears(who, channel, repr(await door(run.id, as_=who)), run=run.id, asker=run.who)
                except RingwallError as error:
                    self.witness.hears(who, channel, repr(error), run=run.id, asker=run.who)

    async def close(self) -> None:
        for app in self.apps:
            await app.close()
