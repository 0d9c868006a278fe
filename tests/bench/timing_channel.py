"""Do hidden documents show in the time a search takes? `python tests/bench/timing_channel.py`, a JSON line a store.

Three stores hold the same 2,000 readable passages; the third holds 10,000 hidden near-duplicates of the best answer
besides. The first two, equal, tell what noise is. The same questions go to all three in turn, in changing order.

The test: of each pair of times for one question (store 2 or 3 against store 1) the logarithm of their ratio is taken;
its median is compared with zero by a sign-flip permutation test (10,000 flips). A store passes when the third differs
from the first with p > 0.01, or by no more than 2 % or than twice what the equal ones differ by.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from ringwall import plugins
from ringwall.data import Chunk, DocumentStore, MemoryStore, Query
from ringwall.principal import ACL, PUBLIC

READABLE: Final = 2_000
HIDDEN: Final = 10_000
DIMENSIONS: Final = 64
READER: Final = frozenset((PUBLIC, "user:ana"))
_WORDS: Final = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "rt", "st")]

Opens = Callable[[Path], DocumentStore]


def _sql(folder: Path) -> DocumentStore:
    store: DocumentStore = plugins.find("data", "sql")(folder / "documents.db")
    return store


def _indexed(folder: Path) -> DocumentStore:
    store: DocumentStore = plugins.find("data", "index")(MemoryStore())
    return store


def _chroma(folder: Path) -> DocumentStore:
    store: DocumentStore = plugins.find("data", "chroma")(folder / "chroma")
    return store


STORES: Final[dict[str, Opens]] = {"memory": lambda _: MemoryStore(), "sql": _sql, "index": _indexed, "chroma": _chroma}


def passages(count: int, numbers: random.Random, readers: ACL, like: Chunk | None = None) -> list[Chunk]:
    """So many passages, made up, or near-duplicates of one."""
    made = []
    for n in range(count):
        text = " ".join(numbers.choices(_WORDS, k=40)) if like is None else f"{like.text} {numbers.choice(_WORDS)}"
        around = (0.0,) * DIMENSIONS if like is None or like.vector is None else like.vector
        vector = tuple(x + numbers.gauss(0, 1 if like is None else 0.01) for x in around)
        kind = "open" if like is None else "hidden"
        made.append(Chunk(f"{kind}-{n}#0", f"{kind}-{n}", text, readers, 0, len(text), vector))
    return made


async def filled(opens: Opens, folder: Path, *, hidden: bool) -> DocumentStore:
    """A store with the readable passages, and perhaps the hidden ones among them."""
    folder.mkdir()  # noqa: ASYNC240 (nothing else runs)
    store = opens(folder)
    readable = passages(READABLE, random.Random(1), ACL.of(PUBLIC))
    near = passages(HIDDEN, random.Random(2), ACL.of("role:board"), readable[7]) if hidden else []
    for first in range(0, max(len(readable), len(near)), 1000):
        await store.upsert([*near[first : first + 1000], *readable[first : first + 1000]])
    return store


async def timed(store: DocumentStore, query: Query) -> float:
    """Seconds of CPU that a search takes."""
    began = time.process_time_ns()
    await store.search(query, READER, 10)
    return time.process_time_ns() - began


async def measure(opens: Opens, folder: Path, rounds: int) -> dict[str, float]:
    """How the times of the equal store and of the one with hidden passages differ from the first's."""
    stores = [await filled(opens, folder / str(n), hidden=n == 2) for n in range(3)]
    numbers, best = random.Random(3), passages(8, random.Random(1), ACL.of(PUBLIC))[7]
    ratios: list[list[float]] = [[], []]
    for number in range(rounds):
        words = best.text.split() if number % 2 else numbers.choices(_WORDS, k=8)
        query = Query(" ".join(numbers.sample(words, 8)), tuple(x + numbers.gauss(0, 0.1) for x in best.vector or ()))
        times: dict[int, float] = {}
        for place in numbers.sample(range(3), 3):
            await timed(stores[place], query)
            times[place] = await timed(stores[place], query)
        if number >= 20:
            for other in 1, 2:
                ratios[other - 1].append(math.log(times[other] / times[0]))
    for store in stores:
        await store.close()
    equal, hidden = (statistics.median(r) for r in ratios)
    return {"noise": equal, "difference": hidden, "p": permuted(ratios[1])}


def permuted(values: list[float], flips: int = 10_000) -> float:
    """How often a median as far from zero comes about when each sign is a coin's."""
    sample, observed = np.array(values), abs(statistics.median(values))
    coins = np.random.default_rng(4).choice([-1.0, 1.0], (flips, len(sample)))
    return float((np.abs(np.median(coins * sample, axis=1)) >= observed).mean())


def main() -> None:
    """Measure each store; exits with 1 where hidden passages show."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=["memory", "sql", "index"])
    parser.add_argument("--rounds", type=int, default=220)
    arguments = parser.parse_args()
    short = False
    for name in arguments.stores:
        with tempfile.TemporaryDirectory() as folder:
            figures = asyncio.run(measure(STORES[name], Path(folder), arguments.rounds))
        shows = figures["p"] <= 0.01 and abs(figures["difference"]) > max(0.02, 2 * abs(figures["noise"]))
        short |= shows
        rounded = {key: round(value, 4) for key, value in figures.items()}
        print(json.dumps({"bench": "timing_channel", "store": name, **rounded, "shows": shows}), flush=True)
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
