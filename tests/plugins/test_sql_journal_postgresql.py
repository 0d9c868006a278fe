"""The journal in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import chain

import pytest_asyncio

from ringwall.deployment.journal import Event, Journal, RunRecord, Worker
from ringwall.deployment.journal_contract import OWNER, JournalContract, drafts
from ringwall_sql import SqlJournal
from tests.plugins.tampering import rewrite


class TestSqlJournal(JournalContract):
    @pytest_asyncio.fixture
    async def journal(self, postgresql: str) -> AsyncIterator[Journal]:
        self.url = postgresql
        journal = SqlJournal(postgresql)
        yield journal
        await journal.close()

    async def reopen(self, journal: Journal) -> Journal:
        await journal.close()
        return SqlJournal(self.url)

    async def rewrite(self, journal: Journal, run: str, record: RunRecord | None, events: Sequence[Event]) -> None:
        rewrite(self.url, run, record, events)

    async def test_no_run_goes_to_two_of_many_processes_that_take_as_fast_as_they_can(self, journal: Journal) -> None:
        others = [SqlJournal(self.url) for _ in range(3)]
        for lap in range(40):
            dead, *takers = (Worker(f"{lap}, {number}", str(lap)) for number in range(5))
            for worker in (dead, *takers):
                await journal.keep(worker.id, 60)
            runs = sorted([f"{lap}, {number}" for number in range(12)])
            for run in runs:
                await journal.start(run, OWNER, drafts("0"), worker=dead)
            await journal.keep(dead.id, 0)
            pairs = zip([journal, *others], takers, strict=True)
            taken = await asyncio.gather(*(_all_it_gets(journal, taker) for journal, taker in pairs))
            assert sorted(chain.from_iterable(taken)) == runs
        for other in others:
            await other.close()


async def _all_it_gets(journal: Journal, taker: Worker) -> list[str]:
    taken: list[str] = []
    while found := await journal.take(taker, drafts("taken"), limit=3):
        taken += found
    return taken
