"""The ledger in memory."""

from __future__ import annotations

import pytest

from ringwall.deployment.ledger import InMemoryLedger, Ledger
from ringwall.deployment.ledger_contract import LedgerContract


class TestInMemoryLedger(LedgerContract):
    @pytest.fixture
    def ledger(self) -> Ledger:
        return InMemoryLedger()
