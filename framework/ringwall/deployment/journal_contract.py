"""What every journal must pass. Subclass, give an empty journal, run pytest.

    class TestMyJournal(JournalContract):
        @pytest.fixture
        def journal(self, tmp_path: Path) -> Journal:
            return MyJournal(tmp_path / "journal.db")

Override `reopen` if events survive the process, and `rewrite` to prove that `verify` notices tampering.
Needs pytest, pytest-asyncio and hypothesis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringwall.deployment.journal import Draft, Event, Head, Journal, RunRecord, RunStatus, Worker
from ringwall.errors import ChainBroken, InvalidInput, JournalConflict, RunHeld, UnknownRun

OWNER: Final = "acme::user:ana"

_texts = st.text(max_size=20) | st.text(st.characters(categories=["Cs", "Cc", "So"]), max_size=5)
_times = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
_drafts = st.lists(st.builds(Draft, _texts, _texts, _texts, _times), max_size=4)
_statuses = st.sampled_from([None, *RunStatus])
_examples = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[
        HealthCheck.differing_executors,  # a contract is run by many classes,
        HealthCheck.function_scoped_fixture,  # and its examples are told apart within one store
        HealthCheck.too_slow,
    ],
)


def drafts(*bodies: str) -> list[Draft]:
    """Events with these bodies, all of one kind."""
    return [Draft("noted", body, "{}", 1.5) for body in bodies]


def bodies(events: Sequence[Event]) -> list[str]:
    return [event.body for event in events]


class JournalContract:
    """What happened is there, once, in order, whole, and cannot be changed unnoticed."""

    pytestmark = pytest.mark.asyncio

    async def reopen(self, journal: Journal) -> Journal:
        """Close the journal and open what it left behind. Override if it is durable."""
        pytest.skip("this journal does not outlive its process")

    async def rewrite(self, journal: Journal, run: str, record: RunRecord | None, events: Sequence[Event]) -> None:
        """Put these in place of what is stored of `run`, behind the journal's back; None: no record."""
        pytest.skip("this journal's storage cannot be rewritten from outside")

    # order, and the end of a chain

    async def test_events_come_back_in_the_order_they_were_written(self, journal: Journal) -> None:
        head = await journal.start("r", OWNER, drafts("0", "1"))
        head = await journal.append("r", drafts("2", "3"), head)
        head = await journal.append("r", drafts("4"), head, durable=True)
        events = await journal.read("r")
        assert bodies(events) == ["0", "1", "2", "3", "4"]
        assert [e.seq for e in events] == [0, 1, 2, 3, 4]
        assert {(e.run, e.kind, e.label, e.at) for e in events} == {("r", "noted", "{}", 1.5)}
        assert head == Head(5, events[-1].hash)
        assert await journal.verify() == 5

    async def test_a_record_tells_owner_status_and_end(self, journal: Journal) -> None:
        head = await journal.start("r", OWNER, drafts("0"))
        assert await journal.record("r") == RunRecord("r", OWNER, RunStatus.RUNNING, 1, head.hash)
        head = await journal.append("r", drafts("1"), head, status=RunStatus.WAITING)
        head = await journal.append("r", drafts("2"), head)
        assert await journal.record("r") == RunRecord("r", OWNER, RunStatus.WAITING, 3, head.hash)

    async def test_a_run_may_begin_and_end_at_once(self, journal: Journal) -> None:
        await journal.start("r", OWNER, drafts("0"), status=RunStatus.DONE, durable=True)
        assert (await journal.record("r")).status is RunStatus.DONE

    async def test_a_status_alone_leaves_the_end_where_it_is(self, journal: Journal) -> None:
        head = await journal.start("r", OWNER, drafts("0"))
        assert await journal.append("r", [], head, status=RunStatus.DONE) == head
        assert await journal.record("r") == RunRecord("r", OWNER, RunStatus.DONE, 1, head.hash)
        assert await journal.verify() == 1

    async def test_runs_are_listed_in_the_order_they_began_and_found_by_status(self, journal: Journal) -> None:
        heads = {run: await journal.start(run, OWNER, drafts(run)) for run in ("c", "a", "b")}
        await journal.append("a", drafts("end"), heads["a"], status=RunStatus.DONE)
        assert [r.run for r in await journal.runs()] == ["c", "a", "b"]
        assert [r.run for r in await journal.runs(RunStatus.RUNNING)] == ["c", "b"]
        assert [r.run for r in await journal.runs(RunStatus.DONE)] == ["a"]
        assert await journal.runs(RunStatus.FAILED) == []

    async def test_an_empty_journal_verifies(self, journal: Journal) -> None:
        assert await journal.verify() == 0
        assert await journal.runs() == []

    # whole or not at all, and one winner

    async def test_whoever_comes_second_gets_a_conflict_and_writes_nothing(self, journal: Journal) -> None:
        first = await journal.start("r", OWNER, drafts("0"))
        second = await journal.append("r", drafts("mine", "too"), first)
        with pytest.raises(JournalConflict):
            await journal.append("r", drafts("late", "later"), first, status=RunStatus.FAILED)
        with pytest.raises(JournalConflict):
            await journal.append("r", drafts("off by one"), Head(second.length + 1, second.hash))
        assert bodies(await journal.read("r")) == ["0", "mine", "too"]
        assert (await journal.record("r")).status is RunStatus.RUNNING
        assert await journal.verify() == 3

    async def test_of_concurrent_appends_exactly_one_wins(self, journal: Journal) -> None:
        head = await journal.start("r", OWNER, drafts("0"))
        other = await journal.start("other", OWNER, drafts("0"))
        tries = [journal.append("r", drafts(str(i), "end"), head, durable=i % 2 == 0) for i in range(8)]
        *results, unharmed = await asyncio.gather(
            *tries, journal.append("other", drafts("1"), other), return_exceptions=True
        )
        losers = [r for r in results if isinstance(r, JournalConflict)]
        winners = [i for i, r in enumerate(results) if isinstance(r, Head)]
        assert (len(winners), len(losers)) == (1, 7)
        assert isinstance(unharmed, Head)
        assert bodies(await journal.read("r")) == ["0", str(winners[0]), "end"]
        assert await journal.verify() == 5

    async def test_many_runs_at_once_all_get_through(self, journal: Journal) -> None:
        async def run(name: str) -> None:
            head = await journal.start(name, OWNER, drafts("0"))
            for i in range(5):
                head = await journal.append(name, drafts(str(i)), head, durable=i == 3)

        await asyncio.gather(*(run(f"r{i}") for i in range(20)))
        assert await journal.verify() == 20 * 6
        assert len(await journal.runs()) == 20

    async def test_a_caller_that_went_away_leaves_the_journal_whole(self, journal: Journal) -> None:
        head = await journal.start("r", OWNER, drafts("0"))
        task = asyncio.ensure_future(journal.append("r", drafts("1", "2"), head))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await journal.start("next", OWNER, drafts("0"))
        assert bodies(await journal.read("r")) in (["0"], ["0", "1", "2"])
        assert await journal.verify() in (2, 4)

    async def test_a_run_begins_once_and_with_an_event(self, journal: Journal) -> None:
        await journal.start("r", OWNER, drafts("0"))
        with pytest.raises(JournalConflict):
            await journal.start("r", "user:ben", drafts("other"))
        with pytest.raises(InvalidInput):
            await journal.start("empty", OWNER, [])
        assert (await journal.record("r")).owner == OWNER
        assert await journal.verify() == 1

    async def test_an_unknown_run_is_told_as_such(self, journal: Journal) -> None:
        await journal.start("r", OWNER, drafts("0"))
        with pytest.raises(UnknownRun):
            await journal.read("R")
        with pytest.raises(UnknownRun):
            await journal.record("")
        with pytest.raises(UnknownRun):
            await journal.append("x", drafts("1"), Head(0, ""))

    # who carries a run on

    async def test_a_run_whose_worker_lives_is_given_to_nobody_else(self, journal: Journal) -> None:
        first, second = await self._crew_of_two(journal)
        head = await journal.start("r", OWNER, drafts("0"), worker=first)
        assert await journal.take(second, drafts("taken")) == []
        with pytest.raises(RunHeld):
            await journal.append("r", drafts("mine"), head, worker=second)
        head = await journal.append("r", drafts("1"), head, worker=first)
        assert bodies(await journal.read("r")) == ["0", "1"]
        assert await journal.append("r", drafts("2"), head) == Head(3, (await journal.read("r"))[2].hash)

    async def test_a_run_whose_worker_died_is_taken_and_the_dead_one_comes_second(self, journal: Journal) -> None:
        first, second = await self._crew_of_two(journal)
        head = await journal.start("r", OWNER, drafts("0"), worker=first)
        await journal.keep(first.id, 0)
        assert await journal.workers() == [second.id]
        assert await journal.take(second, drafts("taken")) == ["r"]
        with pytest.raises(JournalConflict):
            await journal.append("r", drafts("late"), head)
        with pytest.raises(JournalConflict):
            await journal.append("r", drafts("late"), head, worker=first)
        assert bodies(await journal.read("r")) == ["0", "taken"]
        assert await journal.take(first, drafts("again")) == []
        assert await journal.verify() == 2

    async def test_a_worker_that_is_heard_of_no_more_is_dead(self, journal: Journal) -> None:
        first, second = await self._crew_of_two(journal, seconds=0.05)
        await journal.start("r", OWNER, drafts("0"), worker=first)
        await asyncio.sleep(0.1)
        assert await journal.workers() == []
        assert await journal.take(second, drafts("taken")) == ["r"]

    async def test_runs_that_wait_or_are_over_are_not_taken_but_can_be_given(self, journal: Journal) -> None:
        first, second = await self._crew_of_two(journal)
        for status in RunStatus:
            head = await journal.start(status.value, OWNER, drafts("0"), worker=first)
            await journal.append(status.value, [], head, status=status)
        await journal.keep(first.id, 0)
        assert await journal.take(second, drafts("taken"), limit=9) == ["running", "stopping"]
        await journal.keep(first.id, 60)
        record = await journal.record("waiting")
        after = Head(record.length, record.head)
        await journal.append("waiting", drafts("1"), after, status=RunStatus.RUNNING, worker=second)
        await journal.keep(second.id, 0)
        assert await journal.take(first, drafts("taken")) == ["running"]

    async def test_only_the_crew_of_a_run_takes_it(self, journal: Journal) -> None:
        first, _ = await self._crew_of_two(journal)
        stranger = Worker("other", "other app")
        await journal.start("r", OWNER, drafts("0"), worker=first)
        head = await journal.start("nobody's", OWNER, drafts("0"))
        await journal.keep(first.id, 0)
        assert await journal.take(stranger, drafts("taken"), limit=9) == []
        await journal.append("nobody's", drafts("1"), head, worker=stranger)
        assert await journal.take(first, drafts("taken"), limit=9) == ["r"]

    async def test_each_run_goes_to_one_of_those_who_take_at_once(self, journal: Journal) -> None:
        dead, _ = await self._crew_of_two(journal)
        for number in range(20):
            await journal.start(f"r{number}", OWNER, drafts("0"), worker=dead)
        await journal.keep(dead.id, 0)
        takers = [Worker(f"w{number}", dead.crew) for number in range(4)]
        for taker in takers:
            await journal.keep(taker.id, 60)
        taken: list[str] = []
        while rounds := await asyncio.gather(*(journal.take(taker, drafts("taken"), limit=3) for taker in takers)):
            found = [run for runs in rounds for run in runs]
            if not found:
                break
            taken += found
        assert sorted(taken) == sorted(f"r{number}" for number in range(20))
        assert await journal.verify() == 40

    @_examples
    @given(steps=st.lists(st.tuples(st.sampled_from(["start", "take", "die", "live", "write"]), st.integers(0, 2))))
    async def test_whatever_happens_no_run_is_taken_from_the_living_and_nobody_writes_after_a_taker(
        self, journal: Journal, steps: list[tuple[str, int]]
    ) -> None:
        crew = uuid4().hex
        workers = [Worker(f"{crew} {number}", crew) for number in range(3)]
        alive: set[str] = set()
        holders: dict[str, Worker] = {}
        heads: dict[tuple[str, str], Head] = {}
        for what, number in steps:
            worker = workers[number]
            match what:
                case "die" | "live":
                    await journal.keep(worker.id, 0 if what == "die" else 60)
                    (alive.discard if what == "die" else alive.add)(worker.id)
                case "start":
                    run = uuid4().hex
                    heads[run, worker.id] = await journal.start(run, OWNER, drafts("0"), worker=worker)
                    holders[run] = worker
                case "take":
                    taken = await journal.take(worker, drafts("taken"), limit=9)
                    assert taken == [run for run, holder in holders.items() if holder.id not in alive][:9]
                    for run in taken:
                        record = await journal.record(run)
                        holders[run], heads[run, worker.id] = worker, Head(record.length, record.head)
                case _:
                    for (run, writer), head in list(heads.items()):
                        if holders[run].id == writer:
                            heads[run, writer] = await journal.append(run, drafts("more"), head)
                        else:
                            with pytest.raises(JournalConflict):
                                await journal.append(run, drafts("late"), head)
        for worker in workers:
            await journal.keep(worker.id, 0)

    async def test_a_run_that_waits_is_nobodys_also_once_it_is_to_stop(self, journal: Journal) -> None:
        one, two = await self._crew_of_two(journal)
        head = await journal.start("r", OWNER, drafts("0"), worker=one)
        head = await journal.append("r", drafts("asked"), head, status=RunStatus.WAITING)
        head = await journal.append("r", drafts("stop"), head, status=RunStatus.STOPPING)
        await journal.append("r", drafts("undo"), head, worker=two)

    async def test_a_waiting_run_that_is_stopped_and_left_is_taken_by_its_crew(self, journal: Journal) -> None:
        one, two = await self._crew_of_two(journal)
        head = await journal.start("r", OWNER, drafts("0"), worker=one)
        head = await journal.append("r", drafts("asked"), head, status=RunStatus.WAITING)
        assert await journal.take(two, drafts("taken")) == []
        await journal.append("r", drafts("stop"), head, status=RunStatus.STOPPING)
        assert await journal.take(two, drafts("taken")) == ["r"]

    @staticmethod
    async def _crew_of_two(journal: Journal, seconds: float = 60.0) -> tuple[Worker, Worker]:
        workers = Worker("one", "app"), Worker("two", "app")
        for worker in workers:
            await journal.keep(worker.id, seconds)
        return workers

    # whatever is written

    @_examples
    @given(
        history=st.lists(st.tuples(st.integers(0, 3), _drafts, _statuses), max_size=10),
        odd=_texts,
    )
    async def test_any_history_of_any_text_comes_back_and_verifies(
        self, journal: Journal, history: list[tuple[int, list[Draft], RunStatus | None]], odd: str
    ) -> None:
        unique = uuid4().hex
        heads: dict[str, Head] = {}
        written: dict[str, list[Draft]] = {}
        for number, entries, status in history:
            run = f"{odd}{unique}{number}"
            if run not in heads:
                entries = entries or drafts(odd)
                heads[run] = await journal.start(run, odd, entries)
            else:
                heads[run] = await journal.append(run, entries, heads[run], status=status)
            written[run] = written.get(run, []) + entries
        for run, entries in written.items():
            events = await journal.read(run)
            assert [Draft(e.kind, e.body, e.label, e.at) for e in events] == entries
            assert (await journal.record(run)).owner == odd
        assert await journal.verify() >= sum(map(len, written.values()))

    @pytest.mark.parametrize("text", ["x" * 10_000_000, "😀\ud800\x00\x1a" * 1000], ids=["10 MB", "odd"])
    async def test_a_large_or_odd_body_comes_back_as_it_was(self, journal: Journal, text: str) -> None:
        head = await journal.start("r", OWNER, drafts(text))
        await journal.append("r", drafts("", text), head)
        assert bodies(await journal.read("r")) == [text, "", text]
        assert await journal.verify() == 3

    # after the process

    async def test_what_was_acknowledged_is_there_after_reopening(self, journal: Journal) -> None:
        head = await journal.start("r", OWNER, drafts("0", "\ud800"))
        head = await journal.append("r", drafts("1"), head, status=RunStatus.WAITING)
        before = await journal.read("r")
        journal = await self.reopen(journal)
        try:
            assert await journal.read("r") == before
            assert await journal.runs(RunStatus.WAITING) == [await journal.record("r")]
            await journal.append("r", drafts("2"), head)
            await journal.start("next", OWNER, drafts("0"))
            assert await journal.verify() == 5
        finally:
            await journal.close()

    # nothing is changed unnoticed

    async def test_a_changed_event_is_found(self, journal: Journal) -> None:
        await self._three_runs(journal)
        record, events = await journal.record("b"), await journal.read("b")
        for change in (
            events[1]._replace(body="forged"),
            events[1]._replace(label='{"secrecy":[]}'),
            events[1]._replace(kind="approved"),
            events[1]._replace(at=2.0),
        ):
            await self.rewrite(journal, "b", record, [events[0], change, events[2]])
            with pytest.raises(ChainBroken, match=r"event 1 of run 'b'"):
                await journal.verify()
        await self.rewrite(journal, "b", record, events)
        assert await journal.verify() == 9

    async def test_a_forged_event_with_a_fitting_hash_is_found(self, journal: Journal) -> None:
        await self._three_runs(journal)
        record, events = await journal.record("b"), await journal.read("b")
        forged = events[1]._replace(body="forged")
        forged = forged._replace(hash=forged.computed_hash())
        await self.rewrite(journal, "b", record, [events[0], forged, events[2]])
        with pytest.raises(ChainBroken, match=r"event 2 of run 'b'"):
            await journal.verify()

    async def test_a_removed_event_is_found_wherever_it_was(self, journal: Journal) -> None:
        await self._three_runs(journal)
        record, events = await journal.record("b"), await journal.read("b")
        for gone in range(3):
            await self.rewrite(journal, "b", record, events[:gone] + events[gone + 1 :])
            with pytest.raises(ChainBroken, match=rf"event {gone} of run 'b' is missing"):
                await journal.verify()
        await self.rewrite(journal, "b", record, [])
        with pytest.raises(ChainBroken, match=r"event 0 of run 'b' is missing"):
            await journal.verify()

    async def test_reordered_events_are_found(self, journal: Journal) -> None:
        await self._three_runs(journal)
        record, events = await journal.record("b"), await journal.read("b")
        swapped = [events[0], events[2]._replace(seq=1), events[1]._replace(seq=2)]
        await self.rewrite(journal, "b", record, swapped)
        with pytest.raises(ChainBroken, match=r"event 1 of run 'b'"):
            await journal.verify()

    async def test_a_removed_run_is_found_by_the_run_after_it(self, journal: Journal) -> None:
        await self._three_runs(journal)
        await self.rewrite(journal, "a", None, [])
        with pytest.raises(ChainBroken, match=r"event 0 of run 'b'"):
            await journal.verify()

    async def test_a_run_given_to_another_owner_is_found(self, journal: Journal) -> None:
        await self._three_runs(journal)
        record, events = await journal.record("b"), await journal.read("b")
        await self.rewrite(journal, "b", record._replace(owner="user:mallory"), events)
        with pytest.raises(ChainBroken, match=r"event 0 of run 'b'"):
            await journal.verify()

    async def test_a_cut_off_end_is_found_by_whoever_kept_the_record(self, journal: Journal) -> None:
        await self._three_runs(journal)
        kept = await journal.runs()
        last, events = await journal.record("c"), await journal.read("c")
        assert await journal.verify(kept) == 9
        await self.rewrite(journal, "c", last._replace(length=2, head=events[1].hash), events[:2])
        assert await journal.verify() == 8
        with pytest.raises(ChainBroken, match=r"event 2 of run 'c' is missing"):
            await journal.verify(kept)
        await self.rewrite(journal, "c", None, [])
        assert await journal.verify() == 6
        with pytest.raises(ChainBroken, match=r"event 0 of run 'c' is missing"):
            await journal.verify(kept)

    async def test_runs_may_go_on_after_their_records_were_kept(self, journal: Journal) -> None:
        await self._three_runs(journal)
        kept = await journal.runs()
        await journal.append("b", drafts("more"), Head(3, kept[1].head))
        await journal.start("d", OWNER, drafts("0"))
        assert await journal.verify(kept) == 11

    @staticmethod
    async def _three_runs(journal: Journal) -> None:
        for run in ("a", "b", "c"):
            head = await journal.start(run, OWNER, drafts("0"))
            await journal.append(run, drafts("1", "2"), head)


__all__ = ["JournalContract"]
