"""The ledger: what was spent and what is reserved, in accounts that many runs share.

A plugin author reads this file alone. Subclass `Ledger`, then run `ringwall.deployment.ledger_contract` on it.

Amounts are whole numbers, so that sums are exact: what they count (tokens, billionths of a dollar) is the caller's.
"""

from __future__ import annotations

import heapq
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Charge(NamedTuple):
    """What is to be reserved in one account: granted while spent and reserved together stay within `limit`.

    `limit` None only counts. `sure` says what becomes of it if nobody settles it in time: counted as spent, because
    somebody else may have done the work and will want the money, or given back.
    """

    account: str
    amount: int
    limit: int | None
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Hold:
    """Charges that are reserved together, each in another account, under an id that nobody else uses.

    `at` and `until` are Unix times in seconds: when it is asked for, and when it lapses unless settled.
    """

    id: str
    charges: tuple[Charge, ...]
    at: float
    until: float


class Balance(NamedTuple):
    """What an account was charged, and what is reserved in it besides."""

    spent: int = 0
    reserved: int = 0


class Ledger(ABC):
    """Keeps accounts that come into being when first charged.

    The caller relies on this, among any number of tasks, threads and, where the ledger is shared, processes:

    - a hold is reserved whole or not at all;
    - nothing is granted that would let what is spent and reserved in an account pass the limit;
    - what is reserved is settled, or lapses: it does not outlive its time once somebody needs the room.
    """

    @abstractmethod
    async def reserve(self, hold: Hold) -> str | None:
        """Reserve all charges of a hold, or none: then return the account without room. Raises `StoreError`."""

    @abstractmethod
    async def settle(self, hold: Hold, spent: Sequence[int]) -> tuple[Balance, ...]:
        """End a granted hold, once: charge what was spent, give the rest back, and return what each account holds.

        `spent` has an amount for each charge; more than was reserved is charged too. Of a hold that lapsed
        meanwhile only what the lapse left out is charged. An account that was dropped stays so. Raises `StoreError`.
        """

    @abstractmethod
    async def balances(self, accounts: Sequence[str], at: float) -> tuple[Balance, ...]:
        """What each account holds at that time, lapsed holds left out. Raises `StoreError`."""

    @abstractmethod
    async def drop(self, accounts: Sequence[str]) -> None:
        """Forget these accounts and what is reserved in them: nobody will ask for them again."""

    @abstractmethod
    async def forget(self, before: float) -> int:
        """Forget accounts that were last reserved in before that time, with nothing reserved; return how many."""

    async def close(self) -> None:
        """Release what the ledger holds; called once, by the app that opened it."""


class _Account:
    __slots__ = ("at", "reserved", "spent")

    def __init__(self) -> None:
        self.spent = self.reserved = 0
        self.at = 0.0

    def has_room(self, charge: Charge) -> bool:
        return charge.limit is None or self.spent + self.reserved + charge.amount <= charge.limit


class InMemoryLedger(Ledger):
    """Keeps accounts in this process: for one process, and budgets that may begin anew with it."""

    def __init__(self) -> None:
        self._accounts: dict[str, _Account] = {}
        self._holds: dict[str, tuple[Hold, list[_Account]]] = {}
        self._lapsing: list[tuple[float, str]] = []
        self._lock = threading.Lock()

    async def reserve(self, hold: Hold) -> str | None:
        with self._lock:
            self._lapse(hold.at)
            for charge in hold.charges:
                if not self._accounts.get(charge.account, _EMPTY).has_room(charge):
                    return charge.account
            accounts = [self._accounts.setdefault(charge.account, _Account()) for charge in hold.charges]
            for account, charge in zip(accounts, hold.charges, strict=True):
                account.reserved += charge.amount
                account.at = hold.at
            self._holds[hold.id] = hold, accounts
            heapq.heappush(self._lapsing, (hold.until, hold.id))
        return None

    async def settle(self, hold: Hold, spent: Sequence[int]) -> tuple[Balance, ...]:
        with self._lock:
            if hold.id in self._holds:
                self._end(hold.id, spent)
            else:
                for charge, amount in zip(hold.charges, spent, strict=True):
                    if charge.account in self._accounts:
                        self._accounts[charge.account].spent += left_to_charge(charge, amount)
            return self._balances(charge.account for charge in hold.charges)

    async def balances(self, accounts: Sequence[str], at: float) -> tuple[Balance, ...]:
        with self._lock:
            self._lapse(at)
            return self._balances(accounts)

    async def drop(self, accounts: Sequence[str]) -> None:
        with self._lock:
            for name in accounts:
                self._accounts.pop(name, None)

    async def forget(self, before: float) -> int:
        with self._lock:
            old = [name for name, account in self._accounts.items() if account.at < before and not account.reserved]
            for name in old:
                del self._accounts[name]
        return len(old)

    def _balances(self, accounts: Iterable[str]) -> tuple[Balance, ...]:
        found = (self._accounts.get(name, _EMPTY) for name in accounts)
        return tuple([Balance(account.spent, account.reserved) for account in found])

    def _end(self, hold_id: str, spent: Sequence[int]) -> None:
        """End a hold in the accounts it was reserved in, also if they were dropped and there are others now."""
        hold, accounts = self._holds.pop(hold_id)
        for account, charge, amount in zip(accounts, hold.charges, spent, strict=True):
            account.reserved -= charge.amount
            account.spent += amount

    def _lapse(self, now: float) -> None:
        while self._lapsing and (self._lapsing[0][0] <= now or self._lapsing[0][1] not in self._holds):
            _, hold_id = heapq.heappop(self._lapsing)
            if hold_id in self._holds:
                hold, _ = self._holds[hold_id]
                self._end(hold_id, [charge.amount if charge.sure else 0 for charge in hold.charges])


def left_to_charge(charge: Charge, amount: int) -> int:
    """What is still to be charged when a hold is settled that lapsed."""
    return max(0, amount - charge.amount) if charge.sure else amount


_EMPTY = _Account()
