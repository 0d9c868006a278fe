"""What ingestion costs: `python tests/bench/ingest.py`, a JSON line for each size.

Documents and MB a second, from files on disk to a library that can be searched, against the floor: the embedder alone
on the very same passages, in the same run, as long before as after. And the peak memory of each size, measured in a
process of its own: flat means that it does not grow with the number of documents.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ringwall import plugins
from ringwall.data import Embeddings, Ingestor, Manifest, split
from ringwall.principal import ACL, PUBLIC

FEW: Final = 2_000
"""Documents of which the floor is measured."""

_WORDS: Final = [f"{a}{b}{c}" for a in "bcdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lling", "mer")]


def text(number: int) -> str:
    """A document of one to some twenty paragraphs, always the same."""
    numbers = random.Random(number)
    paragraphs = (" ".join(numbers.choices(_WORDS, k=numbers.randint(40, 120))) for _ in range(numbers.randint(1, 6)))
    return f"# Document {number}\n\n" + ".\n\n".join(paragraphs)


def write(count: int, path: Path) -> None:
    """Write so many documents to a file, a line of JSON each."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps([f"{number}.md", text(number)]) + "\n")


def documents(path: Path) -> Iterator[tuple[str, str]]:
    """The documents of a file, read as they are asked for."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            name, body = json.loads(line)
            yield name, body


async def ingest(folder: Path) -> dict[str, float]:
    """Ingest the documents in `folder` into a new library there."""
    embeddings: Embeddings = plugins.find("embeddings", "wordllama")()
    store = plugins.find("data", "sql")(folder / "documents.db")
    manifest = Manifest(folder / "manifest.db")
    began, cpu, passages = time.perf_counter(), time.process_time(), 0
    async for outcome in Ingestor(store, embeddings, manifest=manifest).run(
        documents(folder / "documents.jsonl"), ACL.of(PUBLIC)
    ):
        passages += outcome.passages  # type: ignore[union-attr]
    seconds = time.perf_counter() - began
    spent = time.process_time() - cpu
    manifest.close()
    await store.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "cpu": spent, "passages": passages, "peak_mb": peak}


def floor(count: int) -> tuple[float, float]:
    """Seconds, and CPU seconds, of the embedder alone on the passages of so many documents."""
    embeddings: Embeddings = plugins.find("embeddings", "wordllama")()
    passages = [p.text for number in range(count) for p in split(text(number))]
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(passages), 256):
        embeddings.embed_documents(passages[first : first + 256])
    return time.perf_counter() - began, time.process_time() - cpu


def measured(count: int) -> dict[str, float]:
    """Ingest in a process of its own, so that its peak is its own."""
    with tempfile.TemporaryDirectory() as folder:
        write(count, Path(folder) / "documents.jsonl")
        command = [sys.executable, __file__, "--inside", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> None:
    """Measure each size beside the floor; exits with 1 where ingestion falls below 0.8 of it or memory grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(asyncio.run(ingest(arguments.inside))))
        return
    peaks, short = [], False
    for count in arguments.documents:
        before = floor(FEW)
        figures = measured(count)
        after = floor(FEW)
        wall = (before[0] + after[0]) / 2 / FEW * count
        cpu = (before[1] + after[1]) / 2 / FEW * count
        size = sum(len(text(number)) for number in range(FEW)) / FEW * count / 1e6
        peaks.append(figures["peak_mb"])
        ratio = wall / figures["seconds"]
        short |= ratio < 0.8
        print(
            json.dumps(
                {
                    "bench": "ingest",
                    "documents": count,
                    "passages": figures["passages"],
                    "documents_per_s": round(count / figures["seconds"], 1),
                    "mb_per_s": round(size / figures["seconds"], 2),
                    "of_the_embedder_alone": round(ratio, 3),
                    "cpu_of_the_embedder_alone": round(cpu / figures["cpu"], 3),
                    "peak_mb": round(figures["peak_mb"]),
                }
            ),
            flush=True,
        )
    sys.exit(1 if short or max(peaks) > 1.2 * min(peaks) else 0)


if __name__ == "__main__":
    main()
