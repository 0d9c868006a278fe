"""The ledger in an SQL database, for budgets that several processes share."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from ringwall.deployment.ledger import Balance, Charge, Hold, Ledger, left_to_charge
from ringwall.errors import StoreError
from ringwall_sql.database import BUSY_TIMEOUT, Database, stored
from ringwall_sql.schema import Schema

LEDGER: Final = Schema("ledger", "0001", sa.MetaData())

_ACCOUNTS: Final = sa.Table(
    "budget_accounts",
    LEDGER.tables,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("spent", sa.BigInteger, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False),
    sa.Column("most", sa.BigInteger, nullable=False),  # the limit of whoever reserved last
    sa.Column("at", sa.Double, nullable=False, index=True),  # when that was
)

_HOLDS: Final = sa.Table(
    "budget_holds",
    LEDGER.tables,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("hold", sa.Text, primary_key=True),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("sure", sa.Boolean, nullable=False),
    sa.Column("until", sa.Double, nullable=False),
)

_UNLIMITED: Final = 2**62

# Made once: what SQLAlchemy takes to write a statement is more than what a database takes to do it.
_RESERVE: Final = """
    INSERT INTO budget_accounts (account, spent, reserved, most, at) VALUES {rows}
    ON CONFLICT (account) DO UPDATE SET reserved = budget_accounts.reserved + excluded.reserved,
        most = excluded.most, at = excluded.at
    WHERE budget_accounts.spent + budget_accounts.reserved + excluded.reserved <= excluded.most
    RETURNING account
"""
"""Reserves where there is room, and returns those accounts; they are locked in the order of the rows."""

_HOLD: Final = sa.insert(_HOLDS)
_CHANGE: Final = (
    sa.update(_ACCOUNTS)
    .where(_ACCOUNTS.c.account == sa.bindparam("this"))
    .values(
        spent=_ACCOUNTS.c.spent + sa.bindparam("more"),
        reserved=_ACCOUNTS.c.reserved - sa.bindparam("less"),
    )
)


class SqlLedger(Ledger):
    """Keeps accounts in SQLite (a path) or in any database that SQLAlchemy reaches by a URL.

    A hold is reserved by one statement, which the database runs whole or not at all, and which takes the accounts in
    one order: any number of processes may use the same database, and none waits for another in a circle. Raises
    `StoreError` when the database is locked for longer than `busy_timeout` seconds, read-only, full or gone, and
    without `migrate` when its tables are of an older version of Ringwall; else they are brought up to date.
    """

    def __init__(self, url_or_path: str | Path, *, busy_timeout: float = BUSY_TIMEOUT, migrate: bool = True) -> None:
        self._database = Database(url_or_path, LEDGER, failure=StoreError, migrate=migrate, busy_timeout=busy_timeout)

    async def reserve(self, hold: Hold) -> str | None:
        return await self._database.run(lambda: self._reserve(hold))

    async def settle(self, hold: Hold, spent: Sequence[int]) -> tuple[Balance, ...]:
        return await self._database.run(lambda: self._settle(hold, spent))

    async def balances(self, accounts: Sequence[str], at: float) -> tuple[Balance, ...]:
        def balances() -> tuple[Balance, ...]:
            with self._database.reading() as connection:
                if not _any_lapsed(connection, accounts, at):
                    return _balances(connection, accounts)
            with self._database.writing() as connection:
                _lapse(connection, accounts, at)
                return _balances(connection, accounts)

        return await self._database.run(balances)

    async def drop(self, accounts: Sequence[str]) -> None:
        def drop() -> None:
            with self._database.writing() as connection:
                there = _lock(connection, accounts)
                connection.execute(sa.delete(_HOLDS).where(_HOLDS.c.account.in_(there)))
                connection.execute(sa.delete(_ACCOUNTS).where(_ACCOUNTS.c.account.in_(there)))

        await self._database.run(drop)

    async def forget(self, before: float) -> int:
        old = sa.select(_ACCOUNTS.c.account).where(_ACCOUNTS.c.at < before, _ACCOUNTS.c.reserved == 0)
        idle = old.with_for_update(skip_locked=True)  # what is in use now is waited for by nobody

        def forget() -> int:
            with self._database.writing() as connection:
                return connection.execute(sa.delete(_ACCOUNTS).where(_ACCOUNTS.c.account.in_(idle))).rowcount

        return await self._database.run(forget)

    async def close(self) -> None:
        await self._database.close()

    def _reserve(self, hold: Hold) -> str | None:
        for charge in hold.charges:
            if charge.limit is not None and charge.amount > charge.limit:
                return charge.account
        refused = self._try(hold)
        if refused is not None and self._has_lapsed(refused, hold.at):
            # In a transaction of its own: who holds accounts that were there must not wait for one that comes.
            with self._database.writing() as connection:
                _lapse(connection, [charge.account for charge in hold.charges], hold.at)
            return self._try(hold)
        return refused

    def _has_lapsed(self, account: str, at: float) -> bool:
        with self._database.reading() as connection:
            return _any_lapsed(connection, [account], at)

    def _try(self, hold: Hold) -> str | None:
        charges = sorted(hold.charges, key=lambda charge: stored(charge.account))
        try:
            with self._database.writing() as connection:
                self._grant(connection, hold, charges)
        except _NoRoom as refused:
            return refused.account
        return None

    def _grant(self, connection: sa.Connection, hold: Hold, charges: Sequence[Charge]) -> None:
        asked = {name: value for place, charge in enumerate(charges) for name, value in _asked(place, charge)}
        granted = set(connection.execute(_reserving(len(charges)), {**asked, "at": hold.at}).scalars())
        for charge in charges:
            if stored(charge.account) not in granted:
                raise _NoRoom(charge.account)
        connection.execute(_HOLD, [_held(hold, charge) for charge in charges])

    def _settle(self, hold: Hold, spent: Sequence[int]) -> tuple[Balance, ...]:
        accounts = [charge.account for charge in hold.charges]
        with self._database.writing() as connection:
            there = _lock(connection, accounts)
            this = sa.and_(_HOLDS.c.account.in_(there), _HOLDS.c.hold == hold.id)
            kept = set(connection.execute(sa.delete(_HOLDS).where(this).returning(_HOLDS.c.account)).scalars())
            pairs = zip(hold.charges, spent, strict=True)
            changes = [_settled(charge, amount, kept) for charge, amount in pairs if stored(charge.account) in there]
            if changes:
                connection.execute(_CHANGE, changes)
            return _balances(connection, accounts)


class _NoRoom(Exception):
    """Rolls back what was reserved in the accounts that had room."""

    def __init__(self, account: str) -> None:
        self.account = account


@cache
def _reserving(charges: int) -> sa.TextClause:
    """The statement that reserves so many charges."""
    rows = ", ".join(f"(:account{n}, 0, :amount{n}, :most{n}, :at)" for n in range(charges))
    return sa.text(_RESERVE.format(rows=rows))


def _asked(place: int, charge: Charge) -> Iterator[tuple[str, Any]]:
    yield f"account{place}", stored(charge.account)
    yield f"amount{place}", charge.amount
    yield f"most{place}", _UNLIMITED if charge.limit is None else charge.limit


def _settled(charge: Charge, amount: int, kept: Collection[str]) -> dict[str, Any]:
    """How an account changes when a charge is settled whose hold was kept, or else had lapsed."""
    this = stored(charge.account)
    if this in kept:
        return {"this": this, "more": amount, "less": charge.amount}
    return {"this": this, "more": left_to_charge(charge, amount), "less": 0}


def _held(hold: Hold, charge: Charge) -> dict[str, Any]:
    row = {"account": stored(charge.account), "hold": hold.id}
    return {**row, "amount": charge.amount, "sure": charge.sure, "until": hold.until}


def _among(table: sa.Table, accounts: Iterable[str]) -> sa.ColumnElement[bool]:
    return table.c.account.in_([stored(account) for account in accounts])


def _lapsed(accounts: Sequence[str], at: float) -> sa.ColumnElement[bool]:
    """Whether a hold in one of these accounts, as they are stored, lapsed."""
    return sa.and_(_HOLDS.c.account.in_(accounts), _HOLDS.c.until <= at)


def _any_lapsed(connection: sa.Connection, accounts: Iterable[str], at: float) -> bool:
    lapsed = _lapsed([stored(account) for account in accounts], at)
    return connection.execute(sa.select(_HOLDS.c.hold).where(lapsed).limit(1)).first() is not None


def _lock(connection: sa.Connection, accounts: Iterable[str]) -> list[str]:
    """Wait for the accounts in the order of reservations, before any hold is touched; return those to go on with.

    In PostgreSQL that is what is there now, and locked: an account that comes a moment later is not to be touched half.
    On SQLite who writes is alone.
    """
    names = [stored(account) for account in accounts]
    if connection.dialect.name == "sqlite":
        return names
    by_code_point = _ACCOUNTS.c.account.collate("C")  # as Python sorts
    query = sa.select(_ACCOUNTS.c.account).where(_ACCOUNTS.c.account.in_(names)).order_by(by_code_point)
    return list(connection.execute(query.with_for_update()).scalars())


def _lapse(connection: sa.Connection, accounts: Iterable[str], at: float) -> None:
    there = _lock(connection, accounts)
    gone = sa.delete(_HOLDS).where(_lapsed(there, at)).returning(_HOLDS.c.account, _HOLDS.c.amount, _HOLDS.c.sure)
    changes = [
        {"this": account, "more": amount if sure else 0, "less": amount}
        for account, amount, sure in connection.execute(gone).all()
    ]
    if changes:
        connection.execute(_CHANGE, changes)


def _balances(connection: sa.Connection, accounts: Sequence[str]) -> tuple[Balance, ...]:
    query = sa.select(_ACCOUNTS.c.account, _ACCOUNTS.c.spent, _ACCOUNTS.c.reserved).where(_among(_ACCOUNTS, accounts))
    found = {account: Balance(spent, reserved) for account, spent, reserved in connection.execute(query)}
    return tuple([found.get(stored(account), Balance()) for account in accounts])
