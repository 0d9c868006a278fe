"""What it takes to begin to search: an index opened from its folder, beside one that is built.

The store makes up its chunks when they are asked for, words, vectors, metadata and readers, so that it is the index
that is measured. Each line of output is one JSON object.

    python tests/bench/kept_index.py --rows 100000
    python tests/bench/kept_index.py --rows 1000000 --classes 10000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from authorised_search import mixture
from ringwall.data import Chunk, Condition, Match, Query, Section, Sections, StoreOfRecord
from ringwall.principal import ACL, Grants
from ringwall_index import Indexed

SECTION = 1000
WORDS = 60
K = 10
ASKED = 30


class MadeUp(StoreOfRecord):
    """Sections of up to a thousand passages, with words as often as they are in a language."""

    def __init__(self, rows: int, classes: int, dimensions: int) -> None:
        self.vectors = mixture(rows, dimensions, 1, 0)[0]
        self.words = np.minimum(np.random.default_rng(0).zipf(1.2, (rows, WORDS)), 200_000).astype(np.int32)
        self.size = min(SECTION, max(1, rows // classes))
        self.classes = classes
        self.changes: dict[int, int] = {}

    def chunk(self, row: int) -> Chunk:
        return Chunk(
            f"doc{row // 10}#{row}",
            f"doc{row // 10}",
            " ".join(f"w{word}" for word in self.words[row].tolist()),
            self.readers(row // self.size),
            end=WORDS,
            vector=tuple(self.vectors[row].tolist()),
            metadata={"source": f"doc{row // 10}", "page": row % 10, "year": 2000 + row % 25},
        )

    def readers(self, section: int) -> ACL:
        return ACL.of(f"role:r{section % self.classes}")

    async def sections(self) -> Sections:
        names = range(-(-len(self.words) // self.size))

        async def read(names: Collection[int], known: Container[int]) -> AsyncIterator[Section]:
            for name in names:
                rows = range(name * self.size, min((name + 1) * self.size, len(self.words)))
                yield Section(
                    name, self.readers(name), rows, {row: self.chunk(row) for row in rows if row not in known}
                )

        return Sections({n: str(self.changes.get(n, 0)) for n in names}, dict.fromkeys(names, self.size), read)

    async def revision(self) -> str:
        return str(self.changes)

    async def get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        found = (self.chunk(int(id.partition("#")[2])) for id in ids)
        return [chunk for chunk in found if chunk.readers.admits(readable)]

    async def scan(self) -> AsyncIterator[Sequence[Chunk]]:
        for row in range(len(self.words)):
            yield [self.chunk(row)]

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        raise NotImplementedError("the index did not answer")

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        raise NotImplementedError

    async def delete(self, documents: Sequence[str]) -> None:
        raise NotImplementedError

    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        raise NotImplementedError


async def timed(name: str, work: Callable[[], Awaitable[object]]) -> float:
    """Do it, and say how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    taken = time.perf_counter() - wall
    say({"what": name, "s": round(taken, 3), "cpu_s": round(time.process_time() - cpu, 3)})
    return taken


async def asked(store: Indexed, name: str, where: tuple[Condition, ...], readable: Grants, dimensions: int) -> None:
    """Ask some questions, and say the median time."""
    random, times = np.random.default_rng(9), []
    for _ in range(ASKED):
        words = " ".join(f"w{word}" for word in random.integers(3, 3000, 5))
        query = Query(words, tuple(random.standard_normal(dimensions).tolist()), where)
        cpu = time.process_time()
        await store.search(query, readable, K)
        times.append(time.process_time() - cpu)
    say({"what": name, "cpu_ms_p50": round(1000 * float(np.median(times)), 2)})


def say(line: dict[str, Any]) -> None:
    """One line of output."""
    print(json.dumps(line), flush=True)


async def run(options: argparse.Namespace, folder: Path) -> None:
    """Build, open, ask, follow."""
    record = MadeUp(options.rows, options.classes, options.dimensions)
    readable = frozenset(f"role:r{n}" for n in range(0, options.classes, 2))
    built = Indexed(record, folder)
    building = await timed("build, and keep", built.build)
    await built.close()
    size = sum(entry.stat().st_size for entry in os.scandir(folder))
    store = Indexed(record, folder)
    opening = await timed("open", store.build)
    await timed("first search", lambda: store.search(Query("w7"), readable, K))
    say({"rows": options.rows, "mb_on_disk": round(size / 1e6), "build_of_open": round(building / opening)})
    for name, where in (
        ("all", ()),
        ("one document", (Condition("source", "==", "doc77"),)),
        ("one year of 25", (Condition("year", "==", 2024),)),
        ("half of the years", (Condition("year", "<", 2012),)),
    ):
        await asked(store, f"search: {name}", where, readable, options.dimensions)
    record.changes[3] = 1
    await timed("search after a section changed", lambda: store.search(Query("w7"), readable, K))
    await store.close()
    say({"mb_peak_of_process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)})


def main() -> int:
    """Run it in a folder that is removed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--dimensions", type=int, default=256)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(parser.parse_args(), Path(folder)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
