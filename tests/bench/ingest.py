"""What ingestion costs: `python tests/bench/ingest.py`, a JSON line for each size.

Documents and MB a second, from files on disk to a library that can be searched, against the floor: the embedder alone
on the very same passages, 256 at a time as in the ingestion, in the same run, before and after. WordLlama's floor is
measured twice: as its own package embeds (`of_the_embedder_alone`), and as `WordLlamaEmbeddings` does, which gives the
same vectors in less than half the time (`of_ours_alone`): beside that, splitting, words and the database count for
more. And the peak memory of each size, measured in a process of its own: flat means that it does not grow with the
number of documents.

`--shape` gives other documents, `--embeddings minilm` a slow embedder, and `--ray 1 2` a line each for so many workers
on Ray, beside the one in this process; their time begins when Ray is up, and includes that they load the embedder.
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
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Final

import wordllama
from wordllama import WordLlama

from ringwall import plugins
from ringwall.data import Embeddings, Ingestor, Manifest, Workers, split
from ringwall.principal import ACL, PUBLIC

FEW: Final = 2_000
"""Documents of which the floor is measured; of a slow embedder, a tenth."""

_WORDS: Final = [f"{a}{b}{c}" for a in "bcdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lling", "mer")]
_MANY: Final = [a + b for a in _WORDS for b in _WORDS[:100]]
_ZIPF: Final = list(accumulate(1 / rank for rank in range(3, len(_MANY) + 3)))


def usual(numbers: random.Random) -> str:
    """One to some twenty paragraphs."""
    paragraphs = (" ".join(numbers.choices(_WORDS, k=numbers.randint(40, 120))) for _ in range(numbers.randint(1, 6)))
    return ".\n\n".join(paragraphs)


def short(numbers: random.Random) -> str:
    """A sentence or two."""
    return " ".join(numbers.choices(_WORDS, k=numbers.randint(8, 40)))


def long(numbers: random.Random) -> str:
    """Sixty pages or so, of which twenty are a line."""
    return ".\n\n".join(" ".join(numbers.choices(_WORDS, k=numbers.randint(10, 200))) for _ in range(200))


def varied(numbers: random.Random) -> str:
    """As usual, but of 32,500 words, a few of them often and most of them seldom, as in prose."""
    return ".\n\n".join(
        " ".join(numbers.choices(_MANY, cum_weights=_ZIPF, k=numbers.randint(40, 120)))
        for _ in range(numbers.randint(1, 6))
    )


SHAPES: Final[Mapping[str, Callable[[random.Random], str]]] = {
    "usual": usual,
    "short": short,
    "long": long,
    "varied": varied,
}


def text(number: int, shape: str = "usual") -> str:
    """A document of this shape, always the same."""
    return f"# Document {number}\n\n" + SHAPES[shape](random.Random(number))


def write(count: int, path: Path, shape: str = "usual") -> None:
    """Write so many documents to a file, a line of JSON each."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            file.write(json.dumps([f"{number}.md", text(number, shape)]) + "\n")


def documents(path: Path) -> Iterator[tuple[str, str]]:
    """The documents of a file, read as they are asked for."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            name, body = json.loads(line)
            yield name, body


async def ingest(folder: Path, embedder: str = "wordllama", ray: int = 0) -> dict[str, float]:
    """Ingest the documents in `folder` into a new library there."""
    embeddings: Embeddings = plugins.find("embeddings", embedder)()
    store = plugins.find("data", "sql")(folder / "documents.db")
    manifest = Manifest(folder / "manifest.db")
    workers = await started(ray) if ray else None
    began, cpu, passages = time.perf_counter(), time.process_time(), 0
    async for outcome in Ingestor(store, embeddings, manifest=manifest, workers=workers).run(
        documents(folder / "documents.jsonl"), ACL.of(PUBLIC)
    ):
        passages += outcome.passages  # type: ignore[union-attr]
    seconds = time.perf_counter() - began
    spent = time.process_time() - cpu
    manifest.close()
    await store.close()
    if workers is not None:
        await workers.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "cpu": spent, "passages": passages, "peak_mb": peak}


async def started(count: int) -> Workers:
    """Workers on a Ray that is up."""
    workers: Workers = plugins.find("data", "ray")(count)

    async def nothing() -> AsyncIterator[list[str]]:
        return
        yield

    async for _ in workers.each(list, nothing()):
        pass
    return workers


@dataclass(frozen=True)
class Floor:
    """What an embedder alone takes for a document, in seconds and in CPU seconds."""

    seconds: float
    cpu: float


def floors(count: int, shape: str, embedder: str) -> tuple[Floor, Floor]:
    """Embed the passages of so many documents, and do nothing else: as its package does, and as ours does."""
    embeddings: Embeddings = plugins.find("embeddings", embedder)()
    passages = [p.text for number in range(count) for p in split(text(number, shape))]
    ours = floor(embeddings.embed_documents, passages, count)
    if embedder != "wordllama":
        return ours, ours
    model = WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    return floor(lambda texts: model.embed(texts, norm=True).tolist(), passages, count), ours


def floor(embed: Callable[[list[str]], object], passages: list[str], count: int) -> Floor:
    """What a function takes for all passages, for each of so many documents."""
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(passages), 256):
        embed(passages[first : first + 256])
    return Floor((time.perf_counter() - began) / count, (time.process_time() - cpu) / count)


def measured(count: int, shape: str, embedder: str, ray: int = 0) -> dict[str, float]:
    """Ingest in a process of its own, so that its peak is its own."""
    with tempfile.TemporaryDirectory() as folder:
        write(count, Path(folder) / "documents.jsonl", shape)
        command = [sys.executable, __file__, "--inside", folder, "--embeddings", embedder, "--ray", str(ray)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures: dict[str, float] = json.loads(done.stdout)
    return figures


def row(count: int, shape: str, embedder: str, ray: int) -> dict[str, float | str]:
    """What was measured of so many documents, beside the floor."""
    few = min(count, FEW if embedder == "wordllama" else FEW // 10)
    before = floors(few, shape, embedder)
    figures = measured(count, shape, embedder, ray)
    alone, ours = (
        Floor((one.seconds + other.seconds) / 2, (one.cpu + other.cpu) / 2)
        for one, other in zip(before, floors(few, shape, embedder), strict=True)
    )
    size = sum(len(text(number, shape)) for number in range(few)) / few * count / 1e6
    return {
        "bench": "ingest",
        "shape": shape,
        "embeddings": embedder,
        "ray": ray,
        "documents": count,
        "passages": figures["passages"],
        "documents_per_s": round(count / figures["seconds"], 1),
        "mb_per_s": round(size / figures["seconds"], 2),
        "of_the_embedder_alone": round(alone.seconds * count / figures["seconds"], 3),
        "of_ours_alone": round(ours.seconds * count / figures["seconds"], 3),
        "cpu_of_the_embedder_alone": round(alone.cpu * count / figures["cpu"], 3),
        "cpu_of_ours_alone": round(ours.cpu * count / figures["cpu"], 3),
        "peak_mb": round(figures["peak_mb"]),
    }


def main() -> None:
    """Measure each size beside the floor; exits with 1 where ingestion falls below 0.8 of it or memory grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 50_000])
    parser.add_argument("--shape", choices=SHAPES, default="usual")
    parser.add_argument("--embeddings", choices=("wordllama", "minilm"), default="wordllama")
    parser.add_argument("--ray", type=int, nargs="+", default=[], help="measure so many workers on Ray, too")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inside:
        print(json.dumps(asyncio.run(ingest(arguments.inside, arguments.embeddings, *arguments.ray))))
        return
    peaks: list[float] = []
    short = False
    for count in arguments.documents:
        for ray in (0, *arguments.ray):
            figures = row(count, arguments.shape, arguments.embeddings, ray)
            print(json.dumps(figures), flush=True)
            if not ray:
                peaks.append(float(figures["peak_mb"]))
                short |= float(figures["of_the_embedder_alone"]) < 0.8
    sys.exit(1 if short or max(peaks) > 1.2 * min(peaks) else 0)


if __name__ == "__main__":
    main()
