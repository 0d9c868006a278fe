"""Journal, profiles and memories in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from ringwall.deployment.journal import Event, Journal, RunRecord
from ringwall.deployment.journal_contract import JournalContract
from ringwall.personalization import MemoryStore, ProfileStore
from ringwall.personalization.contract import MemoryStoreContract, ProfileStoreContract
from ringwall_sql import SqlJournal, SqlMemories, SqlProfiles

pytestmark = pytest.mark.asyncio


class TestSqlProfiles(ProfileStoreContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[ProfileStore]:
        store = SqlProfiles(tmp_path / "state.db")
        yield store
        await store.close()


class TestSqlMemories(MemoryStoreContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[MemoryStore]:
        store = SqlMemories(tmp_path / "state.db")
        yield store
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest_asyncio.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    journal = SqlJournal(path, busy_timeout=0.2)
    yield journal
    await journal.close()


class TestSqlJournal(JournalContract):
    @pytest_asyncio.fixture
    async def journal(self, journal: Journal, path: Path) -> Journal:
        self.path = path
        return journal

    async def reopen(self, journal: Journal) -> Journal:
        await journal.close()
        return SqlJournal(self.path)

    async def rewrite(
        self, journal: Journal, run: str, record: RunRecord | None, events: Sequence[Event]
    ) -> None:
        rows = [(e.run, e.seq, e.kind, e.at, e.label, e.body, e.previous, e.hash) for e in events]
        with sqlite3.connect(self.path) as database:
            (number,) = database.execute("SELECT number FROM runs WHERE run = ?", (run,)).fetchone()
            database.execute("DELETE FROM events WHERE run = ?", (number,))
            insert = f"INSERT INTO events VALUES ({number}, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
            database.executemany(insert, rows)
            if record is None:
                database.execute("DELETE FROM runs WHERE number = ?", (number,))
            else:
                update = "UPDATE runs SET owner = ?, length = ?, head = ? WHERE number = ?"
                database.execute(update, (record.owner, record.length, record.head, number))
        database.close()
