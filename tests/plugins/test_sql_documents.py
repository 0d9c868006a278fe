"""Documents in SQLite and in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from ringwall.data.base import StoreOfRecord
from ringwall.data.contract import StoreOfRecordContract
from ringwall_sql import SqlDocuments

pytestmark = pytest.mark.asyncio


class TestOnSqlite(StoreOfRecordContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[StoreOfRecord]:
        store = SqlDocuments(tmp_path / "documents.db")
        yield store
        await store.close()


class TestOnPostgresql(StoreOfRecordContract):
    @pytest_asyncio.fixture
    async def store(self, postgresql: str) -> AsyncIterator[StoreOfRecord]:
        store = SqlDocuments(postgresql)
        yield store
        await store.close()
