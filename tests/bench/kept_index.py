"""What it takes to begin to search: an index opened from its folder, beside one that is built.

Chunks with made-up words, vectors, metadata and readers are written to SQLite once; then the index is built, opened,
brought up to date and asked, with a condition on metadata and without. Each line of output is one JSON object.

    python tests/bench/kept_index.py --rows 100000
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import numpy as np

from authorised_search import mixture
from ringwall.data import Chunk, Condition, Query
from ringwall.principal import ACL
from ringwall_index import Indexed
from ringwall_sql import SqlDocuments

BATCH = 2000
K = 10
ASKED = 30


def chunks(rows: int, classes: int, dimensions: int) -> Iterator[list[Chunk]]:
    """Passages of some 60 words, as often as words are in a language, with readers from one of the classes."""
    random = np.random.default_rng(0)
    vectors, _, _ = mixture(rows, dimensions, 1, 0)
    for start in range(0, rows, BATCH):
        numbers = range(start, min(start + BATCH, rows))
        drawn = np.minimum(random.zipf(1.2, (len(numbers), 60)), 200_000)
        readers = random.integers(0, classes, len(numbers))
        yield [
            Chunk(
                f"doc{n // 10}#{n % 10}",
                f"doc{n // 10}",
                " ".join(f"w{word}" for word in words),
                ACL.of(f"role:r{of}"),
                end=60,
                vector=tuple(vectors[n].tolist()),
                metadata={"source": f"doc{n // 10}", "page": n % 10, "year": 2000 + n % 25},
            )
            for n, words, of in zip(numbers, drawn.tolist(), readers.tolist(), strict=True)
        ]


async def timed(name: str, work: Callable[[], Awaitable[object]]) -> float:
    """Do it, and say how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    taken = time.perf_counter() - wall
    print(json.dumps({"what": name, "s": round(taken, 3), "cpu_s": round(time.process_time() - cpu, 3)}), flush=True)
    return taken


async def asked(store: Indexed, name: str, where: tuple[Condition, ...], readable: frozenset[str]) -> None:
    """Ask some questions, and say the median time."""
    random, times = np.random.default_rng(9), []
    dimension = len([c async for batch in _first(store) for c in batch][0].vector or ())
    for _ in range(ASKED):
        words = " ".join(f"w{word}" for word in np.minimum(random.zipf(1.2, 5), 200_000))
        query = Query(words, tuple(random.standard_normal(dimension).tolist()), where)
        cpu = time.process_time()
        await store.search(query, readable, K)
        times.append(time.process_time() - cpu)
    print(json.dumps({"what": name, "cpu_ms_p50": round(1000 * float(np.median(times)), 2)}), flush=True)


async def _first(store: Indexed) -> Iterator[list[Chunk]]:  # type: ignore[misc]
    async for batch in store.scan():
        yield list(batch[:1])
        return


async def run(options: argparse.Namespace, folder: Path) -> None:
    """Fill, build, open, follow, ask."""
    classes = options.classes
    database, kept = folder / "documents.db", folder / "index"
    readable = frozenset(f"role:r{n}" for n in range(0, classes, 2))
    filling = SqlDocuments(database)
    for batch in chunks(options.rows, classes, options.dimensions):
        await filling.upsert(batch)
    built = Indexed(SqlDocuments(database), kept)
    building = await timed("build, and keep", built.build)
    await built.close()
    size = sum(path.stat().st_size for path in kept.iterdir())
    store = Indexed(SqlDocuments(database), kept)
    opening = await timed("open", store.build)
    await timed("first search", lambda: store.search(Query("w7", where=()), readable, K))
    print(json.dumps({"rows": options.rows, "mb_on_disk": round(size / 1e6), "built_of_opened": round(building / opening)}))
    await asked(store, "search", (), readable)
    for name, where in (
        ("== one document", (Condition("source", "==", "doc77"),)),
        ("one year of 25", (Condition("year", "==", 2024),)),
        ("half of the years", (Condition("year", "<", 2012),)),
    ):
        await asked(store, f"search, {name}", where, readable)
    await filling.set_readers(["doc5"], ACL.of("role:r0"))
    await timed("search after one document got other readers", lambda: store.search(Query("w7"), readable, K))
    await timed("compact the index", store.compact)
    await store.close()
    await filling.close()
    print(json.dumps({"mb_peak_of_process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)}))


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
