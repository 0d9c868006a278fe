"""The ledger in SQLite and PostgreSQL: what several processes may spend together."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
import pytest_asyncio

from ringwall import Budget, Budgets
from ringwall.deployment import Spender
from ringwall.deployment.ledger import Balance, Charge, Ledger
from ringwall.deployment.ledger_contract import LedgerContract, hold
from ringwall.errors import BudgetReached, StoreError
from ringwall.model.base import Location
from ringwall_sql import SqlLedger
from tests.plugins import asking_for_ever
from tests.scenes import ANA, app_with

PROGRAM = Path(__file__).with_name("sharing_a_ledger.py")


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    found: str = request.getfixturevalue("postgresql")
    return found


class TestSqlLedger(LedgerContract):
    @pytest_asyncio.fixture
    async def ledger(self, url: str) -> AsyncIterator[Ledger]:
        ledger = SqlLedger(url, busy_timeout=30)
        yield ledger
        await ledger.close()


async def test_processes_that_share_a_budget_never_pass_it_together(url: str) -> None:
    ledger = SqlLedger(url)
    pipe = asyncio.subprocess.PIPE
    command = [sys.executable, str(PROGRAM), url]
    others = [await asyncio.create_subprocess_exec(*command, str(name), stdin=pipe, stdout=pipe) for name in range(3)]
    for other in others:
        assert other.stdout is not None
        assert await other.stdout.readline() == b"ready\n"
    spent = [int((await said)[0]) for said in [asyncio.ensure_future(other.communicate(b"go\n")) for other in others]]
    assert all(spent)
    assert 390 <= sum(spent) <= 400
    assert await ledger.balances(["ana", "acme", "b"], 0.0) == (Balance(sum(spent), 0),) * 3
    await ledger.close()


async def test_what_was_spent_is_known_to_the_next_process(url: str) -> None:
    for _ in range(2):
        budgets = Budgets([Budget(2, "rounds", per="principal")], ledger=SqlLedger(url))
        async with app_with(["Hello."], budgets=budgets) as app:
            await app.ask("Hello?", as_=ANA)
    budgets = Budgets([Budget(2, "rounds", per="principal")], ledger=SqlLedger(url))
    async with app_with(["Hello."], budgets=budgets) as app:
        with pytest.raises(BudgetReached):
            await app.ask("Hello?", as_=ANA)


async def test_a_ledger_that_cannot_be_reached_stops_the_run(tmp_path: Path) -> None:
    """Nothing is done that cannot be counted."""
    path = tmp_path / "state.db"
    budgets = Budgets([Budget(2, "rounds")], ledger=SqlLedger(path, busy_timeout=0.1))
    async with app_with(["Hello."], budgets=budgets) as app:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="locked"):
                await app.ask("Hello?", as_=ANA)
        await app.ask("Hello?", as_=ANA)


async def test_a_process_that_died_holds_nothing_back_for_ever(url: str) -> None:
    dead, alive = SqlLedger(url), SqlLedger(url)
    await dead.reserve(hold(Charge("acme", 9, 10, sure=False), lease=60))
    await dead.close()
    assert await alive.reserve(hold(Charge("acme", 2, 10), at=59)) == "acme"
    assert await alive.reserve(hold(Charge("acme", 2, 10), at=61)) is None
    await alive.close()


@pytest.mark.parametrize(("location", "stays"), [(Location.IN_PROCESS, False), (Location.REMOTE, True)])
async def test_what_a_killed_run_had_reserved_lapses_and_the_run_goes_on(
    tmp_path: Path, location: Location, *, stays: bool
) -> None:
    """What a provider elsewhere was asked for counts as spent; what died with the process does not."""
    program = str(Path(__file__).with_name("asking_for_ever.py"))
    pipe = asyncio.subprocess.PIPE
    killed = await asyncio.create_subprocess_exec(sys.executable, program, str(tmp_path), location, stdout=pipe)
    assert killed.stdout is not None
    assert await killed.stdout.readline() == b"asked\n"
    killed.kill()
    await killed.wait()

    later = [time.time()]
    async with asking_for_ever.app(tmp_path, location, answers=True, now=lambda: later[0]) as app:
        spender = Spender("r", asking_for_ever.ANA)
        spent, reserved = await app.budgets.spent("tokens", spender)
        assert spent == 0
        assert reserved > 256
        later[0] += asking_for_ever.LEASE + 1
        assert await app.budgets.spent("tokens", spender) == (reserved if stays else 0, 0)
        assert (await app.resume("r")).text == "Hello."
        assert await app.budgets.spent("tokens", spender) == ((reserved if stays else 0) + 12, 0)
