"""What several processes do at once in PostgreSQL comes to what they would do one after the other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, suppress
from typing import Protocol, TypeVar

import pytest_asyncio

from ringwall.deployment.journal import Head
from ringwall.deployment.journal_contract import OWNER, drafts
from ringwall.deployment.ledger import Balance, Charge, Hold
from ringwall.errors import JournalConflict
from ringwall.personalization import Profile
from ringwall.personalization.contract import ANA, BEN, EVERYTHING, memory
from ringwall_sql import SqlJournal, SqlLedger, SqlMemories, SqlProfiles

PROCESSES = 4


class Closed(Protocol):
    async def close(self) -> None: ...


S = TypeVar("S", bound=Closed)
Open = Callable[[Callable[[str], S]], list[S]]


@pytest_asyncio.fixture
async def each(postgresql: str) -> AsyncIterator[Open[Closed]]:
    """Opens the same database as several processes would."""
    async with AsyncExitStack() as stack:

        def opened(kind: Callable[[str], S]) -> list[S]:
            stores = [kind(postgresql) for _ in range(PROCESSES)]
            for store in stores:
                stack.push_async_callback(store.close)
            return stores

        yield opened


async def at_once(works: Iterable[Awaitable[object]]) -> None:
    """Do all, and raise what the first of them raised."""
    await asyncio.gather(*works)


async def test_a_profile_that_several_put_at_once_is_one_of_theirs(each: Open[SqlProfiles]) -> None:
    stores = each(SqlProfiles)
    for lap in range(50):
        names = [f"{lap}, {number}" for number in range(PROCESSES)]
        puts = (s.put(ANA, Profile(ANA.own_grant, name)) for s, name in zip(stores, names, strict=True))
        await at_once([*puts, *([stores[0].forget(ANA)] if lap % 2 else [])])
        assert (await stores[0].get(ANA)).name in (*names, "")


async def test_a_memory_that_several_add_at_once_is_kept_once_and_no_more_than_the_limit(
    each: Open[SqlMemories],
) -> None:
    stores = each(lambda url: SqlMemories(url, limit=3))
    for lap in range(50):
        adds = (s.add(ANA, [memory(ANA, "same", f"{n}"), memory(ANA, f"{lap} {n}", "x")]) for n, s in enumerate(stores))
        await at_once([*adds, stores[0].add(BEN, [memory(BEN, "same", "his")])])
        kept = await stores[0].recall(ANA, "", EVERYTHING, 100)
        assert len(kept) == 3
        assert len({each.id for each in kept}) == 3


async def test_a_worker_that_several_keep_at_once_lives(each: Open[SqlJournal]) -> None:
    journals = each(SqlJournal)
    for lap in range(50):
        await at_once(journal.keep(f"{lap}", 60) for journal in journals)
    assert len(await journals[0].workers()) == 50


async def test_of_runs_that_all_write_to_in_any_order_no_event_is_lost(each: Open[SqlJournal]) -> None:
    journals, runs = each(SqlJournal), [str(number) for number in range(7)]
    for run in sorted(runs, key=lambda run: int(run) * 3 % 7):  # numbered in another order than that of their ids
        await journals[0].start(run, OWNER, drafts("0"))

    async def write(journal: SqlJournal, run: str) -> int:
        written = 0
        for _ in range(60):
            record = await journal.record(run)
            with suppress(JournalConflict):
                await journal.append(run, drafts("more"), Head(record.length, record.head))
                written += 1
        return written

    written = await asyncio.gather(*(write(journal, run) for journal in journals for run in runs))
    assert await journals[0].verify() == len(runs) + sum(written)


def _hold(id_: str, *accounts: str, at: float, lease: float, limit: int = 10**9) -> Hold:
    return Hold(id_, tuple(Charge(account, 1, limit) for account in accounts), at, at + lease)


async def test_holds_that_lapse_forgotten_accounts_and_new_ones_wait_for_each_other_in_no_circle(
    each: Open[SqlLedger],
) -> None:
    ledgers, names = each(SqlLedger), itertools.count()

    async def spend(ledger: SqlLedger, who: int) -> None:
        for lap in range(40):
            accounts = [f"a {lap}", f"b {(lap * 7) % 40}", f"c {lap}", "limited"]
            held = _hold(f"{who} {next(names)}", *accounts, at=lap, lease=1.5, limit=5)
            if await ledger.reserve(held) is None and (lap + who) % 3:
                await ledger.settle(held, [0] * 4)
            await ledger.forget(lap - 5)

    await at_once(spend(ledger, who) for who, ledger in enumerate(ledgers))


async def test_what_is_reserved_while_accounts_are_dropped_is_never_taken_from_others(each: Open[SqlLedger]) -> None:
    ledgers = each(SqlLedger)

    async def reserve_and_settle(ledger: SqlLedger, who: int) -> None:
        for lap in range(60):
            held = _hold(f"{who} {lap}", "run", at=0, lease=100)
            await ledger.reserve(held)
            await ledger.settle(held, [0])

    async def drop(ledger: SqlLedger) -> None:
        for _ in range(200):
            await ledger.drop(["run"])
            assert (await ledger.balances(["run"], 0))[0].reserved >= 0

    await at_once([drop(ledgers[0]), *(reserve_and_settle(ledger, who) for who, ledger in enumerate(ledgers[1:]))])
    assert await ledgers[0].balances(["run"], 0) == (Balance(0, 0),)
