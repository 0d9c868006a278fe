"""A process that spends what it may of a budget that others spend, too: `sharing_a_ledger.py URL NAME`.

Says when it is ready, begins when it is told to, and then says what it spent.
"""

from __future__ import annotations

import asyncio
import random
import sys

from ringwall.deployment.ledger import Charge
from ringwall.deployment.ledger_contract import hold
from ringwall_sql import SqlLedger

LIMITS = {"ana": 500, "acme": 400, "b": 10**9}


async def spend(ledger: SqlLedger, name: str) -> int:
    """Spend on two accounts at once, in any order, until there is no more room."""
    chance, spent = random.Random(name), 0
    while True:
        amount = chance.randint(1, 9)
        accounts = chance.sample(sorted(LIMITS), 3)
        held = hold(*(Charge(account, amount, LIMITS[account]) for account in accounts))
        held = type(held)(f"{name} {held.id}", held.charges, held.at, held.until)
        if await ledger.reserve(held) is not None:
            return spent
        used = chance.randint(1, amount)
        await ledger.settle(held, [used] * 3)
        spent += used


async def main() -> None:
    ledger = SqlLedger(sys.argv[1], busy_timeout=60)
    print("ready", flush=True)  # noqa: T201
    sys.stdin.readline()
    names = (f"{sys.argv[2]}.{number}" for number in range(8))
    print(sum(await asyncio.gather(*(spend(ledger, name) for name in names))))  # noqa: T201
    await ledger.close()


if __name__ == "__main__":
    asyncio.run(main())
