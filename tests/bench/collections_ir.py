"""Retrieval collections: folders with `corpus.jsonl`, `queries.jsonl` and `qrels.tsv`, and how rankings are judged."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Ranking = Sequence[str]


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents and queries by id, and for each query the documents that answer it, with how well."""

    name: str
    documents: Mapping[str, str]
    queries: Mapping[str, str]
    answers: Mapping[str, Mapping[str, int]]

    @classmethod
    def read(cls, folder: Path) -> Collection:
        """Read a folder; queries that nothing answers are left out, and so are documents without words."""
        documents = {d["_id"]: f"{d.get('title', '')}\n{d['text']}".strip() for d in _lines(folder / "corpus.jsonl")}
        answers: dict[str, dict[str, int]] = {}
        with (folder / "qrels.tsv").open(encoding="utf-8") as file:
            for query, document, grade in list(csv.reader(file, delimiter="\t"))[1:]:
                if int(grade) > 0:
                    answers.setdefault(query, {})[document] = int(grade)
        queries = {q["_id"]: q["text"] for q in _lines(folder / "queries.jsonl") if q["_id"] in answers}
        return cls(folder.name, {id: text for id, text in documents.items() if text}, queries, answers)

    def judged(self, rankings: Mapping[str, Ranking], k: int = 10) -> tuple[float, float]:
        """nDCG@k (Järvelin and Kekäläinen, TOIS 2002; gain = grade) and Recall@k, means over all queries."""
        pairs = [(rankings.get(query, ())[:k], self.answers[query]) for query in self.queries]
        gains = [_dcg(g.get(d, 0) for d in ranking) / _dcg(sorted(g.values())[::-1][:k]) for ranking, g in pairs]
        found = [len(set(ranking) & grades.keys()) / len(grades) for ranking, grades in pairs]
        return sum(gains) / len(gains), sum(found) / len(found)


def _dcg(grades: Iterable[int]) -> float:
    return sum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, 1))


def _lines(path: Path) -> Iterable[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)
