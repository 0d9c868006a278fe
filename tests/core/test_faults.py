"""What a fault leaves behind: a typed error, all that was journaled before it, and a chain that verifies."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ringwall import App, CallContext, Rules, RunResult, RunStatus, ScriptedModel, Tool, call, tool
from ringwall.errors import (
    BadReply,
    ContextOverflow,
    JournalConflict,
    JournalUnavailable,
    NotWaiting,
    ProviderError,
    ProviderRefused,
    ProviderUnavailable,
)
from ringwall.model.scripted import Line
from ringwall_hosted import HostedModel, Retries
from ringwall_llama import LlamaCpp
from ringwall_sql import SqlJournal
from tests.plugins.openai_server import STREAM_HEAD, http, piece, says, stream, told
from tests.scenes import ANA, BEN, CARLA, RULES, chunk, library

BOOK: list[Line] = [call("book", table="7"), "Done."]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def build(path: Path, script: Sequence[Line], *tools: Tool, busy_timeout: float = 0.05, **parts: Any) -> App:
    """An app as each process that works on `path` builds it."""
    given: dict[str, Any] = {"model": ScriptedModel(script), "policy": Rules(RULES), **parts}
    journal = given.pop("journal", None) or SqlJournal(path, busy_timeout=busy_timeout)
    return App(tools=tools, journal=journal, **given)


async def left_behind(path: Path) -> tuple[str, list[str]]:
    """The status of run `r` and the kinds of its events, read by who comes later; every chain verifies."""
    journal = SqlJournal(path)
    await journal.verify()
    record, events = await journal.record("r"), await journal.read("r")
    await journal.close()
    return record.status, [event.kind for event in events]


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's transaction that keeps everybody else from writing."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


async def cancel_as_it_writes(run: asyncio.Task[RunResult], other: sqlite3.Connection) -> None:
    """Let the run come to where it waits for the lock of `other`, cancel it there, and let go of the lock."""
    for _ in range(50):
        await asyncio.sleep(0)
    run.cancel()
    await asyncio.sleep(0)
    other.execute("ROLLBACK")
    with pytest.raises(asyncio.CancelledError):
        await run


class Booking:
    """Bookings that were made, by key; `hangs`: the tool that makes them does not return."""

    def __init__(self) -> None:
        self.made: list[str] = []
        self.begun = asyncio.Event()

    def tool(self, *, hangs: bool = False, **metadata: Any) -> Tool:
        @tool(**{"effect": "write", **metadata})
        async def book(table: str, context: CallContext) -> str:
            """Book a table."""
            self.made.append(context.key)
            self.begun.set()
            if hangs:
                await asyncio.Event().wait()
            return f"booked {table}"

        return book


# ---- tools


@pytest.mark.parametrize(("happened", "said"), [(True, "it was done"), (False, "did not happen")])
async def test_a_writing_tool_past_its_time_is_in_doubt_until_a_human_says_what_became_of_it(
    path: Path,
    happened: bool,  # noqa: FBT001 (pytest passes it)
    said: str,
) -> None:
    booking = Booking()
    async with build(path, BOOK, booking.tool(hangs=True, timeout=0.02)) as app:
        result = await app.ask("book", as_=ANA, run="r")
        assert [question.in_doubt for question in result.waiting] == [True]
        with pytest.raises(NotWaiting, match="in doubt"):
            await app.approve("r", by=CARLA)
        assert (await app.resume("r")).status is RunStatus.WAITING
    assert (await left_behind(path))[1].count("call.in_doubt") == 1
    async with build(path, ["Done."], booking.tool()) as later:
        await later.resolve("r", by=CARLA, happened=happened)
        assert (await later.resume("r")).text == "Done."
        told = [event.body for event in await later.events("r", as_=ANA) if event.kind == "turn.changed"]
    assert said in told[-1] + told[-2]
    assert len(booking.made) == 1


async def test_a_reading_tool_past_its_time_is_told_to_the_model(path: Path) -> None:
    async with build(path, BOOK, Booking().tool(effect="read", hangs=True, timeout=0.02)) as app:
        assert (await app.ask("book", as_=ANA, run="r")).text == "Done."
        (finished,) = [e.body for e in await app.events("r", as_=ANA) if e.kind == "call.finished"]
    assert "did not return within 0.02 s" in finished
    assert (await left_behind(path))[0] == "done"


@asynccontextmanager
async def interrupted(path: Path, hanging: Tool) -> AsyncIterator[asyncio.Task[RunResult]]:
    """A process that hangs in its tool and is not heard of, while others take its run over."""
    async with build(path, BOOK, hanging, lease=0) as app:
        task = asyncio.ensure_future(app.ask("book", as_=ANA, run="r"))
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, JournalConflict):
                await task


async def test_a_write_that_another_process_began_is_not_done_again_but_put_before_a_human(path: Path) -> None:
    booking = Booking()
    async with interrupted(path, booking.tool(hangs=True)):
        await booking.begun.wait()
        async with build(path, ["Done."], booking.tool()) as other:
            (question,) = (await other.resume("r")).waiting
            assert question.in_doubt
            assert [q.call for q in await other.waiting(as_=CARLA)] == [question.call]
            await other.resolve("r", by=CARLA, happened=True)
            assert (await other.resume("r")).text == "Done."
    assert len(booking.made) == 1
    assert (await left_behind(path))[0] == "done"


async def test_an_idempotent_write_that_was_interrupted_is_completed_under_the_same_key(path: Path) -> None:
    booking = Booking()
    async with interrupted(path, booking.tool(hangs=True, idempotent=True)):
        await booking.begun.wait()
        async with build(path, ["Done."], booking.tool(idempotent=True)) as other:
            assert (await other.resume("r")).text == "Done."
    first, second = booking.made
    assert first == second


async def test_a_process_whose_run_was_taken_over_may_not_go_on_with_it(path: Path) -> None:
    may_return = asyncio.Event()
    begun = asyncio.Event()

    @tool(effect="write", idempotent=True)
    async def book(table: str) -> str:
        """Book a table."""
        begun.set()
        await may_return.wait()
        return "booked by the first"

    async with interrupted(path, book) as first:
        await begun.wait()
        async with build(path, ["Done."], Booking().tool(idempotent=True)) as other:
            await other.resume("r")
        may_return.set()
        with pytest.raises(JournalConflict):
            await first
    status, kinds = await left_behind(path)
    assert (status, kinds.count("call.finished")) == ("done", 1)


# ---- the journal


async def test_a_journal_that_is_locked_takes_no_run_and_loses_none(path: Path) -> None:
    async with build(path, ["hi"]) as app:
        await app.ask("hello", as_=ANA, run="r")
        with locked(path), pytest.raises(JournalUnavailable, match=r"locked.*next:"):
            await app.ask("hello again", as_=ANA)
        status, kinds = await left_behind(path)
        assert (status, kinds[0], kinds.count("run.finished")) == ("done", "run.started", 1)
        assert (await app.ask("and again", as_=ANA)).text == "hi"


async def test_a_read_only_journal_takes_no_run(path: Path) -> None:
    async with build(path, ["hi"]) as app:
        await app.ask("hello", as_=ANA, run="r")
    journal = SqlJournal(f"sqlite:///file:{path}?mode=ro&uri=true")
    async with build(path, ["hi"], journal=journal) as reader:
        with pytest.raises(JournalUnavailable, match=r"read-only.*next: allow"):
            await reader.ask("hello", as_=ANA)
        assert await reader.verify() == len((await left_behind(path))[1])


async def test_a_tool_does_not_write_when_its_intent_cannot_be_written_down(path: Path) -> None:
    booking = Booking()
    async with build(path, BOOK, booking.tool()) as app:

        def locks(_: object) -> Line:
            other.execute("BEGIN IMMEDIATE")
            return BOOK[0]

        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            async with build(path, locks, booking.tool(), lease=0) as failing:  # type: ignore[arg-type]
                with pytest.raises(JournalUnavailable, match="locked"):
                    await failing.ask("book", as_=ANA, run="r")
        assert booking.made == []
        assert await left_behind(path) == ("running", ["run.started"])
        assert (await app.resume("r")).text == "Done."
    assert len(booking.made) == 1


async def test_a_run_cancelled_while_the_journal_writes_is_cancelled_there_too(path: Path) -> None:
    reading = asyncio.Event()

    @tool(effect="write")
    async def book(table: str) -> str:
        """Book a table."""
        other.execute("BEGIN IMMEDIATE")
        reading.set()
        return "booked"

    async with build(path, BOOK, book, busy_timeout=30) as app:
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            run = asyncio.ensure_future(app.ask("book", as_=ANA, run="r"))
            await reading.wait()
            await cancel_as_it_writes(run, other)
        with pytest.raises(NotWaiting, match="cancelled"):
            await app.resume("r")
    status, kinds = await left_behind(path)
    assert (status, kinds[-1], kinds.count("call.finished")) == ("cancelled", "run.cancelled", 1)


async def test_a_run_cancelled_before_it_is_known_to_be_written_is_cancelled_all_the_same(path: Path) -> None:
    async with build(path, ["hi"], busy_timeout=30) as app:
        with locked(path) as other:
            run = asyncio.ensure_future(app.ask("hello", as_=ANA, run="r"))
            await cancel_as_it_writes(run, other)
    assert await left_behind(path) == ("cancelled", ["run.started", "run.cancelled"])


# ---- documents and models


async def test_of_good_and_bad_documents_the_good_are_in_and_each_bad_one_says_why(tmp_path: Path) -> None:
    from ringwall.data import front_matter_readers, read_folder

    head = "---\nreaders: [role:staff]\n---\n"
    (tmp_path / "big.md").write_text(head + "The wine list is long.\n\n" * 430_000)
    (tmp_path / "empty.md").write_text(head)
    (tmp_path / "latin.md").write_bytes(head.encode() + b"caf\xe9")
    (tmp_path / "nobody.md").write_text("No one said who may read this.")
    async with build(tmp_path / "journal.db", lambda request: str(request.messages)) as app:  # type: ignore[arg-type]
        report = await app.ingest(read_folder(tmp_path), front_matter_readers)
        assert [done.document for done in report.ingested] == ["big.md", "empty.md"]
        assert report.empty == ("empty.md",)
        why = {refused.document: str(refused.error) for refused in report.refused}
        assert set(why) == {"latin.md", "nobody.md"}
        assert "not UTF-8" in why["latin.md"]
        assert "has no readers" in why["nobody.md"]
        assert "wine list" in (await app.ask("wine list", as_=BEN)).text
        assert "wine list is" not in (await app.ask("wine list", as_=ANA)).text


async def test_a_question_beyond_the_window_is_too_long_by_so_many_tokens(path: Path) -> None:
    async with build(path, BOOK, model=LlamaCpp(context=512, threads=1)) as app:
        with pytest.raises(ContextOverflow, match="tokens too long") as caught:
            await app.ask("wine " * 600, as_=ANA, run="r")
    assert caught.value.excess == caught.value.tokens + caught.value.reserved - 512 > 0
    status, kinds = await left_behind(path)
    assert (status, kinds[0], kinds.count("run.failed")) == ("failed", "run.started", 1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param(http(401, {"error": {"message": "no such key"}}), ProviderRefused, id="401"),
        pytest.param(http(429, {"error": {"message": "slow down"}}), ProviderUnavailable, id="429"),
        pytest.param(http(500), ProviderUnavailable, id="500"),
        pytest.param(stream("not JSON"), BadReply, id="garbage"),
        pytest.param(STREAM_HEAD + piece(says("Hel")) + b"0\r\n\r\n", BadReply, id="half a stream"),
    ],
)
async def test_what_a_hosted_model_does_wrong_fails_the_run_and_is_written_down(
    path: Path, answer: bytes, error: type[ProviderError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    rules = Rules(RULES + "grant model:tiny collection:questions")
    async with told(answer) as server:
        retries = Retries(attempts=2, first_wait=0.001, longest_wait=0.01)
        model = HostedModel("tiny", base_url=server.base_url, window=1000, retries=retries)
        documents = await library(chunk("The wine list is long."))
        async with build(path, BOOK, model=model, policy=rules, documents=documents) as app:
            with pytest.raises(error):
                await app.ask("wine list?", as_=ANA, run="r")
            last = (await app.events("r", as_=ANA))[-1]
    assert error.__name__ in last.body
    status, kinds = await left_behind(path)
    assert (status, kinds[0], kinds.count("run.failed")) == ("failed", "run.started", 1)
    assert "flow.allowed" in kinds


async def test_a_failed_run_goes_on_where_it_stopped_once_the_model_is_back(path: Path) -> None:
    booking = Booking()

    def fails_after_the_tool(request: Any) -> Line:
        if request.messages[-1].type == "tool":
            raise ProviderUnavailable("the model is down", provider="scripted")
        return BOOK[0]

    async with build(path, fails_after_the_tool, booking.tool()) as app:  # type: ignore[arg-type]
        with pytest.raises(ProviderUnavailable):
            await app.ask("book", as_=ANA, run="r")
    assert (await left_behind(path))[0] == "failed"
    async with build(path, ["Done."], booking.tool()) as later:
        assert (await later.resume("r")).text == "Done."
    assert len(booking.made) == 1
