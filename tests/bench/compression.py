"""What smaller vectors lose: `python tests/bench/compression.py FOLDER...`, a JSON line for each way of making them.

nDCG@10 of a whole retrieval and by vectors alone, bytes that a vector takes in SQLite, and what is lost beside 32-bit
floats. With several folders `Pca` is fitted on each of the others too: so it is when documents change. A folder holds
`corpus.jsonl`, `queries.jsonl` and `qrels.tsv`. `--embeddings minilm` takes minutes, unless `--cache FILE` keeps them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from collections_ir import Collection
from retrieval_quality import K, Wordless, documents_found
from ringwall import plugins
from ringwall.data import CachedEmbeddings, Embeddings, Ingestor, Retriever, split
from ringwall.principal import ACL, PUBLIC
from ringwall_compress import Matryoshka, Pca, Quantised
from ringwall_sql import SqlDocuments
from ringwall_sql.packing import Precision


class Option(NamedTuple):
    """A way to make vectors smaller: what wraps the embedder, and what the store keeps."""

    name: str
    wrap: Callable[[Embeddings], Embeddings]
    kept: Precision = "float32"


class Figures(NamedTuple):
    """How good it is, and how small."""

    retrieval: float
    vectors: float
    size: int


def options(dimension: int, samples: Mapping[str, Sequence[str]], here: str) -> Iterator[Option]:
    """Every way that is compared; `samples` are the passages of each collection, `here` the one that is searched."""
    yield Option("float32", lambda inner: inner)
    yield Option("float16", lambda inner: inner, "float16")
    yield Option("int8", lambda inner: Quantised(inner, "int8"), "int8")
    yield Option("binary", lambda inner: Quantised(inner, "binary"), "binary")
    for fewer in (dimension // 2, dimension // 4):
        yield Option(f"matryoshka {fewer}", partial(Matryoshka, dimensions=fewer))
        for name, passages in samples.items():
            of = "" if name == here else f" fitted on {name}"
            yield Option(f"pca {fewer}{of}", partial(Pca.fit, passages=passages, dimensions=fewer))
    half = partial(Matryoshka, dimensions=dimension // 2)
    yield Option(f"matryoshka {dimension // 2} int8", lambda inner: Quantised(half(inner), "int8"), "int8")
    fitted = partial(Pca.fit, passages=samples[here], dimensions=dimension // 2)
    yield Option(f"pca {dimension // 2} int8", lambda inner: Quantised(fitted(inner), "int8"), "int8")


async def measured(collection: Collection, embeddings: Embeddings, kept: Precision) -> Figures:
    """What a user gets who ingests and retrieves with these."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "documents.db"
        store = SqlDocuments(path, vectors=kept)
        await Ingestor(store, embeddings).ingest(collection.documents.items(), ACL.of(PUBLIC))
        found = []
        for retriever in (Retriever(store, embeddings), Wordless(store, embeddings)):
            rankings = {id: await documents_found(retriever, text) for id, text in collection.queries.items()}
            found.append(collection.judged(rankings, K)[0])
        await store.close()
        with closing(sqlite3.connect(path)) as database:
            (size,) = database.execute("SELECT max(length(vector)) FROM chunk_vectors").fetchone()
    return Figures(found[0], found[1], size)


def main() -> None:
    """Measure every way on each collection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--embeddings", default="wordllama")
    parser.add_argument("--cache", default=":memory:")
    asked = parser.parse_args()
    embeddings = CachedEmbeddings(plugins.find("embeddings", asked.embeddings)(), asked.cache, model=asked.embeddings)
    collections = [Collection.read(folder) for folder in asked.folders]
    samples = {c.name: [p.text for text in c.documents.values() for p in split(text)] for c in collections}
    dimension = len(embeddings.embed_query("dimensions"))
    for collection in collections:
        whole: Figures | None = None
        for option in options(dimension, samples, collection.name):
            figures = asyncio.run(measured(collection, option.wrap(embeddings), option.kept))
            whole = whole or figures
            line = {
                "bench": "compression",
                "embeddings": asked.embeddings,
                "collection": collection.name,
                "vectors": option.name,
                "bytes": figures.size,
                "ndcg": round(figures.retrieval, 3),
                "lost": round(whole.retrieval - figures.retrieval, 3) + 0.0,
                "ndcg by vectors": round(figures.vectors, 3),
                "lost by vectors": round(whole.vectors - figures.vectors, 3) + 0.0,
            }
            print(json.dumps(line), flush=True)
    embeddings.close()


if __name__ == "__main__":
    main()
