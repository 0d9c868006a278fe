"""People and processes that act on one run at once, over PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack

import pytest_asyncio

from ringwall import App, CallContext, Principal, RunStatus, Tool, call, tool
from ringwall.deployment import Bounds
from ringwall.errors import ActionDenied, JournalConflict, NotWaiting, RunCancelled
from ringwall.label import BOTTOM
from ringwall_sql import SqlJournal
from tests.scenes import ANA, CARLA, app_with

KIM = Principal.user("kim", "manager")
RULES = """
allow role:guest ask app:app
ask   role:guest call tool:book because "a guest must ask"
allow role:guest call tool:book.undo
grant tool:* collection:questions
grant role:manager collection:questions
grant role:manager user:ana
allow role:manager approve tool:*
allow role:manager standing tool:*
allow role:manager cancel app:app
"""
Done = Counter[tuple[str, str]]


@pytest_asyncio.fixture
async def done() -> Done:
    """How often each run booked and unbooked."""
    return Counter()


@pytest_asyncio.fixture
async def apps(postgresql: str, done: Done) -> AsyncIterator[list[App]]:
    """The app as four processes have it."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                app_with([call("book"), "Done."], rules=RULES, tools=[_book(done)], journal=SqlJournal(postgresql))
            )
            for _ in range(4)
        ]


def _book(done: Done) -> Tool:
    @tool(effect="write", label=BOTTOM)
    async def book(context: CallContext) -> str:
        """Book a table."""
        done["book", context.run] += 1
        await asyncio.sleep(0.001)
        return "booked"

    @book.undone_by
    async def unbook(context: CallContext) -> str:
        done["unbook", context.run] += 1
        return "unbooked"

    return book


async def test_an_approval_is_used_once_whoever_answers_resumes_and_cancels_meanwhile(
    apps: list[App], done: Done
) -> None:
    first, second, third, fourth = apps
    ends: Counter[RunStatus] = Counter()
    for lap in range(25):
        run = f"{lap}"
        await first.ask("Book", as_=ANA, run=run)
        works = [
            first.approve(run, by=CARLA),
            second.approve(run, by=KIM),
            *([third.cancel(run, by=CARLA)] if lap % 3 == 0 else []),
            *(_resumed(app, run, after=lap % 5 * number) for number, app in enumerate(apps)),
            fourth.recover(),
        ]
        _refused_at_most(await asyncio.gather(*works, return_exceptions=True))
        await _ended(apps, run)
        status = (await first.journal.record(run)).status
        ends[status] += 1
        assert done["book", run] - done["unbook", run] == (status is RunStatus.DONE)
        assert done["book", run] <= 1
    assert await first.verify() > 0
    assert set(ends) == {RunStatus.DONE, RunStatus.CANCELLED}


async def test_who_resumes_a_run_that_ends_meanwhile_is_told_its_answer(apps: list[App], done: Done) -> None:
    for lap in range(25):
        run = f"{lap}"
        await apps[0].ask("Book", as_=ANA, run=run)
        await apps[0].approve(run, by=CARLA)
        results = await asyncio.gather(*(_resumed(app, run, after=lap) for app in apps), return_exceptions=True)
        _refused_at_most(results)
        told = [result for result in results if not isinstance(result, BaseException)]
        assert set(told) == {"Done."}
        assert done["book", run] == 1


async def test_a_yes_that_stands_is_used_no_more_often_than_it_may_be(apps: list[App], done: Done) -> None:
    await apps[0].ask("Book", as_=ANA, run="first")
    rule = await apps[0].draft("first", by=CARLA, bounds=Bounds(uses=10, seconds=3600))
    await apps[0].approve("first", by=CARLA, standing=rule)
    asked = await asyncio.gather(*(app.ask("Book", as_=ANA) for app in apps for _ in range(8)))
    ended = [result for result in asked if result.status is RunStatus.DONE]
    assert len(ended) == 10
    assert done.total() == 10


async def _resumed(app: App, run: str, *, after: int) -> str:
    for _ in range(after):
        await app.journal.record(run)
    return (await app.resume(run)).text


def _refused_at_most(results: Sequence[object]) -> None:
    """Somebody else was quicker, or it is over: nothing else goes wrong."""
    for result in results:
        if isinstance(result, BaseException) and not isinstance(
            result, ActionDenied | JournalConflict | NotWaiting | RunCancelled
        ):
            raise result


async def _ended(apps: list[App], run: str) -> None:
    """See the run to its end; if every answer came while somebody else wrote, answer again."""
    over = (RunStatus.DONE, RunStatus.CANCELLED)
    async with asyncio.timeout(10):
        while (await apps[0].journal.record(run)).status not in over:
            with contextlib.suppress(NotWaiting):
                await apps[0].approve(run, by=CARLA)
            with contextlib.suppress(JournalConflict):
                await apps[0].resume(run)
