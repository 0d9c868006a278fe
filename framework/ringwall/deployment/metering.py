"""What one run takes, reserved before and settled after, and the wall time of what it does bounded."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from typing import Final, TypeVar

from ringwall.deployment.budgets import SCALE, Amounts, Budget, Budgets, Reservation, Spender
from ringwall.deployment.ledger import Hold
from ringwall.deployment.runlog import RunLog
from ringwall.errors import BudgetReached, RateReached, RingwallError

T = TypeVar("T")

_LOGGER: Final = logging.getLogger("ringwall.budgets")

_SLICE: Final = 1.0
"""Seconds of wall time that are reserved at once, or a twentieth of the smallest limit."""

_SHORTEST: Final = 0.001


class Meter:
    """Reserves and settles what one run takes, and notes in its journal what was reached or passed."""

    def __init__(self, budgets: Budgets, log: RunLog) -> None:
        self._budgets, self._log = budgets, log
        self._told: set[str] = set()
        times = [budget.limit for budget in budgets.budgets if budget.unit == "seconds"]
        self.counts_seconds = bool(times)
        self.slice = max(_SHORTEST, min(_SLICE, *(limit / 20 for limit in times))) if times else _SLICE

    def spender(self, provider: str = "") -> Spender:
        """On whose account this run does something."""
        return Spender(self._log.run, self._log.principal, provider)

    async def reserve(self, spender: Spender, amounts: Amounts, *, sure: bool) -> Reservation:
        """Reserve the amounts in every budget that counts them. Raises `BudgetReached`, `RateReached`."""
        await self._take(spender, amounts)
        return await self.reserve_more(spender, amounts, sure=sure)

    async def reserve_more(self, spender: Spender, amounts: Amounts, *, sure: bool) -> Reservation:
        """As `reserve`, for what a rate has let pass."""
        asked = self._budgets.reservation(spender, amounts, sure=sure)
        if asked.budgets and (refused := await self._reserve(asked.hold)) is not None:
            places = [charge.account for charge in asked.hold.charges]
            raise self._reached(asked, places.index(refused))
        return asked

    async def settle(self, reserved: Reservation, amounts: Amounts) -> None:
        """Charge what was used, and of units that nobody knows the use of what was reserved."""
        if not reserved.budgets:
            return
        pairs = zip(reserved.budgets, reserved.hold.charges, strict=True)
        spent = [amounts.get(budget.unit, charge.amount) for budget, charge in pairs]
        balances = await self._budgets.ledger.settle(reserved.hold, spent)
        for budget, balance in zip(reserved.budgets, balances, strict=True):
            if balance.spent > budget.scaled:
                self._tell(budget, balance.spent)

    async def _reserve(self, hold: Hold) -> str | None:
        reserving = asyncio.ensure_future(self._budgets.ledger.reserve(hold))
        try:
            return await asyncio.shield(reserving)
        except asyncio.CancelledError:
            if await reserving is None:  # nobody will know of this hold: give it back
                await self._budgets.ledger.settle(hold, [0] * len(hold.charges))
            raise

    async def _take(self, spender: Spender, amounts: Amounts) -> None:
        taken = self._budgets.taken(spender, amounts)
        if not taken or self._budgets.limiter is None:
            return
        wait = await self._budgets.limiter.take([each for _, each in taken])
        if wait > 0:
            names = ", ".join(rate.name for rate, _ in taken)
            self._log.note("budget.reached", {"budget": names, "retry_after": round(wait, 3)})
            raise RateReached(names, wait)

    def _reached(self, asked: Reservation, place: int) -> BudgetReached:
        budget = asked.budgets[place]
        amount = asked.hold.charges[place].amount / SCALE[budget.unit]
        self._log.note("budget.reached", {"budget": budget.name, "limit": budget.limit, "asked": amount})
        return BudgetReached(budget.name, limit=budget.limit, asked=amount)

    def _tell(self, budget: Budget, spent: int) -> None:
        """Tell once in a run that more was spent than a budget has."""
        if budget.name in self._told:
            return
        self._told.add(budget.name)
        amount = spent / SCALE[budget.unit]
        self._log.note("budget.passed", {"budget": budget.name, "limit": budget.limit})
        _LOGGER.warning("budget %r of %s is passed: %g, in run %s", budget.name, budget.limit, amount, self._log.run)


class Work:
    """A model's or a tool's work under way: its reservation, and its wall time, which is reserved slice by slice."""

    def __init__(self, meter: Meter, spender: Spender, reserved: Reservation) -> None:
        self._meter, self._spender, self._reserved = meter, spender, [reserved]
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self._until = self._began + meter.slice
        self._clock: asyncio.Timeout | None = None
        self._refused: RingwallError | None = None
        self._extending = asyncio.create_task(self._extend()) if meter.counts_seconds else None

    @classmethod
    async def begin(cls, meter: Meter, spender: Spender, amounts: Amounts, *, sure: bool) -> Work:
        """Reserve what the work can take at most. Raises `BudgetReached`, `RateReached`, `StoreError`."""
        if meter.counts_seconds:
            amounts = {**amounts, "seconds": _whole(meter.slice)}
        return cls(meter, spender, await meter.reserve(spender, amounts, sure=sure))

    @contextlib.asynccontextmanager
    async def timed(self) -> AsyncIterator[None]:
        """Stop what happens inside when no more wall time can be had. Raises `BudgetReached` then."""
        if self._extending is None:
            yield
            return
        try:
            async with asyncio.timeout_at(None if self._refused is None else self._until) as self._clock:
                yield
        except TimeoutError:
            if self._refused is None or self._clock is None or not self._clock.expired():
                raise
            refused = self._refused
        else:
            return
        finally:
            self._clock = None
        raise refused  # out here, where it does not carry along what was going on

    async def end(self, amounts: Amounts) -> None:
        """Settle with what was used, also while being cancelled; a unit that is left out is charged as reserved."""
        await to_the_end(self._end(amounts, _whole(self._now() - self._began)))

    async def _end(self, amounts: Amounts, took: int) -> None:
        if self._extending is not None:
            self._extending.cancel()
            await asyncio.wait({self._extending})
        for number, reserved in enumerate(self._reserved, 1):
            share = took if number == len(self._reserved) else min(_whole(self._meter.slice), took)
            took -= share
            await self._meter.settle(reserved, {**amounts, "seconds": share})

    async def _extend(self) -> None:
        """Reserve the next slice while half of the present one is left, until there is none."""
        slice_ = self._meter.slice
        while self._refused is None:
            await asyncio.sleep(self._until - slice_ / 2 - self._now())
            try:
                amounts = {"seconds": _whole(slice_)}
                self._reserved.append(await self._meter.reserve_more(self._spender, amounts, sure=False))
                self._until += slice_
            except RingwallError as error:
                self._refused = error
        if self._clock is not None and not self._clock.expired():
            self._clock.reschedule(self._until)


async def to_the_end(work: Awaitable[T]) -> T:
    """Do `work` to its end, also when the task that waits for it is cancelled meanwhile."""
    doing = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        await asyncio.wait({doing})
        raise


def _whole(seconds: float) -> int:
    return round(seconds * SCALE["seconds"])
