"""How good the passages are: `python tests/bench/retrieval_quality.py FOLDER...`, a JSON line for each collection.

nDCG@10 and Recall@10 of Ringwall by default, with the quality embedder (if it is installed), by words alone and by
vectors alone, and of the defaults of LangChain (Chroma), LlamaIndex and Haystack, given the very same vectors, each
in an environment of its own. A folder holds `corpus.jsonl`, `queries.jsonl` and `qrels.tsv`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import environments
from collections_ir import Collection
from ringwall import plugins
from ringwall.data import Condition, Embeddings, Ingestor, MemoryStore, Query, Retriever
from ringwall.errors import UnknownPlugin
from ringwall.principal import ACL, PUBLIC

K: Final = 10
PEERS: Final = ("langchain-chroma", "llamaindex", "haystack")
READER: Final = frozenset((PUBLIC,))
QUALITY: Final = "minilm"

Rankings = Mapping[str, list[str]]


async def ringwall(collection: Collection, embeddings: Embeddings | None) -> dict[str, Rankings]:
    """What a user gets who ingests and retrieves; and the two halves of it."""
    store = MemoryStore()
    await Ingestor(store, embeddings).ingest(collection.documents.items(), ACL.of(PUBLIC))
    both = {id: await documents_found(Retriever(store, embeddings), text) for id, text in collection.queries.items()}
    words = {id: await documents_found(Retriever(store), text) for id, text in collection.queries.items()}
    meaning = {id: await documents_found(Wordless(store, embeddings), text) for id, text in collection.queries.items()}
    return {"both": both, "words": words, "vectors": meaning}


class Wordless(Retriever):
    """Asks by the question's vector alone."""

    async def _query(self, question: str, where: tuple[Condition, ...]) -> Query:
        return replace(await super()._query(question, where), text="")


async def documents_found(retriever: Retriever, question: str) -> list[str]:
    """The documents of the best passages, each once."""
    matches = await retriever.retrieve(question, READER, 5 * K)
    return list(dict.fromkeys(match.chunk.document for match in matches))[:K]


def peers(collection: Collection, embeddings: Embeddings) -> dict[str, Rankings]:
    """What the peers' defaults find, with vectors of the same embedder."""
    texts = list(dict.fromkeys([*collection.documents.values(), *collection.queries.values()]))
    vectors = dict(zip(texts, embeddings.embed_documents(texts), strict=True))
    task = {"documents": collection.documents, "queries": collection.queries, "vectors": vectors, "k": K}
    found: dict[str, Rankings] = {}
    for peer in PEERS:
        if not environments.is_ready(peer):
            print(f"building the environment of {peer} …", file=sys.stderr)
            environments.build(peer)
        script = environments.PEERS / peer / "retrieval.py"
        done = subprocess.run(
            [str(environments.python_of(peer)), "-W", "ignore", str(script)],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise environments.InstallError(f"{peer} failed:\n{done.stderr[-2000:]}")
        found |= json.loads(done.stdout.splitlines()[-1])
    return found


def measured(collection: Collection, *, beside_peers: bool) -> dict[str, tuple[float, float]]:
    """nDCG@10 and Recall@10 of everybody."""
    default: Embeddings = plugins.find("embeddings", "wordllama")()
    ours = asyncio.run(ringwall(collection, default))
    rankings = {"ringwall": ours["both"], "ringwall words": ours["words"], "ringwall vectors": ours["vectors"]}
    try:
        quality: Embeddings = plugins.find("embeddings", QUALITY)()
        rankings["ringwall quality"] = asyncio.run(ringwall(collection, quality))["both"]
    except UnknownPlugin as error:
        print(f"without the quality embedder: {error}", file=sys.stderr)
    if beside_peers:
        rankings |= peers(collection, default)
    return {name: collection.judged(found, K) for name, found in rankings.items()}


def main() -> None:
    """Measure each collection, and say whether ours is the best of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--alone", action="store_true", help="without the peers")
    arguments = parser.parse_args()
    short = False
    for folder in arguments.folders:
        if not (folder / "corpus.jsonl").exists():
            continue
        figures = measured(Collection.read(folder), beside_peers=not arguments.alone)
        rounded = {name: {"ndcg": round(n, 3), "recall": round(r, 3)} for name, (n, r) in figures.items()}
        best_peer = max((n for name, (n, _) in figures.items() if not name.startswith("ringwall")), default=0.0)
        short |= figures["ringwall"][0] < best_peer
        print(json.dumps({"bench": "retrieval_quality", "collection": folder.name, **rounded}), flush=True)
    sys.exit(1 if short else 0)


if __name__ == "__main__":
    main()
