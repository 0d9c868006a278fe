"""A run with five effects that is killed (-9) at each of its boundaries in turn, and what becomes of it.

A boundary is before and after each write to the journal, and before and after each effect. Two effects are done under
the call's key, which lies beside them in the journal's own database; three are not protected: done again, they count
twice.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from ringwall import App, CallContext, Principal, Rules, RunStatus, ScriptedModel, Tool, call, tool
from ringwall.deployment.journal import Draft, Head, Worker
from ringwall.errors import ChainBroken, JournalConflict, NotWaiting, UnknownRun
from ringwall.label import BOTTOM
from ringwall.model.base import ModelRequest
from ringwall.model.scripted import Line
from ringwall_sql import SqlJournal

T = TypeVar("T")

Life = Callable[[], Coroutine[Any, Any, None]]
Lives = tuple[str, Sequence[Life]]
"""A run, and the processes that carry it on one after the other until each is killed."""

_MORE: Final = 6  # boundaries that whoever takes up a run has besides those that were left

RULES: Final = """
allow role:guest ask app:app
allow role:guest call tool:*
grant tool:* collection:questions
grant role:manager collection:questions
grant role:manager user:ana
allow role:manager approve tool:*
"""
ANA, CARLA = Principal.user("ana", "guest"), Principal.user("carla", "manager")
UNPROTECTED: Final = ("book", "pay", "send")
KEYED: Final = ("order", "reserve")
NAMES: Final = ("book", "order", "pay", "reserve", "send")

EFFECTS: Final = sa.Table(
    "effects",
    sa.MetaData(),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("run", sa.Text),
    sa.Column("tool", sa.Text),
    sa.Column("key", sa.Text),
)


class Doom:
    """Ends this process at the `at`-th boundary; 0: never. Counts them either way."""

    def __init__(self, at: int = 0) -> None:
        self.at, self.reached = at, 0

    def reach(self) -> None:
        self.reached += 1
        if self.reached == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    async def around(self, work: Awaitable[T]) -> T:
        """Reach a boundary before `work`, and another after it."""
        self.reach()
        done = await work
        self.reach()
        return done


class DoomedJournal(SqlJournal):
    """A journal each of whose writes may be the last thing that this process does, or the last but for telling."""

    def __init__(self, url: str, doom: Doom) -> None:
        super().__init__(url)
        self._doom = doom

    async def start(
        self, run: str, owner: str, drafts: Sequence[Draft], *, status: RunStatus = RunStatus.RUNNING,
        durable: bool = False, worker: Worker | None = None,
    ) -> Head:  # fmt: skip
        return await self._doom.around(super().start(run, owner, drafts, status=status, durable=durable, worker=worker))

    async def append(
        self, run: str, drafts: Sequence[Draft], after: Head, *, status: RunStatus | None = None,
        durable: bool = False, worker: Worker | None = None,
    ) -> Head:  # fmt: skip
        return await self._doom.around(
            super().append(run, drafts, after, status=status, durable=durable, worker=worker)
        )

    async def take(self, worker: Worker, drafts: Sequence[Draft], *, limit: int = 1) -> list[str]:
        return await self._doom.around(super().take(worker, drafts, limit=limit))


def build(url: str, doom: Doom | None = None) -> App:
    """The app of each process that works on the journal in `url`, which holds the effects too."""
    doom = doom or Doom()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    tools = [_effect(engine, name, doom) for name in NAMES]
    journal = DoomedJournal(url, doom)
    return App(policy=Rules(RULES), model=ScriptedModel(_next_line), tools=tools, journal=journal)


def _effect(engine: sa.Engine, name: str, doom: Doom) -> Tool:
    """A tool whose effect is a row."""
    keyed = name in KEYED

    def do(run: str, key: str) -> None:
        with engine.begin() as connection:
            there = sa.select(EFFECTS.c.number).where(EFFECTS.c.key == key)
            if not keyed or connection.execute(there).first() is None:
                connection.execute(sa.insert(EFFECTS).values(run=run, tool=name, key=key))

    @tool(name=name, effect="write", idempotent=keyed, label=BOTTOM)
    async def effect(context: CallContext) -> str:
        """Do one thing."""
        await doom.around(asyncio.to_thread(do, context.run, context.key))
        return "done"

    return effect


def _next_line(request: ModelRequest) -> Line:
    """The next of the five calls; one that did not happen is asked for again."""
    results = [str(message.content) for message in request.messages if message.type == "tool"]
    done = len(results) - sum("did not happen" in result for result in results)
    return call(NAMES[done]) if done < len(NAMES) else "Done."


def create(url: str) -> None:
    """Make the table of effects."""
    engine = sa.create_engine(url)
    EFFECTS.metadata.create_all(engine)
    engine.dispose()


async def boundaries(url: str) -> int:
    """How many boundaries an undisturbed run has."""
    doom = Doom()
    async with build(url, doom) as app:
        await app.ask("Do all five", as_=ANA, run="undisturbed")
    return doom.reached


def forked(work: Life) -> int:
    """Do `work` in a forked process; returns its number."""
    child = os.fork()
    if child:
        return child
    failed = 1
    with suppress(BaseException):
        asyncio.run(work())
        failed = 0
    os._exit(failed)


async def ask(url: str, run: str, kill_at: int) -> None:
    """Ask in this process, which is killed at a boundary."""
    async with build(url, Doom(kill_at)) as app:
        with suppress(JournalConflict):
            await app.ask("Do all five", as_=ANA, run=run)


async def take_up(url: str, kill_at: int) -> None:
    """Take up what there is in this process, which is killed at a boundary."""
    async with build(url, Doom(kill_at)) as app:
        await app.recover()


async def work(url: str) -> None:
    """Take up runs until killed."""
    async with build(url) as app:
        await app.work(every=0.02)


class Person:
    """Whoever asked, and asks again when nobody knows of it; and whoever looks what became of a call in doubt."""

    def __init__(self, url: str, *, takes_up: bool) -> None:
        self.app, self._takes_up = build(url), takes_up
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        self.in_doubt = 0

    async def see_through(self, run: str, *, seconds: float = 30.0) -> str:
        """See to it that the run ends; returns its status."""
        async with asyncio.timeout(seconds):
            while (status := await self._status(run)) is not RunStatus.DONE:
                if status is RunStatus.WAITING:
                    await self._say_what_happened(run)
                if self._takes_up:
                    await self.app.recover()
                    with suppress(NotWaiting, JournalConflict):
                        if await self._status(run) is RunStatus.WAITING and not await self._open(run):
                            await self.app.resume(run)
                await asyncio.sleep(0.005)
        return str(status)

    async def _status(self, run: str) -> RunStatus:
        try:
            return (await self.app.journal.record(run)).status
        except UnknownRun:
            await self.app.ask("Do all five", as_=ANA, run=run)
            return RunStatus.DONE

    async def _open(self, run: str) -> list[str]:
        return [question.call for question in await self.app.waiting(as_=CARLA) if question.run == run]

    async def _say_what_happened(self, run: str) -> None:
        for question in await self.app.waiting(as_=CARLA):
            if question.run == run and question.in_doubt:
                happened = self.effects(run)[question.tool] > 0
                with suppress(NotWaiting, JournalConflict):
                    await self.app.resolve(run, by=CARLA, happened=happened)
                    self.in_doubt += 1

    def effects(self, run: str) -> Counter[str]:
        """How often each effect of the run was done."""
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(EFFECTS.c.tool).where(EFFECTS.c.run == run))
            return Counter(rows.scalars())


@dataclass
class Found:
    """What became of the runs: effects `lost` and `doubled`, runs `unended`, events `unverifiable`."""

    runs: int = 0
    killed: int = 0
    lost: int = 0
    doubled: int = 0
    unended: list[str] = field(default_factory=list)
    in_doubt: int = 0
    events: int = 0
    unverifiable: str = ""

    @property
    def good(self) -> bool:
        return not (self.lost or self.doubled or self.unended or self.unverifiable)

    def __add__(self, other: Found) -> Found:
        return Found(**{name: value + getattr(other, name) for name, value in vars(self).items()})

    def as_json(self) -> dict[str, Any]:
        return {**vars(self), "unended": len(self.unended), "unverifiable": int(bool(self.unverifiable))}


async def kill_at_each(url: str, *, competing: int = 2, every: int = 1) -> Found:
    """Kill a run at each boundary, or every so many; `competing` processes take up what is left."""
    last = await boundaries(url)
    workers = [forked(partial(work, url)) for _ in range(competing)]
    lives: list[Lives] = [(f"at {at}", [partial(ask, url, f"at {at}", at)]) for at in range(1, last + 1, every)]
    try:
        return await _killed(url, lives, takes_up=not competing)
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
            await asyncio.to_thread(os.waitpid, worker, 0)


async def kill_twice(url: str, *, every: int = 1, first: int = 0) -> Found:
    """Kill a run at each boundary, and at each of its own whoever takes it up then; or some pairs, from one on."""
    last = await boundaries(url)
    pairs = [(at, second) for at in range(1, last + 1) for second in range(1, last - at + _MORE)][first::every]
    lives: list[Lives] = [
        (f"{at}, {second}", [partial(ask, url, f"{at}, {second}", at), partial(take_up, url, second)])
        for at, second in pairs
    ]
    return await _killed(url, lives, takes_up=True)


async def _killed(url: str, lives: Sequence[Lives], *, takes_up: bool) -> Found:
    person, found = Person(url, takes_up=takes_up), Found()
    async with person.app:
        for run, processes in lives:
            found.runs += 1
            for process in processes:
                _, status = await asyncio.to_thread(os.waitpid, forked(process), 0)
                found.killed += os.WIFSIGNALED(status)
            try:
                await person.see_through(run)
            except TimeoutError:
                found.unended.append(run)
            effects = person.effects(run)
            found.lost += sum(not effects[name] for name in NAMES)
            found.doubled += sum(effects[name] > 1 for name in NAMES)
        found.in_doubt = person.in_doubt
        try:
            found.events = await person.app.verify()
        except ChainBroken as error:
            found.unverifiable = str(error)
    return found
