"""People who answer: once and for good, about calls and about who is told; and what they may decide."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ringwall import Principal
from ringwall.deployment.journal import RunStatus
from tests.leaks.changing import Changing
from tests.leaks.doing import Run, Wish
from tests.leaks.machine import APPS, SELDOM, SOMEBODY
from tests.leaks.people import LIMITS, Far, How
from tests.leaks.town import CLUBS, HOUR, PEOPLE, RECEIVERS, Rights
from tests.leaks.world import QUESTIONS

EVERY_LIST: Final = frozenset((*CLUBS, QUESTIONS, "user:*"))
LIFTS: Final = st.sampled_from([EVERY_LIST, EVERY_LIST, EVERY_LIST, EVERY_LIST - {"role:boss"}, frozenset[str]()])
MOSTLY: Final = st.sampled_from([True, True, True, False])
RIGHTS: Final = st.builds(Rights, LIFTS, MOSTLY, st.booleans())
HOWS: Final = st.sampled_from(["approve", "declassify", "deny", "happened"])
FARS: Final = st.builds(
    Far,
    st.sampled_from([*LIMITS, "this or that", "this or that"]),
    st.sampled_from([None, None, "public", "role:staff", "user:ana"]),
    st.integers(1, 2),
    st.sampled_from([1, 24]),
    MOSTLY,
    SELDOM,
)
WAITS: Final = st.sampled_from([0.0, 4000.0, 4000.0])
CLUBS_THEN: Final = st.sampled_from([frozenset[str](), frozenset(("role:staff",)), frozenset(CLUBS)])


def another(who: Principal) -> Principal:
    """Somebody else of the same tenant."""
    return next(each for each in PEOPLE if each.tenant == who.tenant and each != who)


class Answering(Changing):
    """Answers to what runs ask."""

    @rule(who=SOMEBODY, rights=RIGHTS)
    def let_somebody_decide(self, who: Principal, rights: Rights) -> None:
        self.life.let(who, rights)

    @precondition(lambda self: self.life.runs)
    @rule(app=APPS, ago=st.integers(0, 2), by=SOMEBODY, how=HOWS)
    def answer(self, app: int, ago: int, by: Principal, how: How) -> None:
        self.happens(self.people.answer(app, self._run(ago), by, how))

    @precondition(lambda self: self.life.runs)
    @rule(app=APPS, ago=st.integers(0, 2), by=SOMEBODY, far=FARS)
    def answer_for_good(self, app: int, ago: int, by: Principal, far: Far) -> None:
        self.happens(self.people.let_stand(app, self._run(ago), by, far))

    @rule(app=APPS, how=st.sampled_from(["approve", "approve", "deny"]), streams=st.booleans())
    def answer_what_waits_and_resume_it(self, app: int, how: How, streams: bool) -> None:  # noqa: FBT001
        self.happens(self._answer_and_resume(app, how, streams=streams))

    async def _answer_and_resume(self, app: int, how: How, *, streams: bool) -> None:
        for run in await self._waiting():
            hows: tuple[How, ...] = ("declassify", how, "happened")
            for each in hows:
                await self.people.answer(app, run, another(run.who), each)
            await self.life.resume(1 - app, run, streams=streams)

    async def _waiting(self) -> list[Run]:
        waiting = {record.run for record in await self.life.apps[0].journal.runs(RunStatus.WAITING)}
        return [run for run in self.life.runs if run.id in waiting][-3:]

    @rule(app=APPS, who=SOMEBODY, far=FARS, then=CLUBS_THEN, rights=RIGHTS, hours=st.sampled_from([0, 0, 0, 30]))
    def let_stand_what_is_asked_and_have_it_used(
        self, app: int, who: Principal, far: Far, then: frozenset[str], rights: Rights, hours: int
    ) -> None:
        self.happens(self._let_stand(app, who, far, then, rights))
        self.life.clock.now += hours * HOUR
        self.happens(self._use_what_stands(app, who))

    async def _let_stand(self, app: int, who: Principal, far: Far, then: frozenset[str], rights: Rights) -> None:
        life, other = self.life, another(who)
        await self._can_be_answered(who, rights)
        first = await life.ask(app, who, Wish(("book",)), named=False)
        life.give({who: then})
        second = await life.ask(1 - app, who, Wish(("book",)), named=False)
        await self.people.let_stand(app, first, other, far, second)

    async def _can_be_answered(self, who: Principal, rights: Rights) -> None:
        """Somebody asks on a new day, when all works and may be read by those who answer."""
        life, other = self.life, another(who)
        self.everything_works_again()
        life.clock.now += 24 * HOUR
        life.let(other, rights)
        receivers = [each for each in RECEIVERS if each.tenant == who.tenant]
        life.give(dict.fromkeys((who, other, *receivers), frozenset(CLUBS)))
        for store in life.apps[0].memories, life.apps[0].profiles:
            await store.forget(who)
        await life.write("a", who.tenant, frozenset(("role:boss",)))

    async def _use_what_stands(self, app: int, who: Principal) -> None:
        await self.life.resume(app, self.life.runs[-1])
        for each in who, another(who):
            await self.life.ask(1 - app, each, Wish(("book",)), named=False)
        await self.life.look(app, who, self.life.runs[-3:])

    @rule(app=APPS, who=SOMEBODY, far=FARS, by=SOMEBODY, rights=RIGHTS)
    def let_stand_and_take_it_back(self, app: int, who: Principal, far: Far, by: Principal, rights: Rights) -> None:
        self.happens(self._let_stand(app, who, far, frozenset(CLUBS), rights))
        self.happens(self.people.revoke(app, by, -1))
        self.happens(self._use_what_stands(app, who))

    @rule(app=APPS, who=SOMEBODY, tool=st.sampled_from(["mail", "book"]), rights=RIGHTS, wait=WAITS)
    def ask_for_what_is_to_be_declassified(
        self, app: int, who: Principal, tool: str, rights: Rights, wait: float
    ) -> None:
        self.happens(self._declassify(app, who, tool, rights, wait))

    @rule(app=APPS, who=SOMEBODY)
    def use_what_was_declassified_too_late(self, app: int, who: Principal) -> None:
        self.happens(self._declassify(app, who, "mail", Rights(EVERY_LIST), 4000.0))

    async def _declassify(self, app: int, who: Principal, tool: str, rights: Rights, wait: float) -> None:
        life, other = self.life, another(who)
        await self._can_be_answered(who, rights)
        life.give({Principal("to:bo" if tool == "mail" else "tool:book", who.tenant): frozenset()})
        run = await life.ask(app, who, Wish((tool,)), named=True)
        for _ in range(2):
            await self.people.answer(app, run, other, "declassify")
            await self.people.answer(app, run, other, "approve")
            life.clock.now += wait
            await life.resume(1 - app, run)

    @rule(app=APPS, by=SOMEBODY, which=st.integers(0, 3))
    def take_back_what_stands(self, app: int, by: Principal, which: int) -> None:
        self.happens(self.people.revoke(app, by, which))
