"""Support cases of a bank: `python tests/bench/banking_knowledge.py FOLDER`, one JSON line.

How many of the documents that a case needs are among the first ten found (recall@10), when the case, as its customer
would tell it, is the question: Ringwall's defaults and the peers', on the same vectors. FOLDER is `banking_knowledge`
of tau2 (in the wheel `inspect-evals`, below `inspect_evals/tau2/data/domains`): 698 documents, 97 cases.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from pathlib import Path

from collections_ir import Collection
from retrieval_quality import measured


def read(folder: Path) -> Collection:
    """The cases as a collection: each asks with its customer's instructions."""
    with gzip.open(folder / "documents.json.gz", "rt", encoding="utf-8") as file:
        documents = {d["id"]: f"{d['title']}\n\n{d['content']}" for d in json.load(file)}
    tasks = [t for t in json.loads((folder / "tasks.json").read_text(encoding="utf-8")) if t["required_documents"]]
    queries = {task["id"]: task["user_scenario"]["instructions"] for task in tasks}
    return Collection(
        "banking_knowledge", documents, queries, {t["id"]: dict.fromkeys(t["required_documents"], 1) for t in tasks}
    )


def main() -> None:
    """Measure, and exit with 1 where a peer finds more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--alone", action="store_true", help="without the peers")
    arguments = parser.parse_args()
    figures = measured(read(arguments.folder), beside_peers=not arguments.alone)
    recall = {name: round(recall, 3) for name, (_, recall) in figures.items()}
    print(json.dumps({"bench": "banking_knowledge", "recall_at_10": recall}))
    best_peer = max((r for name, r in recall.items() if not name.startswith("ringwall")), default=0.0)
    sys.exit(1 if recall["ringwall"] < best_peer else 0)


if __name__ == "__main__":
    main()
