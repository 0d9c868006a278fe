"""What an embedder costs and finds: passages per CPU second, and nDCG@10 of dense retrieval alone.

    python tests/bench/embedders.py [--passages N] [--rounds N] [--gguf FILE ...] [FOLDER ...]

Compares all-MiniLM-L6-v2 in plain numpy with the plugin `ringwall_minilm` in each of its precisions, and with
GGUF files of the same model in `ringwall_llama`. All run on one thread of this process and take turns, so that the
machine's noise falls on all alike. CPU time is that of the process: tokenizing counts, loading does not.

Each FOLDER is a retrieval collection: `corpus.jsonl` (`_id`, `title`, `text`), `queries.jsonl` (`_id`, `text`)
and `qrels.tsv` (query, document, relevance). Speed is measured on the first; without a folder, on sentences
made up here, and there is nothing to find.

Prints one JSON line an embedder. `ratio` is its speed over plain numpy's, `cosine` the least between a vector
of its and plain numpy's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
import numpy.typing as npt

from plain_minilm import PlainMiniLm
from ringwall.data import Embeddings
from ringwall_llama import GgufEmbeddings
from ringwall_minilm import MiniLmEmbeddings
from ringwall_minilm.files import bundled_folder
from ringwall_minilm.graph import Precision

Rows = npt.NDArray[np.float32]
Embed = Callable[[list[str]], Rows]

ONE_THREAD: Final = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
"""Read when numpy is first imported: set for a process of its own."""

PLAIN: Final = "plain numpy"


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, queries, and which documents answer which query, and how well."""

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]


@dataclass(slots=True)
class Measured:
    """What is known of one embedder."""

    embed: Embed
    seconds: list[float] = field(default_factory=list)
    vectors: Rows | None = None
    ndcg: dict[str, float] = field(default_factory=dict)

    def take_turn(self, texts: list[str]) -> None:
        """Embed all texts, and note the CPU time it took."""
        start = time.process_time()
        self.vectors = self.embed(texts)
        self.seconds.append(time.process_time() - start)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the lines."""
    if any(os.environ.get(name) != value for name, value in ONE_THREAD.items()):
        command = [sys.executable, __file__, *(sys.argv[1:] if arguments is None else arguments)]
        return subprocess.run(command, env={**os.environ, **ONE_THREAD}, check=False).returncode
    given = parse(arguments)
    collections = [read(folder) for folder in given.folders]
    texts = (list(collections[0].documents.values()) if collections else made_up())[: given.passages]
    everyone = embedders(given.gguf)
    for _ in range(given.rounds):
        for measured in everyone.values():
            measured.take_turn(texts)
    for name, measured in everyone.items():
        measured.ndcg = {collection.name: ndcg(measured.embed, collection) for collection in collections}
        print(json.dumps(line(name, measured, everyone[PLAIN], passages=len(texts))), flush=True)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure the speed of embedders, and what they find.")
    parser.add_argument("folders", nargs="*", type=Path, help="retrieval collections")
    parser.add_argument("--gguf", nargs="*", type=Path, default=[], help="GGUF files of all-MiniLM-L6-v2")
    parser.add_argument("--passages", type=int, default=200, help="how many to embed in a turn")
    parser.add_argument("--rounds", type=int, default=3, help="how many turns each takes")
    return parser.parse_args(arguments)


def embedders(files: Sequence[Path]) -> dict[str, Measured]:
    """Everyone who is compared, loaded and warm."""
    everyone = {PLAIN: Measured(PlainMiniLm(bundled_folder()).embed)}
    for precision in get_args(Precision):
        everyone[f"ringwall_minilm {precision}"] = Measured(_rows(MiniLmEmbeddings(precision=precision)))
    for file in files:
        everyone[f"ringwall_llama {file.stem}"] = Measured(_rows(GgufEmbeddings(file, context=256, threads=1)))
    for measured in everyone.values():
        measured.embed(["a table by the window", "wine"])
    return everyone


def _rows(embeddings: Embeddings) -> Embed:
    return lambda texts: np.array(embeddings.embed_documents(texts), np.float32)


def line(name: str, measured: Measured, plain: Measured, *, passages: int) -> dict[str, Any]:
    """An embedder's figures, the speed that of its best turn."""
    assert measured.vectors is not None
    assert plain.vectors is not None
    best, bar = min(measured.seconds), min(plain.seconds)
    mean = sum(measured.ndcg.values()) / len(measured.ndcg) if measured.ndcg else None
    return {
        "embedder": name,
        "passages_per_cpu_s": round(passages / best, 1),
        "ratio": round(bar / best, 2),
        "cosine": round(float((measured.vectors * plain.vectors).sum(1).min()), 6),
        "ndcg_at_10": {**measured.ndcg, **({"mean": round(mean, 4)} if mean is not None else {})},
    }


# --- Retrieval ----------------------------------------------------------------------------------------


def read(folder: Path) -> Collection:
    """Read a collection; a document is its title and its text."""
    documents = {each["_id"]: f"{each.get('title', '')} {each['text']}".strip() for each in _records(folder, "corpus")}
    queries = {each["_id"]: each["text"] for each in _records(folder, "queries")}
    relevant: dict[str, dict[str, int]] = {}
    for row in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, score = row.split("\t")
        relevant.setdefault(query, {})[document] = int(score)
    return Collection(folder.name, documents, queries, relevant)


def _records(folder: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(row) for row in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def made_up(count: int = 400) -> list[str]:
    """Passages of 20 to 160 words: always the same ones."""
    chance, words = random.Random(7), (__doc__ or "").split()
    return [" ".join(chance.choices(words, k=chance.randint(20, 160))) for _ in range(count)]


def ndcg(embed: Embed, collection: Collection) -> float:
    """Mean nDCG@10 over the queries that have an answer."""
    ids = list(collection.documents)
    documents = embed(list(collection.documents.values()))
    asked = [query for query in collection.queries if query in collection.relevant]
    queries = embed([collection.queries[query] for query in asked])
    best = np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :10]
    gains = [
        _ndcg([ids[i] for i in found], collection.relevant[query]) for query, found in zip(asked, best, strict=True)
    ]
    return round(sum(gains) / len(gains), 4)


def _ndcg(found: Sequence[str], relevant: dict[str, int]) -> float:
    ideal = sorted(relevant.values(), reverse=True)[:10]
    return _gain([relevant.get(document, 0) for document in found]) / _gain(ideal)


def _gain(scores: Sequence[int]) -> float:
    return sum(score / math.log2(rank + 2) for rank, score in enumerate(scores))


if __name__ == "__main__":
    sys.exit(main())
