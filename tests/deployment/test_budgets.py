"""Budgets of an app: reserved before, settled after, never passed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import App, Budget, Budgets, Principal, Rate, Rules, RunResult, RunStatus, call
from ringwall.deployment import Balance, Hold, InMemoryLedger, Limiter, Spender, Taken
from ringwall.errors import (
    BadReply,
    BudgetReached,
    ConfigurationError,
    Done,
    LimitReached,
    ProviderUnavailable,
    RateReached,
    StoreError,
)
from ringwall.model.base import (
    Ability,
    Delta,
    Location,
    ModelInfo,
    ModelProvider,
    ModelRequest,
    Price,
    Reply,
    RequestedCall,
    Usage,
)
from ringwall.model.router import Router
from ringwall.model.scripted import Line
from tests.scenes import ANA, BEN, app_with, booking_tool

HOSTED = """
allow role:guest ask app:app
allow role:guest call tool:*
grant tool:* collection:questions
grant model:* collection:questions
"""


class Told(ModelProvider):
    """A provider that answers with what it is given to say, and of whose usage it says what it is told to."""

    def __init__(
        self,
        usage: Usage | None,
        *,
        name: str = "told",
        location: Location = Location.REMOTE,
        price: Price = Price(3.0, 15.0),  # noqa: B008 (frozen)
        seconds: float = 0.0,
        calls: Sequence[RequestedCall] = (),
    ) -> None:
        self._info = ModelInfo(name, 1000, location, frozenset((Ability.TOOLS,)), price)
        self._usage, self._seconds, self._calls = usage, seconds, tuple(calls)
        self.asked = 0

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        self.asked += 1
        yield Delta("Good ")
        await asyncio.sleep(self._seconds)
        yield Delta("evening.")
        yield Delta("", self._calls, self._usage, "tool_calls" if self._calls else "stop")


def hosted_app(model: ModelProvider | Sequence[ModelProvider], *budgets: Budget, **parts: Any) -> App:
    return App(policy=Rules(HOSTED), model=model, budgets=budgets, **parts)


async def spent(app: App, budget: Budget, *, run: str = "", of: Principal = ANA, provider: str = "told") -> Any:
    return await app.budgets.spent(budget.name, Spender(run, of, provider))


@pytest.mark.parametrize(
    ("unit", "expected"), [("tokens", 120), ("money", (100 * 3.0 + 20 * 15.0) / 1e6), ("rounds", 1)]
)
@pytest.mark.parametrize("per", ["principal", "tenant", "provider"])
async def test_a_reply_is_charged_what_it_took(unit: Any, per: Any, expected: float) -> None:
    budget = Budget(10_000, unit, per=per)
    async with hosted_app(Told(Usage(100, 20)), budget) as app:
        await app.ask("Hello?", as_=ANA)
        assert await spent(app, budget) == (pytest.approx(expected), 0)


async def test_a_reply_without_usage_is_charged_what_was_reserved() -> None:
    budget = Budget(10_000, "tokens", per="principal")
    async with hosted_app(Told(None), budget) as app:
        result = await app.ask("Hello?", as_=ANA)
        charged, reserved = await spent(app, budget)
        assert charged > 256  # the answer's most, and the prompt
        assert reserved == 0
        assert "budget.guessed" in [event.kind for event in await app.events(result.run, as_=ANA)]


async def test_a_stream_that_is_left_is_charged_what_was_reserved() -> None:
    budget = Budget(10_000, "tokens", per="principal")
    async with hosted_app(Told(Usage(100, 20), seconds=30), budget) as app:
        async with contextlib.aclosing(app.stream("Hello?", as_=ANA)) as pieces:
            assert await anext(pieces) == "Good "
        async with asyncio.timeout(10):
            while not await app.journal.runs(RunStatus.CANCELLED):  # noqa: ASYNC110 (it tells nobody)
                await asyncio.sleep(0)
        charged, reserved = await spent(app, budget)
        assert charged > 256
        assert reserved == 0


async def test_a_stream_that_is_read_to_its_end_is_charged_what_it_took() -> None:
    budget = Budget(10_000, "tokens", per="principal")
    async with hosted_app(Told(Usage(100, 20)), budget) as app:
        pieces = [piece async for piece in app.stream("Hello?", as_=ANA)]
        assert isinstance(pieces[-1], RunResult)
        assert await spent(app, budget) == (120, 0)


async def test_a_request_that_was_never_sent_costs_nothing() -> None:
    budget = Budget(10_000, "tokens", per="principal")
    rules = "allow role:guest ask app:app"
    model = Told(Usage(100, 20))
    async with App(policy=Rules(rules), model=model, budgets=[budget]) as app:
        with pytest.raises(Exception, match="may not receive"):
            await app.ask("Hello?", as_=ANA)
        assert model.asked == 0
        assert await spent(app, budget) == (0, 0)


async def test_a_hard_budget_stops_before_the_model_is_asked_and_tells_what_was_done() -> None:
    booked: list[str] = []
    async with app_with(
        [call("book", table="five"), "Booked."], tools=[booking_tool(booked)], budgets=[Budget(1, "rounds")]
    ) as app:
        with pytest.raises(BudgetReached, match=r"'rounds per run' is used up.*next: resume") as caught:
            await app.ask("Book five.", as_=ANA, run="r")
        assert (caught.value.budget, caught.value.limit) == ("rounds per run", 1)
        assert caught.value.fault == "limit"
        assert caught.value.run == "r"
        assert caught.value.done == (Done("book", "done"),)
        kinds = [event.kind for event in await app.events("r", as_=ANA)]
        assert "budget.reached" in kinds
        assert "run.failed" in kinds


async def test_a_run_that_was_stopped_is_resumed_once_there_is_room() -> None:
    booked: list[str] = []
    today = [0.0]
    budgets = Budgets([Budget(1, "rounds", per="principal", every="day")], now=lambda: today[0])
    model: list[Line] = [call("book", table="five"), "Booked."]
    async with app_with(model, tools=[booking_tool(booked)], budgets=budgets) as app:
        with pytest.raises(BudgetReached):
            await app.ask("Book five.", as_=ANA, run="r")
        with pytest.raises(BudgetReached):
            await app.resume("r")
        today[0] += 24 * 3600
        assert (await app.resume("r")).text == "Booked."
        assert booked == ["five"]


async def test_what_one_may_spend_is_no_others() -> None:
    budget = Budget(1, "rounds", per="principal")
    async with app_with(["Hello."], budgets=[budget]) as app:
        await app.ask("Hello?", as_=ANA)
        with pytest.raises(BudgetReached):
            await app.ask("Hello?", as_=ANA)
        assert (await app.ask("Hello?", as_=BEN)).text == "Hello."


async def test_namesakes_of_two_tenants_have_a_budget_each_and_colleagues_share_their_tenants() -> None:
    ana, ann = (Principal.user(name, "guest", tenant="acme") for name in ("ana", "ann"))
    namesake = Principal.user("ana", "guest", tenant="globex")
    budgets = [Budget(2, "rounds", per="tenant"), Budget(2, "rounds", per="principal")]
    async with app_with(["Hello."], budgets=budgets) as app:
        await app.ask("Hello?", as_=ana)
        await app.ask("Hello?", as_=ann)
        with pytest.raises(BudgetReached, match="rounds per tenant"):
            await app.ask("Hello?", as_=ana)
        await app.ask("Hello?", as_=namesake)


async def test_a_pattern_says_whose_a_budget_is() -> None:
    budgets = [Budget(0, "rounds", per="principal", of="user:ana"), Budget(9, "rounds", per="provider", of="gpt-*")]
    async with app_with(["Hello."], budgets=budgets) as app:
        with pytest.raises(BudgetReached, match="rounds per principal user:ana"):
            await app.ask("Hello?", as_=ANA)
        await app.ask("Hello?", as_=BEN)


async def test_each_month_begins_anew() -> None:
    now = [1_769_900_000.0]  # in January of 2026
    budgets = Budgets([Budget(1, "rounds", per="principal", every="month")], now=lambda: now[0])
    async with app_with(["Hello."], budgets=budgets) as app:
        await app.ask("Hello?", as_=ANA)
        with pytest.raises(BudgetReached):
            await app.ask("Hello?", as_=ANA)
        now[0] += 24 * 3600
        await app.ask("Hello?", as_=ANA)


async def test_tool_calls_are_counted_when_they_are_made_and_refused_beyond() -> None:
    booked: list[str] = []
    budget = Budget(2, "calls", per="principal")
    tables = Reply(calls=tuple(call("book", table=str(number)) for number in range(3)))
    async with app_with([tables, "Booked."], tools=[booking_tool(booked)], budgets=[budget]) as app:
        with pytest.raises(BudgetReached, match="calls per principal") as caught:
            await app.ask("Book 0, 1 and 2.", as_=ANA, run="r")
        assert booked == ["0", "1"]
        assert [done.status for done in caught.value.done] == ["done", "done"]
        assert [event.kind for event in await app.events("r", as_=ANA)].count("call.started") == 2


async def test_a_call_that_was_refused_or_waits_for_somebody_costs_nothing_yet() -> None:
    booked: list[str] = []
    budget = Budget(9, "calls", per="principal")
    rules = """
        allow role:guest ask app:app
        ask role:guest call tool:book
        grant tool:* collection:questions
        grant role:manager collection:questions
        allow role:manager approve tool:*
    """
    boss = Principal.user("mia", "manager")
    model: list[Line] = [call("book", table="five"), "Booked."]
    async with app_with(model, rules=rules, tools=[booking_tool(booked)], budgets=[budget]) as app:
        run = (await app.ask("Book five.", as_=ANA)).run
        assert await spent(app, budget) == (0, 0)
        await app.approve(run, by=boss)
        await app.resume(run)
        assert booked == ["five"]
        assert await spent(app, budget) == (1, 0)
    async with app_with(model, rules="allow role:guest ask app:app", tools=[booking_tool([])], budgets=[budget]) as app:
        await app.ask("Book five.", as_=ANA)
        assert await spent(app, budget) == (0, 0)


async def test_a_soft_budget_stops_nothing_and_is_told_of_once_in_a_run(caplog: pytest.LogCaptureFixture) -> None:
    budget = Budget(10, "tokens", hard=False)
    model = Told(Usage(8, 4), location=Location.IN_PROCESS, calls=[RequestedCall("", "book", '{"table": "five"}')])
    async with hosted_app(model, budget, tools=[booking_tool([])]) as app:
        with caplog.at_level(logging.WARNING, "ringwall.budgets"), pytest.raises(LimitReached, match="asked for tools"):
            await app.ask("Book five.", as_=ANA, run="r")
        assert [event.kind for event in await app.events("r", as_=ANA)].count("budget.passed") == 1
        (record,) = caplog.records
        assert "'tokens per run, soft' of 10 is passed: 12" in record.getMessage()


async def test_the_router_goes_on_to_a_provider_whose_budget_has_room() -> None:
    dear, cheap = Told(Usage(100, 20), name="dear"), Told(Usage(50, 10), name="cheap", price=Price())
    budget = Budget(0.001, "money", per="provider")
    async with hosted_app(Router(dear, cheap), budget) as app:
        result = await app.ask("Hello?", as_=ANA)
        assert (dear.asked, cheap.asked) == (0, 1)
        skipped = [event.body for event in await app.events(result.run, as_=ANA) if event.kind == "model.skipped"]
        assert len(skipped) == 1
        assert "BudgetReached" in skipped[0]


async def test_wall_time_stops_a_model_that_is_still_at_work() -> None:
    budget = Budget(0.2, "seconds", per="principal")
    async with hosted_app(Told(Usage(1, 1), seconds=30), budget) as app:
        with pytest.raises(BudgetReached, match="seconds per principal"):
            await app.ask("Hello?", as_=ANA)
        charged, reserved = await spent(app, budget)
        assert 0.1 < charged < 0.5
        assert reserved == 0
        with pytest.raises(BudgetReached):
            await app.ask("Hello?", as_=ANA)


async def test_wall_time_stops_a_tool_and_what_became_of_it_is_in_doubt() -> None:
    async def asleep() -> None:
        await asyncio.sleep(30)

    from ringwall import tool

    @tool(effect="write")
    async def slow() -> str:
        """Take long."""
        await asleep()
        return "done"

    async with app_with([call("slow"), "Done."], tools=[slow], budgets=[Budget(0.2, "seconds")]) as app:
        with pytest.raises(BudgetReached, match="seconds per run"):
            await app.ask("Go slow.", as_=ANA, run="r")
        kinds = [event.kind for event in await app.events("r", as_=ANA)]
        assert "call.started" in kinds
        assert "call.finished" not in kinds


async def test_wall_time_that_was_not_needed_is_given_back() -> None:
    budget = Budget(60, "seconds", per="principal")
    async with hosted_app(Told(Usage(1, 1), seconds=0.05), budget) as app:
        await app.ask("Hello?", as_=ANA)
        charged, reserved = await spent(app, budget)
        assert 0.05 <= charged < 1
        assert reserved == 0


class FullAfter(Limiter):
    """Lets so many pass."""

    def __init__(self, passing: int) -> None:
        self.left, self.asked = passing, list[Sequence[Taken]]()

    async def take(self, asked: Sequence[Taken]) -> float:
        self.asked.append(asked)
        self.left -= 1
        return 0.0 if self.left >= 0 else 7.0


async def test_a_rate_that_is_used_up_says_when_to_try_again() -> None:
    limiter = FullAfter(1)
    budgets = Budgets([Rate(1, "rounds", per="principal", seconds=10)], limiter=limiter)
    async with app_with(["Hello."], budgets=budgets) as app:
        await app.ask("Hello?", as_=ANA)
        with pytest.raises(RateReached, match=r"rounds per principal in 10 s.*in 7 seconds") as caught:
            await app.ask("Hello?", as_=ANA)
        assert caught.value.retry_after == 7.0
        assert [(taken.amount, taken.limit, taken.seconds) for (taken,) in limiter.asked] == [(1, 1, 10)] * 2


async def test_what_a_run_spent_is_forgotten_when_it_is_done() -> None:
    budget = Budget(10_000, "tokens")
    async with hosted_app(Told(Usage(100, 20)), budget) as app:
        result = await app.ask("Hello?", as_=ANA)
        assert await spent(app, budget, run=result.run) == (0, 0)


async def test_what_a_stopped_run_had_seen_is_not_told_to_whom_it_may_not_be() -> None:
    """The error of a limit is like any other: without what its tools returned if the principal may not read it."""
    from ringwall import Label, tool
    from ringwall.principal import ACL

    @tool(effect="read", label=Label.of(ACL.of("role:boss")))
    async def peek() -> str:
        """Look at what the boss keeps."""
        return "the secret"

    async with app_with([call("peek"), "Seen."], tools=[peek], budgets=[Budget(1, "rounds")]) as app:
        with pytest.raises(BudgetReached) as caught:
            await app.ask("Peek.", as_=ANA)
        assert caught.value.done == ()
        assert "secret" not in str(vars(caught.value))


@pytest.mark.parametrize("unit", ["tokens", "money", "rounds"])
async def test_two_hundred_runs_at_once_never_pass_a_budget(unit: Any) -> None:
    """Replies take anything up to what was reserved, and whoever is refused is refused before the model is asked."""
    price = Price(3.0, 15.0)
    took = 0.0
    limits = {"tokens": 20_000, "money": 0.1, "rounds": 37}
    budget = Budget(limits[unit], unit, per="tenant")

    class Varying(Told):
        async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
            nonlocal took
            self.asked += 1
            usage = Usage(20, self.asked * 37 % 257)
            took += {"tokens": usage.prompt + usage.completion, "money": price.of(usage), "rounds": 1}[unit]
            yield Delta("Hello.")
            await asyncio.sleep(0.001 * (self.asked % 7))
            yield Delta("", (), usage, "stop")

    async with hosted_app(Varying(None, price=price), budget) as app:
        people = [Principal.user(f"p{n}", "guest") for n in range(200)]
        results = await asyncio.gather(*(app.ask("Hello?", as_=p) for p in people), return_exceptions=True)
        assert all(isinstance(result, RunResult | BudgetReached) for result in results)
        assert sum(isinstance(result, BudgetReached) for result in results) > 0
        assert 0 < took <= limits[unit] + 1e-9
        charged, reserved = await spent(app, budget)
        assert charged == pytest.approx(took, abs=1e-6)
        assert charged <= limits[unit]
        assert reserved == 0


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Budget(1, cast(Any, "bananas")), "nobody counts"),
        (lambda: Budget(1, "tokens", per=cast(Any, "planet")), "no budget is per"),
        (lambda: Budget(1, "calls", per="provider"), "make no tool calls"),
        (lambda: Budget(-1, "tokens"), "a limit of -1"),
        (lambda: Budget(float("nan"), "money"), "a limit of nan"),
        (lambda: Budget(1, "tokens", every="day"), "begins anew"),
        (lambda: Budgets([Budget(1, "tokens"), Budget(2, "tokens")]), "two budgets are named"),
        (lambda: Budgets([Rate(1)]), r"nothing that counts it.*ringwall\[limits\]"),
    ],
)
def test_what_cannot_be_counted_is_refused_when_it_is_said(make: Callable[[], object], match: str) -> None:
    with pytest.raises(ConfigurationError, match=match):
        make()


async def test_a_provider_that_takes_more_than_a_reply_may_is_charged_it_and_it_is_told() -> None:
    budget = Budget(1000, "tokens", per="principal")
    async with hosted_app(Told(Usage(100, 2000)), budget) as app:
        result = await app.ask("Hello?", as_=ANA)
        assert await spent(app, budget) == (2100, 0)
        assert "budget.passed" in [event.kind for event in await app.events(result.run, as_=ANA)]
        with pytest.raises(BudgetReached):
            await app.ask("Hello?", as_=ANA)


async def test_a_ledger_that_fails_when_all_is_done_does_not_undo_it() -> None:
    class Forgetless(InMemoryLedger):
        async def drop(self, accounts: Sequence[str]) -> None:
            raise StoreError("gone")

    async with app_with(["Hello."], budgets=Budgets([Budget(1, "rounds")], ledger=Forgetless())) as app:
        assert (await app.ask("Hello?", as_=ANA, run="r")).status is RunStatus.DONE
        assert (await app.journal.record("r")).status is RunStatus.DONE


class Waiting(InMemoryLedger):
    """Lets others go first, before and after it does anything."""

    async def reserve(self, hold: Hold) -> str | None:
        await asyncio.sleep(0)
        refused = await super().reserve(hold)
        await asyncio.sleep(0)
        return refused

    async def settle(self, hold: Hold, spent: Sequence[int]) -> tuple[Balance, ...]:
        await asyncio.sleep(0)
        balances = await super().settle(hold, spent)
        await asyncio.sleep(0)
        return balances


@pytest.mark.parametrize("moment", range(40))
async def test_a_run_that_is_cancelled_at_any_moment_leaves_nothing_reserved(moment: int) -> None:
    budget = Budget(10_000, "tokens", per="principal")
    script: list[Line] = [call("book", table="five"), "Booked."]
    budgets = Budgets([budget, Budget(9, "calls")], ledger=Waiting())
    async with app_with(script, tools=[booking_tool([])], budgets=budgets) as app:
        asking = asyncio.ensure_future(app.ask("Book five.", as_=ANA, run="r"))
        for _ in range(moment):
            await asyncio.sleep(0)
        asking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asking
        for each, run in ((budget, ""), (budgets.budgets[1], "r")):
            assert (await spent(app, each, run=run))[1] == 0


END: Final = st.sampled_from(["usage", "none", "unavailable", "broken", "cancelled", "left"])
REPLIES: Final = st.lists(st.tuples(END, st.integers(0, 256), st.integers(0, 3)), min_size=1, max_size=25)


class Anyhow(Told):
    """Ends each reply as it is told to, and knows how many tokens it gave out in all."""

    def __init__(self, replies: Sequence[tuple[str, int, int]]) -> None:
        super().__init__(None)
        self._replies = list(replies)
        self.given = 0

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        end, tokens, pauses = self._replies[self.asked % len(self._replies)]
        self.asked += 1
        for _ in range(pauses):
            await asyncio.sleep(0)
        if end == "unavailable":
            raise ProviderUnavailable("busy")
        self.given += 10 + tokens
        yield Delta("Good ")
        if end == "broken":
            raise BadReply("half a reply")
        if end in ("cancelled", "left"):
            await asyncio.sleep(30)
        yield Delta("", (), None if end == "none" else Usage(10, tokens), "stop")


async def _ask(app: App, end: str) -> None:
    """Ask once, and go away in the middle of a reply that would not end."""
    with contextlib.suppress(BudgetReached, ProviderUnavailable, BadReply):
        if end == "left":
            async with contextlib.aclosing(app.stream("Hello?", as_=ANA)) as pieces:
                await anext(pieces)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await app.ask("Hello?", as_=ANA)


@settings(deadline=None, max_examples=40)
@given(replies=REPLIES, limit=st.integers(200, 3000))
async def test_however_replies_end_a_budget_is_not_passed_and_nothing_stays_reserved(
    replies: list[tuple[str, int, int]], limit: int
) -> None:
    budget = Budget(limit, "tokens", per="principal")
    model = Anyhow(replies)
    async with hosted_app(model, budget) as app:
        await asyncio.gather(*(_ask(app, end) for end, _, _ in replies))
        while (now := await spent(app, budget))[1]:  # noqa: ASYNC110 (streams that were left end by themselves)
            await asyncio.sleep(0.001)
        assert model.given <= now[0] <= limit
