"""What every ledger must pass. Shipped to plugin authors; needs pytest with pytest-asyncio, and hypothesis.

class TestMyLedger(LedgerContract):
    @pytest.fixture
    def ledger(self) -> Ledger: ...            # an empty one
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringwall.deployment.ledger import Balance, Charge, Hold, Ledger, left_to_charge

_IDS: Final = count()
_LEASE: Final = 100.0

_MANY: Final = 200


def hold(*charges: Charge, at: float = 0.0, lease: float = _LEASE) -> Hold:
    """A hold with an id of its own."""
    return Hold(f"hold {next(_IDS)}", charges, at, at + lease)


@dataclass
class _Model:
    """What a ledger must hold after the same calls: the simplest that could be right."""

    spent: dict[str, int] = field(default_factory=dict)
    open: list[Hold] = field(default_factory=list)

    def reserved(self, account: str) -> int:
        return sum(c.amount for held in self.open for c in held.charges if c.account == account)

    def lapse(self, now: float) -> None:
        for held in [held for held in self.open if held.until <= now]:
            self.settle(held, [charge.amount if charge.sure else 0 for charge in held.charges])

    def has_room(self, held: Hold) -> bool:
        return all(
            c.limit is None or self.spent.get(c.account, 0) + self.reserved(c.account) + c.amount <= c.limit
            for c in held.charges
        )

    def settle(self, held: Hold, amounts: Sequence[int]) -> None:
        lapsed = held not in self.open
        if not lapsed:
            self.open.remove(held)
        for charge, amount in zip(held.charges, amounts, strict=True):
            more = left_to_charge(charge, amount) if lapsed else amount
            self.spent[charge.account] = self.spent.get(charge.account, 0) + more


_LIMITS: Final = {"a": 10, "b": 7, "c": None}
_AMOUNTS: Final = st.dictionaries(
    st.sampled_from(sorted(_LIMITS)), st.tuples(st.integers(0, 6), st.booleans()), min_size=1
)
_RESERVE: Final = st.tuples(st.just("reserve"), _AMOUNTS, st.integers(1, 5))
_SETTLE: Final = st.tuples(st.just("settle"), st.integers(0, 9), st.integers(0, 6))
_WAIT: Final = st.tuples(st.just("wait"), st.integers(1, 3), st.just(0))
_WORK: Final = st.lists(st.one_of(_RESERVE, _SETTLE, _WAIT), max_size=40)


@pytest.mark.asyncio
class LedgerContract:
    """Bring a fixture `ledger`: an empty one."""

    async def test_what_fits_is_reserved_and_what_does_not_is_refused(self, ledger: Ledger) -> None:
        assert await ledger.reserve(hold(Charge("a", 7, 10))) is None
        assert await ledger.reserve(hold(Charge("a", 4, 10))) == "a"
        assert await ledger.reserve(hold(Charge("a", 3, 10))) is None
        assert await ledger.balances(["a", "never used"], 0.0) == (Balance(0, 10), Balance(0, 0))

    async def test_more_than_the_limit_is_refused_in_an_account_that_was_never_used(self, ledger: Ledger) -> None:
        assert await ledger.reserve(hold(Charge("a", 11, 10))) == "a"
        assert await ledger.balances(["a"], 0.0) == (Balance(0, 0),)

    async def test_what_was_spent_is_charged_and_the_rest_given_back(self, ledger: Ledger) -> None:
        held = hold(Charge("a", 7, 10), Charge("b", 2, None))
        await ledger.reserve(held)
        assert await ledger.settle(held, [3, 0]) == (Balance(3, 0), Balance(0, 0))
        assert await ledger.reserve(hold(Charge("a", 7, 10))) is None

    async def test_more_than_was_reserved_is_charged_too(self, ledger: Ledger) -> None:
        held = hold(Charge("a", 7, 10))
        await ledger.reserve(held)
        assert await ledger.settle(held, [12]) == (Balance(12, 0),)
        assert await ledger.reserve(hold(Charge("a", 0, 10))) == "a"

    async def test_charges_are_reserved_together_or_not_at_all(self, ledger: Ledger) -> None:
        await ledger.reserve(hold(Charge("b", 5, 5)))
        for charges in [(Charge("a", 1, 9), Charge("b", 1, 5)), (Charge("b", 1, 5), Charge("a", 1, 9))]:
            assert await ledger.reserve(hold(*charges)) == "b"
        assert await ledger.balances(["a", "b"], 0.0) == (Balance(0, 0), Balance(0, 5))

    async def test_without_a_limit_it_is_only_counted(self, ledger: Ledger) -> None:
        held = hold(Charge("a", 10**15, None))
        assert await ledger.reserve(held) is None
        assert await ledger.settle(held, [10**15]) == (Balance(10**15, 0),)

    async def test_what_nobody_settled_gives_way_once_it_lapsed(self, ledger: Ledger) -> None:
        await ledger.reserve(hold(Charge("a", 10, 10, sure=False), lease=50))
        assert await ledger.reserve(hold(Charge("a", 1, 10), at=49)) == "a"
        assert await ledger.reserve(hold(Charge("a", 1, 10), at=50)) is None
        assert await ledger.balances(["a"], 50) == (Balance(0, 1),)

    async def test_what_is_sure_counts_as_spent_once_it_lapsed(self, ledger: Ledger) -> None:
        await ledger.reserve(hold(Charge("a", 10, 10), lease=50))
        assert await ledger.balances(["a"], 50) == (Balance(10, 0),)
        assert await ledger.reserve(hold(Charge("a", 1, 10), at=50)) == "a"

    @pytest.mark.parametrize(("sure", "spent", "charged"), [(True, 3, 10), (True, 12, 12), (False, 3, 3)])
    async def test_of_a_hold_that_lapsed_only_the_rest_is_charged(
        self, ledger: Ledger, *, sure: bool, spent: int, charged: int
    ) -> None:
        held = hold(Charge("a", 10, 20, sure), lease=50)
        await ledger.reserve(held)
        await ledger.balances(["a"], 60)
        assert await ledger.settle(held, [spent]) == (Balance(charged, 0),)

    async def test_a_dropped_account_is_forgotten_with_its_holds_and_stays_so(self, ledger: Ledger) -> None:
        held = hold(Charge("a", 10, 10), Charge("b", 1, 10))
        await ledger.reserve(held)
        await ledger.drop(["a", "never used"])
        assert await ledger.settle(held, [9, 1]) == (Balance(0, 0), Balance(1, 0))
        assert await ledger.reserve(hold(Charge("a", 10, 10))) is None

    async def test_a_hold_of_a_dropped_account_takes_nothing_from_a_new_one_of_its_name(self, ledger: Ledger) -> None:
        old, new = hold(Charge("a", 6, 10)), hold(Charge("a", 5, 10))
        await ledger.reserve(old)
        await ledger.drop(["a"])
        await ledger.reserve(new)
        assert (await ledger.balances(["a"], _LEASE + 1))[0].reserved >= 0

    async def test_old_accounts_are_forgotten_unless_something_is_reserved_in_them(self, ledger: Ledger) -> None:
        old, used = hold(Charge("old", 1, 10), at=10), hold(Charge("used", 1, 10), at=10, lease=1000)
        await ledger.reserve(old)
        await ledger.settle(old, [1])
        await ledger.reserve(used)
        new = hold(Charge("new", 1, 10), at=20)
        await ledger.reserve(new)
        await ledger.settle(new, [1])
        assert await ledger.forget(before=20) == 1
        assert await ledger.balances(["old", "used", "new"], 20) == (Balance(0, 0), Balance(0, 1), Balance(1, 0))

    @pytest.mark.parametrize("name", ["", "päß ::\n'\"", "日本", "\x00 and \ud800"], ids=ascii)
    async def test_an_account_may_have_any_name(self, ledger: Ledger, name: str) -> None:
        held = hold(Charge(name, 2, 2))
        assert await ledger.reserve(held) is None
        assert await ledger.reserve(hold(Charge(name, 1, 2))) == name
        assert await ledger.settle(held, [1]) == (Balance(1, 0),)

    async def test_two_hundred_at_once_never_pass_a_limit(self, ledger: Ledger) -> None:
        """Each of them reserves more than it will spend, in an order of its own, again and again."""
        limits = {"run": 10**9, "ana": 3000, "acme": 2500}
        highest: list[int] = []

        async def spend(seed: int) -> int:
            chance, spent = random.Random(seed), 0
            for _ in range(3):
                amount = chance.randint(1, 30)
                names = chance.sample(sorted(limits), len(limits))
                held = hold(*(Charge(name, amount, limits[name]) for name in names))
                if await ledger.reserve(held) is None:
                    await asyncio.sleep(0)
                    used = chance.randint(0, amount)
                    balances = await ledger.settle(held, [used] * len(names))
                    highest.extend(sum(b) for n, b in zip(names, balances, strict=True) if n == "acme")
                    spent += used
            return spent

        spent = sum(await asyncio.gather(*(spend(seed) for seed in range(_MANY))))
        assert spent <= limits["acme"]
        assert max(highest) <= limits["acme"]
        assert await ledger.balances(sorted(limits), 0.0) == (Balance(spent, 0),) * len(limits)

    @settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
    @given(work=_WORK)
    async def test_it_holds_what_the_simplest_ledger_would_hold(
        self, ledger: Ledger, work: list[tuple[str, dict[str, tuple[int, bool]] | int, int]]
    ) -> None:
        """So what is reserved is settled or lapses, and never more is granted than there is room for."""
        names = {name: f"{name} {next(_IDS)}" for name in _LIMITS}
        model, now, granted = _Model(), 0.0, list[Hold]()
        for what, value, number in work:
            if what == "wait" and isinstance(value, int):
                now += value
            elif what == "settle" and isinstance(value, int) and granted:
                held = granted.pop(value % len(granted))
                await ledger.settle(held, [number] * len(held.charges))
                model.settle(held, [number] * len(held.charges))
            elif isinstance(value, dict):
                charges = [Charge(names[n], amount, _LIMITS[n], sure) for n, (amount, sure) in value.items()]
                held = hold(*charges, at=now, lease=number)
                await ledger.balances(list(names.values()), now)
                model.lapse(now)
                assert (await ledger.reserve(held) is None) is model.has_room(held)
                if model.has_room(held):
                    model.open.append(held)
                    granted.append(held)
            accounts = list(names.values())
            model.lapse(now)
            found = await ledger.balances(accounts, now)
            assert found == tuple(Balance(model.spent.get(a, 0), model.reserved(a)) for a in accounts)


__all__ = ["LedgerContract", "hold"]
