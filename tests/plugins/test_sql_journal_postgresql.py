"""The journal in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import pytest_asyncio
import sqlalchemy as sa

from ringwall.deployment.journal import Event, Journal, RunRecord
from ringwall.deployment.journal_contract import JournalContract
from ringwall_sql import SqlJournal
from ringwall_sql.database import stored
from ringwall_sql.writer import EVENTS, RUNS


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
        engine = sa.create_engine(self.url)
        with engine.begin() as connection:
            number = connection.execute(sa.select(RUNS.c.number).where(RUNS.c.run == stored(run))).scalar_one()
            connection.execute(sa.delete(EVENTS).where(EVENTS.c.run == number))
            if events:
                connection.execute(sa.insert(EVENTS), [{**event._asdict(), "run": number} for event in events])
            here = RUNS.c.number == number
            if record is None:
                connection.execute(sa.delete(RUNS).where(here))
            else:
                changed = {"owner": record.owner, "length": record.length, "head": record.head}
                connection.execute(sa.update(RUNS).where(here).values(**changed))
        engine.dispose()
