"""A small world in which every text carries a word of its own, and in which the model tells all that it was shown.

Who may read what is worked out here from readers and holdings alone: the labels of the framework are not asked.
"""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from ringwall import ACL, App, Label, Pipeline, Principal, ScriptedModel, Tool, call, tool
from ringwall.data import Mmr, Neighbours
from ringwall.errors import ProviderUnavailable, RingwallError, UnknownRun
from ringwall.model import Location, ModelRequest, Reply
from ringwall.steps import Agent, Answer, Compose, Personalize, Plan, Retrieve

Words = frozenset[str]

CLUBS: Final = ("collection:red", "collection:blue", "role:staff")
QUESTIONS, APPROVER, AUDITOR = "collection:questions", "role:approver", "role:auditor"
ERRORS: Final[Mapping[str, Callable[[str], Exception]]] = {
    "ValueError": ValueError,
    "ProviderUnavailable": ProviderUnavailable,
}
RULES: Final = """
allow user:* ask app:app
allow user:* call tool:*
allow doc:*  call tool:*
allow tool:* call tool:*
ask   user:* call tool:book
allow role:approver approve tool:book
allow role:auditor audit app:app
"""
EVERYTHING: Final = Pipeline(
    Plan,
    partial(Personalize, k=20),
    partial(Retrieve, k=20, fetch=40, stages=(Mmr(0.0), Neighbours())),
    Compose,
    Agent,
    Answer,
)


@dataclass(frozen=True)
class Secret:
    """A text that some may read: a word that stands nowhere else, its readers, and the tenant it belongs to."""

    word: str
    readers: frozenset[str]
    tenant: str

    @property
    def text(self) -> str:
        return f"the wine is {self.word}"

    @property
    def acl(self) -> ACL:
        return ACL.of(*self.readers, tenant=self.tenant)

    def label(self, *influence: str) -> Label:
        return Label.of(self.acl, *influence)


def words_in(*texts: object) -> Words:
    """The words of secrets in `texts`."""
    return frozenset(re.findall(r"secret-[\w-]+", "\n".join(map(str, texts))))


def words_shown(request: ModelRequest) -> Words:
    """The words of secrets in what a model is shown."""
    return words_in([(message.content, getattr(message, "tool_calls", ())) for message in request.messages])


def words_of(secrets: Iterable[Secret]) -> Words:
    return frozenset(secret.word for secret in secrets if secret.word)


@dataclass(frozen=True)
class World:
    """Who and what there is, and what everybody holds beyond itself."""

    people: tuple[Principal, ...]
    documents: tuple[Secret, ...]
    held: Mapping[Principal, frozenset[str]]

    def may_read(self, who: Principal, *secrets: Secret) -> bool:
        return all(self._may_read(who, secret) for secret in secrets)

    def _may_read(self, who: Principal, secret: Secret) -> bool:
        mine = {who.id, *self.held.get(who, ())}
        return "public" in secret.readers or (secret.tenant == who.tenant and bool(secret.readers & mine))

    def readable(self, who: Principal, secrets: Iterable[Secret]) -> Words:
        """The words of those among `secrets` that somebody may read."""
        return words_of(secret for secret in secrets if self.may_read(who, secret))

    def found_for(self, who: Principal) -> frozenset[Secret]:
        """The documents that a run of somebody finds: all that it may read."""
        return frozenset(document for document in self.documents if self.may_read(who, document))

    @property
    def rules(self) -> str:
        return "\n".join([RULES, *(_line(who, club) for who, clubs in self.held.items() for club in sorted(clubs))])


def _line(who: Principal, club: str) -> str:
    """The line of a policy that gives somebody this."""
    keyword = "member" if club.startswith("role:") else "grant"
    return f"{keyword} {who.id} {club}" + (f" in {who.tenant}" if who.tenant else "")


@dataclass(frozen=True)
class Stage(World):
    """A world with what a hijacked model can reach from within it.

    A hosted model, a local one perhaps, a tool that returns a secret, and of some people a memory and a profile.
    """

    far: Principal
    has_local_model: bool
    peeked: Secret
    remembered: frozenset[Principal]

    def personal(self, who: Principal) -> frozenset[Secret]:
        """What is kept about somebody: a memory and a profile, for the owner's eyes."""
        number, own = self.people.index(who), frozenset((who.id,))
        kinds = ("memory", "profile") if who in self.remembered else ()
        return frozenset(Secret(f"secret-{kind}-{number}", own, who.tenant) for kind in kinds)

    def models_for(self, known: Iterable[Secret]) -> list[str]:
        """Who may be asked by a run that has read this, first to last."""
        far = [self.far.id] if self.may_read(self.far, *known) else []
        return [*far, "model:near"] if self.has_local_model else far


# What a run is asked to do, and what must come of it


@dataclass(frozen=True)
class Ask:
    """A question of somebody through one of the doors, and what the hijacked model does with what it is shown.

    `moves` are the tools it calls, one after the other; `end` is `answer`, or the error it raises. With `intent` the
    first move is what the user's own action calls for.
    """

    who: Principal
    door: str
    moves: tuple[str, ...]
    end: str
    question: Secret
    intent: str | None = None

    @property
    def streams(self) -> bool:
        return self.door in ("stream", "runnable.stream", "runnable.astream")

    @property
    def shows_what_waits(self) -> bool:
        return not self.door.startswith("runnable.")


@dataclass
class Fate:
    """What must come of an ask: what each model was shown, who was sent what, and what the asker heard."""

    known: frozenset[Secret]
    shown: set[tuple[str, Words]] = field(default_factory=set)
    sent: set[tuple[str, Words]] = field(default_factory=set)
    heard: frozenset[Secret] = frozenset()
    waits: bool = False


RECEIVERS: Final = {"post": ("tool:post",), "mail": ("to:bo", "to:cy"), "book": ("tool:book",), "peek": ("tool:peek",)}
"""Who receives what a model writes into a call of each tool."""


def fate_of(ask: Ask, world: Stage, *, approved: bool) -> Fate:
    """Play an ask by one rule: a text made of all that the run has read goes to whoever may read all of that."""
    fate = Fate(frozenset((ask.question,)))
    for place, move in enumerate((*ask.moves, ask.end)):
        planned = place == 0 and ask.intent is not None
        if not planned:
            fate.known |= world.personal(ask.who) | world.found_for(ask.who)
        known = words_of(fate.known)
        may_hear = world.may_read(ask.who, *fate.known)
        models = world.models_for(fate.known)
        fate.shown |= {(model, known) for model in (models if move == "ProviderUnavailable" else models[:1])}
        if not models:
            break
        if move in ERRORS or move == "answer" or (ask.streams and not planned):
            fate.heard |= fate.known if may_hear else frozenset()
            if not may_hear:
                break
        receivers = [Principal(name, ask.who.tenant) for name in RECEIVERS.get(move, ())]
        if not receivers or not all(world.may_read(receiver, *fate.known) for receiver in receivers):
            continue
        if move == "book":
            fate.heard |= fate.known if may_hear and ask.shows_what_waits else frozenset()
            fate.waits = not approved
            if fate.waits:
                break
        fate.sent |= {(receiver.id, known) for receiver in receivers}
        fate.known |= {world.peeked} if move == "peek" else frozenset()
    return fate


# What stands in the world: models and tools that keep what they are shown


class Hijacked(ScriptedModel):
    """Tells everything it was shown: in its text, in the arguments of every tool, in its errors."""

    def __init__(self, asks: Sequence[Ask], *, principal: Principal, location: Location) -> None:
        super().__init__(self.tell, name=principal.id.removeprefix("model:"), location=location, window=100_000)
        self.shown: list[tuple[str, Words]] = []
        self._asks = {ask.question.word: ask for ask in asks}
        self._principal = principal

    @property
    def principal(self) -> Principal:
        return self._principal

    def tell(self, request: ModelRequest) -> Reply:
        shown = words_shown(request)
        self.shown.append((self.principal.id, shown))
        ask = next(ask for word, ask in self._asks.items() if word in shown)
        said = sum(message.type == "ai" for message in request.messages)
        move = (*ask.moves, ask.end)[said]
        told = " ".join(sorted(shown))
        if move in ERRORS:
            error = ERRORS[move](told)
            error.add_note(told)
            raise error from KeyError(told)
        return Reply(told, () if move == "answer" else (call(move, text=told),))


class Outbox:
    """Tools, and what each receiver was sent through them; made once, and opened anew for every stage."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Words]] = []
        self._peeked = ""
        nothing = Label()

        @tool(effect="write", control=(), label=nothing)
        async def post(text: str) -> str:
            self.sent.append(("tool:post", words_in(text)))
            return "posted"

        @tool(effect="write", recipients=("to",), label=nothing)
        async def mail(text: str, to: frozenset[str] = frozenset(("bo", "cy"))) -> str:
            self.sent.extend((f"to:{name}", words_in(text)) for name in to)
            return "mailed"

        @tool(effect="write", label=nothing)
        async def book(text: str) -> str:
            self.sent.append(("tool:book", words_in(text)))
            return "booked"

        @tool(effect="read")
        async def peek(text: str) -> str:
            self.sent.append(("tool:peek", words_in(text)))
            return self._peeked

        self.peek = peek
        self.tools: tuple[Tool, ...] = (post, mail, book, peek)

    def open(self, stage: Stage) -> None:
        self.sent.clear()
        self._peeked, self.peek.label = stage.peeked.text, stage.peeked.label("tool:peek")


OUTBOX: Final = Outbox()


# The doors, each with all that it lets out


async def everything_from(stream: AsyncIterable[object]) -> list[object]:
    return [piece async for piece in _to_the_end(stream)]


async def _to_the_end(stream: AsyncIterable[object]) -> AsyncIterator[object]:
    """Every piece of a stream, and if it breaks off the error."""
    try:
        async for piece in stream:
            yield piece
    except RingwallError as error:
        for form in shown_forms(error):
            yield form


async def in_a_thread(pieces: Iterator[object]) -> AsyncIterator[object]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


DOORS: Final[Mapping[str, Callable[[App, Ask], Awaitable[object]]]] = {
    "ask": lambda app, ask: app.ask(ask.question.text, as_=ask.who, intent=_intent(ask)),
    "stream": lambda app, ask: everything_from(app.stream(ask.question.text, as_=ask.who, intent=_intent(ask))),
    "runnable.ainvoke": lambda app, ask: app.runnable(as_=ask.who).ainvoke(ask.question.text),
    "runnable.astream": lambda app, ask: everything_from(app.runnable(as_=ask.who).astream(ask.question.text)),
    "runnable.invoke": lambda app, ask: asyncio.to_thread(app.runnable(as_=ask.who).invoke, ask.question.text),
    "runnable.stream": lambda app, ask: everything_from(
        in_a_thread(app.runnable(as_=ask.who).stream(ask.question.text))
    ),
    "runnable.batch": lambda app, ask: asyncio.to_thread(app.runnable(as_=ask.who).batch, [ask.question.text] * 2),
}


def _intent(ask: Ask) -> tuple[str, ...] | None:
    return None if ask.intent is None else (ask.intent,)


async def heard_through(door: Awaitable[object]) -> Words:
    """The words of all that comes out of a door: what it returns, or the error in every form it can be shown in."""
    try:
        return words_in(repr(await door))
    except RingwallError as error:
        return words_in(*shown_forms(error))


def shown_forms(error: BaseException) -> Iterator[str]:
    """An error as text, as a chain with its notes and attributes, and as a report that renders the locals of frames."""
    chain: list[BaseException | None] = [error]
    met: set[int] = set()
    while chain:
        link = chain.pop()
        if link is None or id(link) in met:
            continue
        met.add(id(link))
        chain += (link.__cause__, link.__context__)
        yield from (str(link), repr(link), repr(vars(link)))
        for frame, _ in traceback.walk_tb(link.__traceback__):
            if frame.f_code.co_filename != __file__:
                yield repr(frame.f_locals)


async def heard_from_events(app: App, run: str, reader: Principal) -> Words:
    """The words of what somebody is shown of a run's events."""
    try:
        return words_in(await app.events(run, as_=reader))
    except UnknownRun:
        return frozenset()


async def heard_from_questions(app: App, run: str, reader: Principal) -> Words:
    """The words of what somebody is shown of a run's open questions."""
    return words_in([question for question in await app.waiting(as_=reader) if question.run == run])
