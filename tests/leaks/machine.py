"""Everything that can happen to apps, in any order."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any, ClassVar, Final

import pytest
import structlog
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from structlog.testing import CapturingLogger

from ringwall import Principal
from tests.leaks.doing import PlanWish, Run, Step, Wish
from tests.leaks.life import Life
from tests.leaks.people import People
from tests.leaks.spending import DAY
from tests.leaks.town import CLUBS, PEOPLE, RECEIVERS, TOOLS
from tests.plugins.test_otel import CAPTURE

SOME_CLUBS: Final = st.frozensets(st.sampled_from(CLUBS))
MANY_CLUBS: Final = st.sampled_from([frozenset(CLUBS), frozenset(CLUBS), frozenset(CLUBS[:2]), frozenset[str]()])
SOME_READERS: Final = st.sampled_from(
    [frozenset((one,)) for one in (*CLUBS, "user:ana", "public")] + [frozenset(CLUBS[:2])]
)
SOMEBODY: Final = st.sampled_from(PEOPLE)
APPS: Final = st.integers(0, 1)
SELDOM: Final = st.sampled_from([False, False, False, True])
DRESSES: Final = st.sampled_from(["", "", "mail", "password"])
MOVES: Final = st.lists(st.sampled_from([*TOOLS, "book", "book"]), max_size=3).map(tuple)
WISHES: Final = st.builds(
    Wish,
    MOVES,
    st.sampled_from(["answer"] * 5 + ["ValueError", "ProviderUnavailable"]),
    st.sampled_from([*[None] * 4, "book", *TOOLS]),
    st.booleans(),
    st.sampled_from([False, False, False, True]),
)
HOWS: Final = st.sampled_from(["said", "read", "read owner", "taken"])
OF: Final = st.lists(st.integers(0, 2), min_size=1, max_size=2).map(tuple)
STEPS: Final = st.builds(Step, st.sampled_from([*TOOLS, "find"]), HOWS, OF)
PLANS: Final = st.builds(PlanWish, st.lists(STEPS, min_size=1, max_size=4).map(tuple), STEPS)
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


class Happening(RuleBasedStateMachine):
    """A life that things happen to; after each of them nobody must have been told what it may not read."""

    steps: ClassVar[int] = 0
    told: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        self.logged, self.patch = Kept(), pytest.MonkeyPatch()
        self.patch.setenv(CAPTURE, "SPAN_ONLY")
        root = logging.getLogger()
        self._level = root.level
        root.addHandler(self.logged)
        root.setLevel(logging.DEBUG)
        lines = CapturingLogger()
        structlog.configure(processors=[], logger_factory=lambda *names: lines)
        self.runner = asyncio.Runner()
        self.life = self.runner.run(self.begin(lines))
        self.people = People(self.life)

    async def begin(self, lines: CapturingLogger) -> Life:
        return Life(lines)

    def happens(self, what: Coroutine[Any, Any, object]) -> None:
        """Let something happen to its end."""
        self.runner.run(what)
        self.life.watchers.ended()

    def teardown(self) -> None:
        try:
            self.happens(self._everybody_looks())
        finally:
            self.runner.run(self.life.close())
            self.runner.close()
            root = logging.getLogger()
            root.removeHandler(self.logged)
            root.setLevel(self._level)
            structlog.reset_defaults()
            self.patch.undo()
        self.life.watchers.look()
        self.nothing_unreadable_reached_anybody()
        type(self).told.update(self.life.witness.told)

    async def _everybody_looks(self) -> None:
        for who in PEOPLE:
            await self.life.look(1, who, self.life.runs[-5:])

    @invariant()
    def nothing_unreadable_reached_anybody(self) -> None:
        type(self).steps += 1
        for line in self.logged.lines:
            self.life.witness.logged(line)
        self.logged.lines.clear()
        assert not self.life.witness.leaks, self.life.witness.leaks

    def _run(self, ago: int) -> Run:
        return self.life.runs[-1 - ago % len(self.life.runs)]


class Asking(Happening):
    """Questions, and runs that go on."""

    @rule(app=APPS, who=SOMEBODY, wish=WISHES, named=st.booleans(), streams=st.booleans(), change=CHANGES)
    def ask(self, app: int, who: Principal, wish: Wish, named: bool, streams: bool, change: Change) -> None:  # noqa: FBT001
        if change is not None:
            other, clubs = change
            self.life.trouble.meanwhile.append(lambda: self.life.give({other or who: clubs}))
        self.happens(self.life.ask(app, who, wish, named=named, streams=streams))
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
        self.happens(self.life.ask(app, who, Wish(), named=False))

    @rule(wish=WISHES, who=st.tuples(SOMEBODY, SOMEBODY))
    def ask_at_the_same_time(self, wish: Wish, who: tuple[Principal, Principal]) -> None:
        async def both() -> None:
            await asyncio.gather(*(self.life.ask(place, each, wish, named=True) for place, each in enumerate(who)))

        self.happens(both())

    @rule(who=SOMEBODY, wish=PLANS, named=st.booleans(), streams=SELDOM, dress=DRESSES)
    def ask_for_a_plan(self, who: Principal, wish: PlanWish, named: bool, streams: bool, dress: Any) -> None:  # noqa: FBT001
        self.life.outbox.dress = dress
        self.happens(self.life.ask(1, who, wish, named=named, streams=streams))

    @rule(who=SOMEBODY, dress=DRESSES | st.just("mail"), how=HOWS | st.just("read owner"), of=st.just((1,)) | OF)
    def plan_to_tell_what_several_tools_found(self, who: Principal, dress: Any, how: str, of: tuple[int, ...]) -> None:
        """To one who may read a part of it."""
        self.everything_works_again()
        self.life.clock.now += DAY
        self.life.outbox.dress, self.life.outbox.peeked = dress, frozenset(("role:boss",))
        far, bo = Principal("model:far", who.tenant), Principal("to:bo", who.tenant)
        self.life.give({who: frozenset(CLUBS), far: frozenset(CLUBS), bo: frozenset(("role:staff",))})
        steps = (Step("peek"), Step("find"), Step("post", "read", (0,)), Step("mail", how, of))
        self.happens(self.life.ask(1, who, PlanWish(steps, Step("", "said")), named=False))

    @rule(who=SOMEBODY)
    def plan_as_a_thief_would(self, who: Principal) -> None:
        self.plan_to_tell_what_several_tools_found(who, "mail", "read owner", (1,))

    @rule(app=APPS, who=st.tuples(SOMEBODY, SOMEBODY), moves=st.sampled_from([("post",) * 6, ("look", "post", "peek")]))
    def spend(self, app: int, who: tuple[Principal, Principal], moves: tuple[str, ...]) -> None:
        for each in who:
            self.happens(self.life.ask(app, each, Wish(moves), named=False))

    @precondition(lambda self: self.life.runs)
    @rule(app=APPS, ago=st.integers(0, 3), streams=st.booleans())
    def resume(self, app: int, ago: int, streams: bool) -> None:  # noqa: FBT001
        self.happens(self.life.resume(app, self._run(ago), streams=streams))

    @precondition(lambda self: self.life.runs)
    @rule(app=APPS, who=SOMEBODY)
    def look(self, app: int, who: Principal) -> None:
        self.happens(self.life.look(app, who, self.life.runs[-3:]))

    @rule(app=APPS, who=SOMEBODY)
    def a_call_is_in_doubt_and_resolved(self, app: int, who: Principal) -> None:
        self.happens(self._doubt(app, who))

    async def _doubt(self, app: int, who: Principal) -> None:
        trouble = self.life.trouble
        other = next(each for each in PEOPLE if each.tenant == who.tenant and each != who)
        before, trouble.tools = trouble.tools, "doubt"
        run = await self.life.ask(app, who, Wish(("post",)), named=True)
        trouble.tools = before
        await self.life.resume(1 - app, run)
        await self.people.answer(app, run, other, "happened")
        await self.life.resume(1 - app, run)

    @rule(models=SELDOM, tools=st.sampled_from(["", "", "fail", "doubt"]), steps=SELDOM)
    def something_stops_working(self, models: bool, tools: str, steps: bool) -> None:  # noqa: FBT001
        trouble = self.life.trouble
        trouble.models, trouble.tools, trouble.steps = models, tools, steps

    @rule()
    def everything_works_again(self) -> None:
        trouble = self.life.trouble
        trouble.models, trouble.tools, trouble.steps = False, "", False
