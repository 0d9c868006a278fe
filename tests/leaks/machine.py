"""Everything that can happen to an app, in any order."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from pathlib import Path
from typing import ClassVar, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from ringwall import Principal
from ringwall.deployment.journal import RunStatus
from ringwall.label import Label
from ringwall.personalization import Memory, Profile
from ringwall.principal import ACL
from tests.leaks.life import CLUBS, PEOPLE, RECEIVERS, TENANTS, TOOLS, Life, Run, Wish

SOME_CLUBS: Final = st.frozensets(st.sampled_from(CLUBS))
MANY_CLUBS: Final = st.sampled_from([frozenset(CLUBS), frozenset(CLUBS), frozenset(CLUBS[:2]), frozenset[str]()])
SOME_READERS: Final = st.sampled_from(
    [frozenset((one,)) for one in (*CLUBS, "user:ana", "public")] + [frozenset(CLUBS[:2])]
)
SOMEBODY: Final = st.sampled_from(PEOPLE)
APPS: Final = st.integers(0, 1)
SELDOM: Final = st.sampled_from([False, False, False, True])
MOVES: Final = st.lists(st.sampled_from([*TOOLS, "book", "book"]), max_size=3).map(tuple)
WISHES: Final = st.builds(
    Wish,
    MOVES,
    st.sampled_from(["answer"] * 5 + ["ValueError", "ProviderUnavailable"]),
    st.sampled_from([*[None] * 4, "book", *TOOLS]),
    st.booleans(),
    st.sampled_from([False, False, False, True]),
)
CHANGES: Final = st.none() | st.tuples(st.sampled_from([*[None] * 8, *PEOPLE, *RECEIVERS]), SOME_CLUBS)
Change = tuple[Principal | None, frozenset[str]] | None
"""Who holds what from then on; None is whoever asks."""


class Kept(logging.Handler):
    """Keeps what is logged, as a formatter would write it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter())
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


class Machine(RuleBasedStateMachine):
    """On stores in memory."""

    steps: ClassVar[int] = 0
    told: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.logged = Kept()
        root = logging.getLogger()
        self._level = root.level
        root.addHandler(self.logged)
        root.setLevel(logging.DEBUG)
        self.runner = asyncio.Runner()
        self.life = self.runner.run(self.begin())

    async def begin(self) -> Life:
        return Life()

    def teardown(self) -> None:
        try:
            self.runner.run(self._everybody_looks())
            self.nothing_unreadable_reached_anybody()
        finally:
            self.runner.run(self.life.close())
            self.runner.close()
            root = logging.getLogger()
            root.removeHandler(self.logged)
            root.setLevel(self._level)
            type(self).told.update(self.life.witness.told)

    async def _everybody_looks(self) -> None:
        for who in PEOPLE:
            await self.life.look(self.life.apps[1], who, self.life.runs[-8:])

    @invariant()
    def nothing_unreadable_reached_anybody(self) -> None:
        type(self).steps += 1
        for line in self.logged.lines:
            self.life.witness.logged(line)
        self.logged.lines.clear()
        assert not self.life.witness.leaks, self.life.witness.leaks

    # Asking

    @rule(app=APPS, who=SOMEBODY, wish=WISHES, named=st.booleans(), streams=st.booleans(), change=CHANGES)
    def ask(self, app: int, who: Principal, wish: Wish, named: bool, streams: bool, change: Change) -> None:  # noqa: FBT001
        if change is not None:
            other, clubs = change
            self.life.trouble.meanwhile.append(lambda: self.life.give({other or who: clubs}))
        asked = self.life.ask(self.life.apps[app], who, wish, named=named, streams=streams)
        self.runner.run(asked)
        self.life.trouble.meanwhile.clear()

    @rule(app=APPS, who=SOMEBODY, tool=st.sampled_from(TOOLS))
    def ask_and_lose_all_while_a_call_is_planned(self, app: int, who: Principal, tool: str) -> None:
        self.life.give({who: frozenset(CLUBS)})
        self.ask(app, who, Wish(intent=tool), named=True, streams=False, change=(who, frozenset()))

    @rule(app=APPS, who=SOMEBODY)
    def lose_all_while_the_answer_is_written(self, app: int, who: Principal) -> None:
        self.life.give({who: frozenset(CLUBS)})
        self.ask(app, who, Wish(), named=False, streams=True, change=(who, frozenset()))

    @rule(app=APPS, who=SOMEBODY)
    def ask_and_lose_all_before_it_is_told_again(self, app: int, who: Principal) -> None:
        self.life.give({who: frozenset(CLUBS)})
        self.ask(app, who, Wish(), named=False, streams=False, change=None)
        self.life.give({who: frozenset()})
        self.resume(app, 0, streams=False)

    @rule(app=APPS, who=SOMEBODY)
    def ask_what_is_often_asked(self, app: int, who: Principal) -> None:
        self.runner.run(self.life.ask(self.life.apps[app], who, Wish(), named=False, streams=False))

    @rule(wish=WISHES, who=st.tuples(SOMEBODY, SOMEBODY))
    def ask_at_the_same_time(self, wish: Wish, who: tuple[Principal, Principal]) -> None:
        async def both() -> None:
            first, second = (
                self.life.ask(app, each, wish, named=True, streams=False)
                for app, each in zip(self.life.apps, who, strict=True)
            )
            await asyncio.gather(first, second)

        self.runner.run(both())

    def _run(self, ago: int) -> Run:
        return self.life.runs[-1 - ago % len(self.life.runs)]

    @precondition(lambda self: self.life.runs)
    @rule(app=APPS, ago=st.integers(0, 3), streams=st.booleans())
    def resume(self, app: int, ago: int, streams: bool) -> None:  # noqa: FBT001
        self.runner.run(self.life.resume(self.life.apps[app], self._run(ago), streams=streams))

    @precondition(lambda self: self.life.runs)
    @rule(app=APPS, ago=st.integers(0, 2), by=SOMEBODY, how=st.sampled_from(["approve", "deny", "happened"]))
    def answer(self, app: int, ago: int, by: Principal, how: str) -> None:
        self.runner.run(self.life.answer(self.life.apps[app], self._run(ago), by, how))

    @rule(app=APPS, how=st.sampled_from(["approve", "approve", "deny"]), streams=st.booleans())
    def answer_what_waits_and_resume_it(self, app: int, how: str, streams: bool) -> None:  # noqa: FBT001
        self.runner.run(self._answer_and_resume(app, how, streams=streams))

    async def _answer_and_resume(self, app: int, how: str, *, streams: bool) -> None:
        here, there = self.life.apps[app], self.life.apps[1 - app]
        waiting = {record.run for record in await here.journal.runs(RunStatus.WAITING)}
        for run in [run for run in self.life.runs if run.id in waiting]:
            other = next(who for who in PEOPLE if who.tenant == run.who.tenant and who != run.who)
            for each in dict.fromkeys((how, "happened")):
                await self.life.answer(here, run, other, each)
            await self.life.resume(there, run, streams=streams)

    @precondition(lambda self: self.life.runs)
    @rule(app=APPS, who=SOMEBODY)
    def look(self, app: int, who: Principal) -> None:
        self.runner.run(self.life.look(self.life.apps[app], who, self.life.runs[-3:]))

    # Changing

    @rule(who=st.sampled_from(PEOPLE), clubs=SOME_CLUBS)
    def give_to_somebody(self, who: Principal, clubs: frozenset[str]) -> None:
        self.life.give({who: clubs})

    @rule(who=st.sampled_from(RECEIVERS), clubs=MANY_CLUBS)
    def give_to_a_receiver(self, who: Principal, clubs: frozenset[str]) -> None:
        self.life.give({who: clubs})

    @rule(name=st.sampled_from("ab"), tenant=st.sampled_from(TENANTS), readers=SOME_READERS)
    def write(self, name: str, tenant: str, readers: frozenset[str]) -> None:
        self.runner.run(self.life.write(name, tenant, readers))

    @precondition(lambda self: self.life.documents)
    @rule(place=st.integers(0, 3), readers=SOME_READERS)
    def relabel(self, place: int, readers: frozenset[str]) -> None:
        names = sorted(self.life.documents)
        self.runner.run(self.life.relabel(names[place % len(names)], readers))

    @rule(who=SOMEBODY, readers=st.none() | SOME_READERS)
    def remember(self, who: Principal, readers: frozenset[str] | None) -> None:
        """What the owner may read now, and perhaps not later."""
        word = self.life.witness.new("memory", readers or (who.id,), who.tenant)
        label = Label.of(ACL((who.own_grant,)), who.id)
        if readers is not None:
            label |= Label.of(ACL.of(*readers, tenant=who.tenant))
        memory = Memory(word, who.own_grant, f"the wine is {word}", label)
        self.runner.run(self.life.apps[0].memories.add(who, [memory]))

    @rule(who=SOMEBODY)
    def change_the_profile(self, who: Principal) -> None:
        word = self.life.witness.new("profile", (who.id,), who.tenant)
        self.runner.run(self.life.apps[0].profiles.put(who, Profile(who.own_grant, preferences=(word,))))

    @rule(who=SOMEBODY)
    def forget(self, who: Principal) -> None:
        self.runner.run(self.life.apps[1].memories.forget(who))

    @rule(app=APPS, who=SOMEBODY, really=st.sampled_from([False] * 9 + [True]))
    def erase(self, app: int, who: Principal, really: bool) -> None:  # noqa: FBT001
        if really:
            self.remember(who, None)
            self.change_the_profile(who)
            self.runner.run(self.life.ask(self.life.apps[app], who, Wish(), named=True, streams=False))
            self.runner.run(self.life.erase(self.life.apps[app], who))
            self.look(app, who)
            self.ask_what_is_often_asked(app, who)

    @rule(app=APPS, who=SOMEBODY)
    def a_call_is_in_doubt_and_resolved(self, app: int, who: Principal) -> None:
        self.runner.run(self._doubt(app, who))

    async def _doubt(self, app: int, who: Principal) -> None:
        here, there, trouble = self.life.apps[app], self.life.apps[1 - app], self.life.trouble
        other = next(each for each in PEOPLE if each.tenant == who.tenant and each != who)
        before, trouble.tools = trouble.tools, "doubt"
        await self.life.ask(here, who, Wish(("post",)), named=True, streams=False)
        trouble.tools = before
        run = self.life.runs[-1]
        await self.life.resume(there, run, streams=False)
        await self.life.answer(here, run, other, "happened")
        await self.life.resume(there, run, streams=False)

    @rule(readers=SOME_READERS)
    def what_is_peeked_at_has_other_readers(self, readers: frozenset[str]) -> None:
        self.life.peeked = readers

    @rule(models=SELDOM, tools=st.sampled_from(["", "", "fail", "doubt"]), steps=SELDOM)
    def something_stops_working(self, models: bool, tools: str, steps: bool) -> None:  # noqa: FBT001
        trouble = self.life.trouble
        trouble.models, trouble.tools, trouble.steps = models, tools, steps

    @rule()
    def everything_works_again(self) -> None:
        trouble = self.life.trouble
        trouble.models, trouble.tools, trouble.steps = False, "", False


class MachineOnSqlite(Machine):
    """On databases that both apps open."""

    steps: ClassVar[int] = 0
    told: ClassVar[Counter[str]] = Counter()

    async def begin(self) -> Life:
        self.folder = tempfile.TemporaryDirectory()
        return Life(Path(self.folder.name))

    def teardown(self) -> None:
        super().teardown()
        self.folder.cleanup()
