"""Runs that change hands, are stopped, undone, and keep their deadline."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ringwall import (
    App,
    CallContext,
    Journal,
    Pipeline,
    Principal,
    RunResult,
    RunStatus,
    ScriptedModel,
    Tool,
    Turn,
    call,
    tool,
)
from ringwall.deployment.journal import InMemoryJournal
from ringwall.deployment.rules import Rules
from ringwall.errors import (
    ActionDenied,
    ConfigurationError,
    JournalConflict,
    LimitReached,
    NotWaiting,
    RunCancelled,
    RunHeld,
)
from ringwall.interface.functions import FunctionTool
from ringwall.label import BOTTOM
from ringwall.model.base import ModelRequest
from ringwall.model.scripted import Line, Script
from ringwall_sql import SqlJournal

ANA, BEN = Principal.user("ana", "guest"), Principal.user("ben", "guest")
CARLA = Principal.user("carla", "manager")
RULES = """
allow role:guest ask app:app
allow role:guest call tool:*
allow tool:* call tool:*
grant tool:* collection:questions
grant role:manager collection:questions
grant role:manager user:ana
allow role:manager approve tool:*
allow role:manager cancel app:app
"""
BOTH: list[Line] = [call("book", table="7"), call("order", dish="soup"), "Done."]


class Restaurant:
    """What was done and undone, in order; `hold` keeps a tool's call under way until it is set."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.begun, self.hold = asyncio.Event(), asyncio.Event()
        self.hold.set()
        self.reading, self.turned_page = asyncio.Event(), asyncio.Event()

    def tools(self, **metadata: Any) -> list[Tool]:
        """Two tools that note what they do; `book` can be undone."""

        @tool(effect="write", label=BOTTOM, **metadata)
        async def book(table: str, context: CallContext) -> str:
            """Book a table."""
            return await self._do(f"book {table}", context)

        @book.undone_by
        async def unbook(table: str, result: str, context: CallContext) -> str:
            return await self._do(f"unbook {table}, which was {result!r}", context)

        @tool(effect="write", label=BOTTOM, **metadata)
        async def order(dish: str, context: CallContext) -> str:
            """Order a dish."""
            return await self._do(f"order {dish}", context)

        @order.undone_by
        def cancel_order(dish: str) -> str:
            self.done.append(f"cancel {dish}")
            return "cancelled"

        @tool(effect="read", label=BOTTOM)
        async def menu() -> str:
            """Read the menu."""
            self.reading.set()
            await self.turned_page.wait()
            return "soup"

        return [book, order, menu]

    async def _do(self, what: str, _: CallContext) -> str:
        self.begun.set()
        await self.hold.wait()
        self.done.append(what)
        return what.partition(" ")[0] + "ed"


@pytest.fixture
def restaurant() -> Restaurant:
    return Restaurant()


@pytest.fixture(params=["memory", "sqlite"])
def journals(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Journal]:
    """Opens the one journal, as each process does."""
    if request.param == "sqlite":
        return lambda: SqlJournal(tmp_path / "journal.db")
    journal = InMemoryJournal()
    return lambda: journal


def build(journal: Journal, script: Script, tools: Sequence[Tool], *, rules: str = RULES, **parts: Any) -> App:
    return App(policy=Rules(rules), model=ScriptedModel(script), tools=tools, journal=journal, **parts)


async def kinds(app: App) -> list[str]:
    assert await app.verify() > 0
    return [event.kind for event in await app.journal.read("r")]


async def ended(app: App) -> dict[str, Any]:
    """What the last event of the run tells."""
    return dict(json.loads((await app.journal.read("r"))[-1].body))


# A run belongs to who carries it on, as long as it lives.


async def test_a_run_whose_process_lives_is_left_alone(journals: Callable[[], Journal], restaurant: Restaurant) -> None:
    restaurant.hold.clear()
    async with build(journals(), BOTH, restaurant.tools()) as first:
        task = asyncio.ensure_future(first.ask("Book and order", as_=ANA, run="r"))
        await restaurant.begun.wait()
        async with build(journals(), BOTH, restaurant.tools()) as second:
            assert await second.recover() == []
            with pytest.raises(RunHeld):
                await second.resume("r")
        with pytest.raises(RunHeld):
            await first.resume("r")
        restaurant.hold.set()
        assert (await task).text == "Done."
    assert restaurant.done == ["book 7", "order soup"]


async def test_a_run_that_lasts_longer_than_the_lease_is_left_alone(
    journals: Callable[[], Journal], restaurant: Restaurant
) -> None:
    restaurant.hold.clear()
    async with build(journals(), BOTH, restaurant.tools(), lease=0.3) as first:
        task = asyncio.ensure_future(first.ask("Book and order", as_=ANA, run="r"))
        async with build(journals(), BOTH, restaurant.tools()) as second:
            await restaurant.begun.wait()
            for _ in range(10):
                await asyncio.sleep(0.1)
                assert await second.recover() == []
        restaurant.hold.set()
        assert (await task).text == "Done."


async def test_a_run_whose_process_is_not_heard_of_is_taken_up_and_the_old_owner_does_nothing_more(
    journals: Callable[[], Journal], restaurant: Restaurant
) -> None:
    restaurant.hold.clear()
    async with build(journals(), BOTH, restaurant.tools(idempotent=True), lease=0) as first:
        task = asyncio.ensure_future(first.ask("Book and order", as_=ANA, run="r"))
        await restaurant.begun.wait()
        other = Restaurant()
        async with build(journals(), BOTH, other.tools(idempotent=True)) as second:
            (record,) = await second.recover()
            assert (record.run, record.owner, record.status) == ("r", ANA.own_grant, RunStatus.DONE)
            assert "run.resumed" in await kinds(second)
        restaurant.hold.set()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], Exception)
    assert other.done == ["book 7", "order soup"]
    assert restaurant.done == ["book 7"]  # the same call under the same key


async def test_another_app_or_other_steps_take_up_nothing(restaurant: Restaurant) -> None:
    journal = InMemoryJournal()
    async with build(journal, BOTH, restaurant.tools(), lease=0) as first:
        restaurant.hold.clear()
        task = asyncio.ensure_future(first.ask("Book and order", as_=ANA, run="r"))
        await restaurant.begun.wait()
        stranger = build(journal, BOTH, restaurant.tools(), name="other")
        assert await stranger.recover() == []
        other_steps = build(journal, BOTH, restaurant.tools(), pipeline=first.pipeline | _nothing)
        assert await other_steps.recover() == []
        restaurant.hold.set()
        await task


async def _nothing(turn: Turn) -> Turn:
    return turn


async def test_workers_take_up_what_was_answered_and_what_was_left(
    journals: Callable[[], Journal], restaurant: Restaurant
) -> None:
    asks = f"{RULES}ask role:guest call tool:book\n"
    async with build(journals(), BOTH, restaurant.tools(), rules=asks) as first:
        assert (await first.ask("Book and order", as_=ANA, run="r")).waiting
        async with build(journals(), BOTH, restaurant.tools(), rules=asks) as worker:
            working = asyncio.ensure_future(worker.work(every=0.02))
            await asyncio.sleep(0.1)
            assert (await first.journal.record("r")).status is RunStatus.WAITING
            await first.approve("r", by=CARLA)
            await _until(lambda: _has_status(first, RunStatus.DONE))
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
    assert restaurant.done == ["book 7", "order soup"]


async def test_a_worker_that_ends_leaves_its_runs_to_others(journals: Callable[[], Journal]) -> None:
    begun, may_go_on = asyncio.Queue[None](), asyncio.Event()

    async def wait(turn: Turn) -> Turn:
        begun.put_nowait(None)
        await may_go_on.wait()
        return turn

    async with build(journals(), BOTH, [], pipeline=Pipeline(wait), lease=0) as first:
        task = asyncio.ensure_future(first.ask("Wait", as_=ANA, run="r"))
        await begun.get()
        async with build(journals(), BOTH, [], pipeline=Pipeline(wait)) as second:
            working = asyncio.ensure_future(second.work(every=0.02))
            await begun.get()
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            assert await _has_status(second, RunStatus.RUNNING)
        async with build(journals(), BOTH, [], pipeline=Pipeline(wait)) as third:
            may_go_on.set()
            assert [record.status for record in await third.recover()] == [RunStatus.DONE]
        with pytest.raises(JournalConflict):
            await task


# Stopped by somebody, and undone.


async def test_a_cancelled_run_is_undone_latest_first(journals: Callable[[], Journal], restaurant: Restaurant) -> None:
    async with build(journals(), [*BOTH[:2], call("menu"), "Done."], restaurant.tools()) as app:
        task = await _until_in_menu(app, restaurant)
        assert (await app.cancel("r", by=ANA, why="changed my mind")).status is RunStatus.STOPPING
        restaurant.turned_page.set()
        with pytest.raises(RunCancelled):
            await task
        assert restaurant.done == ["book 7", "order soup", "cancel soup", "unbook 7, which was 'booked'"]
        end = await ended(app)
        assert (end["by"], end["why"], len(end["undone"]), end["kept"]) == (ANA.id, "changed my mind", 2, [])
        told = await kinds(app)
        assert told.count("call.started") == told.count("call.finished") == 5
        with pytest.raises(NotWaiting):
            await app.resume("r")
        with pytest.raises(NotWaiting):
            await app.cancel("r", by=ANA)


async def test_another_process_cancels_a_run_that_goes_on_elsewhere(
    journals: Callable[[], Journal], restaurant: Restaurant
) -> None:
    restaurant.hold.clear()
    async with build(journals(), BOTH, restaurant.tools(), lease=0.3) as first:
        task = asyncio.ensure_future(first.ask("Book and order", as_=ANA, run="r"))
        await restaurant.begun.wait()
        async with build(journals(), BOTH, restaurant.tools()) as second:
            assert (await second.cancel("r", by=CARLA)).status is RunStatus.STOPPING
        restaurant.hold.set()
        with pytest.raises(RunCancelled):
            await task
        assert restaurant.done == ["book 7", "unbook 7, which was 'booked'"]
        assert await _has_status(first, RunStatus.CANCELLED)


async def test_a_run_that_waits_for_its_model_hears_that_it_is_cancelled(journals: Callable[[], Journal]) -> None:
    asked = asyncio.Event()

    async def forever(turn: Turn) -> Turn:
        asked.set()
        await asyncio.Event().wait()
        return turn

    pipeline = Pipeline(forever)
    async with build(journals(), BOTH, [], pipeline=pipeline, lease=0.3) as first:
        task = asyncio.ensure_future(first.ask("Wait", as_=ANA, run="r"))
        await asked.wait()
        async with build(journals(), BOTH, [], pipeline=pipeline) as second:
            await second.cancel("r", by=CARLA)
        with pytest.raises(RunCancelled):
            await asyncio.wait_for(task, 5)
        assert await _has_status(first, RunStatus.CANCELLED)


async def test_a_run_that_nobody_carries_on_is_cancelled_and_undone_at_once(
    journals: Callable[[], Journal], restaurant: Restaurant
) -> None:
    asks = f"{RULES}ask role:guest call tool:order\n"
    async with build(journals(), BOTH, restaurant.tools(), rules=asks) as app:
        assert (await app.ask("Book and order", as_=ANA, run="r")).waiting
        assert (await app.cancel("r", by=ANA)).status is RunStatus.CANCELLED
        assert restaurant.done == ["book 7", "unbook 7, which was 'booked'"]
        assert await app.waiting(as_=CARLA) == []


async def test_only_who_asked_and_whom_the_policy_lets_may_cancel(restaurant: Restaurant) -> None:
    asks = RULES.replace("allow role:guest call tool:*", "ask role:guest call tool:*")
    async with build(InMemoryJournal(), BOTH, restaurant.tools(), rules=asks) as app:
        await app.ask("Book and order", as_=ANA, run="r")
        with pytest.raises(ActionDenied):
            await app.cancel("r", by=BEN)
        with pytest.raises(ActionDenied):
            await app.cancel("r", by=Principal.user("carla", "manager", tenant="acme"))
        assert await _has_status(app, RunStatus.WAITING)
        assert (await app.cancel("r", by=CARLA)).status is RunStatus.CANCELLED


async def test_an_undo_that_the_policy_refuses_is_not_made_and_is_told(restaurant: Restaurant) -> None:
    no = RULES + 'deny role:guest call tool:order.undo because "the kitchen has begun"\n'
    async with build(InMemoryJournal(), [*BOTH[:2], call("menu"), "Done."], restaurant.tools(), rules=no) as app:
        await _cancelled_in_menu(app, restaurant)
        assert restaurant.done == ["book 7", "order soup", "unbook 7, which was 'booked'"]
        (kept,) = (await ended(app))["kept"]
        assert (kept["tool"], "the kitchen has begun" in kept["why"]) == ("order", True)


async def test_an_undo_that_must_be_asked_about_waits_for_a_human(restaurant: Restaurant) -> None:
    asks = RULES.replace(
        "allow role:guest call tool:*", "ask role:guest call tool:order.undo\nallow role:guest call tool:*"
    )
    async with build(InMemoryJournal(), [*BOTH[:2], call("menu"), "Done."], restaurant.tools(), rules=asks) as app:
        await _cancelled_in_menu(app, restaurant)
        (question,) = await app.waiting(as_=CARLA)
        assert (question.tool, restaurant.done) == ("order.undo", ["book 7", "order soup"])
        await app.approve("r", by=CARLA)
        assert (await app.resume("r")).status is RunStatus.CANCELLED
        assert restaurant.done[2:] == ["cancel soup", "unbook 7, which was 'booked'"]


async def test_a_call_whose_result_is_not_known_is_put_before_a_human_before_anything_is_undone(
    journals: Callable[[], Journal], restaurant: Restaurant
) -> None:
    async with build(journals(), BOTH, restaurant.tools(), lease=0) as first:
        restaurant.hold.clear()
        task = asyncio.ensure_future(first.ask("Book and order", as_=ANA, run="r"))
        await restaurant.begun.wait()
        later = Restaurant()
        async with build(journals(), BOTH, later.tools()) as second:
            (question,) = (await second.cancel("r", by=CARLA)).waiting
            assert question.in_doubt
            await second.resolve("r", by=CARLA, happened=True, result="booked")
            assert (await second.resume("r")).status is RunStatus.CANCELLED
            assert later.done == ["unbook 7, which was 'booked'"]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_run_that_failed_is_undone_if_the_app_says_so_or_somebody_cancels_it(restaurant: Restaurant) -> None:

    def breaks(request: ModelRequest) -> Line:
        if any(message.type == "ai" for message in request.messages):
            raise RuntimeError("the model broke")
        return BOTH[0]

    for undo_failed in (True, False):
        restaurant.done.clear()
        async with build(InMemoryJournal(), breaks, restaurant.tools(), undo_failed=undo_failed) as app:
            with pytest.raises(Exception, match="broke"):
                await app.ask("Book", as_=ANA, run="r")
            assert await _has_status(app, RunStatus.FAILED)
            assert restaurant.done == ["book 7", *(["unbook 7, which was 'booked'"] if undo_failed else [])]
            if undo_failed:
                with pytest.raises(NotWaiting):
                    await app.resume("r")
            else:
                assert (await app.cancel("r", by=ANA)).status is RunStatus.CANCELLED
                assert restaurant.done[1:] == ["unbook 7, which was 'booked'"]


async def test_who_leaves_a_run_has_it_undone(restaurant: Restaurant) -> None:
    async with build(InMemoryJournal(), [*BOTH[:2], call("menu"), "Done."], restaurant.tools()) as app:
        task = await _until_in_menu(app, restaurant)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _until(lambda: _has_status(app, RunStatus.CANCELLED))
        assert restaurant.done[2:] == ["cancel soup", "unbook 7, which was 'booked'"]


async def test_an_undo_that_was_interrupted_is_not_made_again(restaurant: Restaurant) -> None:
    asks = f"{RULES}ask role:guest call tool:order\n"
    journal = InMemoryJournal()
    async with build(journal, BOTH, restaurant.tools(), rules=asks, lease=0) as app:
        assert (await app.ask("Book and order", as_=ANA, run="r")).waiting
        restaurant.hold.clear()
        restaurant.begun.clear()
        undoing = asyncio.ensure_future(app.cancel("r", by=ANA))
        await restaurant.begun.wait()
        last = Restaurant()
        async with build(journal, BOTH, last.tools(), rules=asks) as second:
            (record,) = await second.recover()
            assert record.status is RunStatus.WAITING
            (question,) = await second.waiting(as_=CARLA)
            assert (question.tool, question.in_doubt, last.done) == ("book.undo", True, [])
            await second.resolve("r", by=CARLA, happened=True)
            assert (await second.resume("r")).status is RunStatus.CANCELLED
        undoing.cancel()
        await asyncio.gather(undoing, return_exceptions=True)


def test_what_undoes_a_call_may_ask_for_nothing_else() -> None:
    @tool(effect="write")
    def book(table: str) -> str:
        """Book."""
        return table

    assert isinstance(book, FunctionTool)
    with pytest.raises(ConfigurationError, match="chair"):

        @book.undone_by
        def unbook(chair: str) -> str:
            return chair


# Deadlines.


async def test_a_run_has_what_is_left_of_its_deadline_when_it_is_resumed(
    journals: Callable[[], Journal], restaurant: Restaurant
) -> None:
    restaurant.hold.clear()
    async with build(journals(), BOTH, restaurant.tools(idempotent=True), lease=0) as first:
        task = asyncio.ensure_future(first.ask("Book and order", as_=ANA, run="r", deadline=2))
        await restaurant.begun.wait()
        slow = Restaurant()
        slow.hold.clear()
        async with build(journals(), BOTH, slow.tools(idempotent=True)) as second:
            await asyncio.sleep(0.7)
            began = asyncio.get_running_loop().time()
            (record,) = await second.recover()
            assert record.status is RunStatus.FAILED
            assert asyncio.get_running_loop().time() - began < 1.9
            assert (await ended(second))["error"] == "LimitReached"
            slow.hold.set()
            with pytest.raises(LimitReached):
                await second.resume("r")
            assert (await second.resume("r", deadline=5)).text == "Done."
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_waiting_for_a_human_takes_nothing_off_the_deadline(restaurant: Restaurant) -> None:
    asks = f"{RULES}ask role:guest call tool:book\n"
    async with build(InMemoryJournal(), BOTH, restaurant.tools(), rules=asks) as app:
        assert (await app.ask("Book and order", as_=ANA, run="r", deadline=0.3)).waiting
        await asyncio.sleep(0.4)
        await app.approve("r", by=CARLA)
        assert (await app.resume("r")).text == "Done."


async def _until_in_menu(app: App, restaurant: Restaurant) -> asyncio.Task[RunResult]:
    """Ask, and return while the run reads the menu, after it booked and ordered."""
    task = asyncio.ensure_future(app.ask("Book, order, read the menu", as_=ANA, run="r"))
    await restaurant.reading.wait()
    return task


async def _cancelled_in_menu(app: App, restaurant: Restaurant) -> None:
    task = await _until_in_menu(app, restaurant)
    await app.cancel("r", by=ANA)
    restaurant.turned_page.set()
    with pytest.raises(RunCancelled):
        await task


async def _has_status(app: App, status: RunStatus) -> bool:
    return (await app.journal.record("r")).status is status


async def _until(true: Callable[[], Any]) -> None:
    for _ in range(1000):
        if await true():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it never came true")
