"""The journal in this process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ringwall.deployment.journal import Event, InMemoryJournal, Journal, RunRecord
from ringwall.deployment.journal_contract import JournalContract


class TestInMemoryJournal(JournalContract):
    @pytest.fixture
    def journal(self) -> Journal:
        return InMemoryJournal()

    async def rewrite(self, journal: Journal, run: str, record: RunRecord | None, events: Sequence[Event]) -> None:
        assert isinstance(journal, InMemoryJournal)
        stored_events, records = journal._events, journal._records  # noqa: SLF001  tampering knows no doors
        stored_events[run] = list(events)
        if record is None:
            del records[run]
        else:
            records[run] = record
