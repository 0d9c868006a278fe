"""What it costs to search only what somebody may read: the authorised index beside unfiltered search and peers.

Principals may read 0.1 to 100 % of the rows. Each line of output is one JSON object; the verdict comes last, and the
exit status is 1 when a target is missed. Times are CPU time of the whole process, for one query at a time.

    python tests/bench/authorised_search.py --rows 100000 --classes 1000
    python tests/bench/authorised_search.py --rows 1000000 --classes 10000
    python tests/bench/authorised_search.py --vectors embeddings.npy --grouping topics --against lancedb,chroma
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import faiss as _faiss
import numpy as np
import numpy.typing as npt

import authorised_peers as peers
from ringwall_index import AuthorisedVectors, View

faiss: Final[Any] = _faiss
"""Its stubs leave out the graph's parameters."""

SHARES: Final = (0.001, 0.01, 0.03, 0.1, 0.3, 0.5, 0.8, 1.0)
K: Final = 10
RECALL: Final = 0.95
ROUNDS: Final = 4
"""Each method has its turn this often, so that a change of the machine's speed meets all of them."""

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Ask = Callable[[Floats], npt.NDArray[Any]]
"""One query: the rows found."""


def allowed_ratio(share: float) -> float:
    """How many times the unfiltered limit a search may take."""
    return 1.2 if share <= 0.03 or share >= 1.0 else 2.0


@dataclass(frozen=True)
class Scene:
    """What is searched: `topics` is the cluster each vector was drawn from."""

    vectors: Floats
    queries: Floats
    classes: Integers


@dataclass
class Subject:
    """One method for one principal, and what was measured of it."""

    name: str
    share: float
    ask: Ask
    truth: Integers
    allowed: npt.NDArray[np.bool_]
    cpu_ms: list[float] = field(default_factory=list)
    found: list[set[int]] = field(default_factory=list)

    def line(self) -> dict[str, Any]:
        """The figures, as they are printed."""
        hits = [len(found & set(truth)) for found, truth in zip(self.found, self.truth.tolist(), strict=False)]
        return {
            "method": self.name,
            "share": self.share,
            "cpu_ms_p50": round(float(np.median(self.cpu_ms)), 4),
            "cpu_ms_p95": round(float(np.quantile(self.cpu_ms, 0.95)), 4),
            "recall": round(sum(hits) / (self.truth.shape[1] * len(self.found)), 4),
            "forbidden": sum(not self.allowed[row] for found in self.found for row in found),
        }


def mixture(rows: int, dimensions: int, queries: int, seed: int) -> tuple[Floats, Floats, Integers]:
    """Vectors in topics and subtopics of uneven size, along axes of uneven weight, as embeddings have them."""
    random = np.random.default_rng(seed)
    weights = ((np.arange(dimensions) + 1.0) ** -0.35).astype(np.float32)
    turn = np.linalg.qr(random.standard_normal((dimensions, dimensions)))[0].astype(np.float32)
    count = max(64, rows // 250)

    def directions(number: int) -> Floats:
        drawn = random.standard_normal((number, dimensions), dtype=np.float32) * weights
        unit: Floats = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        return unit

    topics = directions(max(8, count // 20))
    centres = 0.35 * directions(1) + 0.75 * topics[random.integers(0, len(topics), count)] + 0.6 * directions(count)
    spread = random.uniform(0.5, 0.9, count).astype(np.float32)[:, None]
    sizes = random.lognormal(0.0, 1.0, count)
    of = random.choice(count, rows + queries, p=sizes / sizes.sum())
    vectors = np.empty((rows + queries, dimensions), np.float32)
    for batch in batches(len(vectors)):
        drawn = centres[of[batch]] + directions(len(of[batch])) * spread[of[batch]]
        vectors[batch] = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)) @ turn
    return vectors[:rows], vectors[rows:], of[:rows]


def scene(options: argparse.Namespace) -> Scene:
    """Vectors from a file or made up, and their classes."""
    if options.vectors:
        taken = np.load(options.vectors, mmap_mode="r")[: options.rows + options.queries].astype(np.float32)
        taken /= np.maximum(np.linalg.norm(taken, axis=1, keepdims=True), 1e-12)
        order = np.random.default_rng(options.seed).permutation(len(taken))
        vectors, queries = taken[order[options.queries :]], taken[order[: options.queries]]
        topics = nearest_centre(vectors, max(64, len(vectors) // 250))
    else:
        vectors, queries, topics = mixture(options.rows, options.dimensions, options.queries, options.seed)
    return Scene(vectors, queries, grouped(options.grouping, topics, options.classes, options.seed))


def nearest_centre(vectors: Floats, count: int) -> Integers:
    """The topic of each vector, when it was not drawn from one."""
    means = faiss.Kmeans(vectors.shape[1], count, niter=5, seed=1, max_points_per_centroid=64)
    means.train(vectors)
    found: Integers = means.index.search(vectors, 1)[1][:, 0]
    return found


def grouped(how: str, topics: Integers, classes: int, seed: int) -> Integers:
    """Which class each row belongs to: any, uneven ones, or ones that follow the topics."""
    random = np.random.default_rng(seed + 1)
    if how == "topics":
        parts = max(1, classes // (int(topics.max()) + 1))
        found: Integers = np.unique(topics * parts + random.integers(0, parts, len(topics)), return_inverse=True)[1]
        return found
    weights = np.ones(classes) if how == "random" else 1.0 / np.arange(1, classes + 1)
    return random.choice(classes, len(topics), p=weights / weights.sum())


def principals(classes: Integers, seed: int) -> Iterator[tuple[float, Integers]]:
    """For each share: random classes that hold about that many of the rows."""
    sizes = np.bincount(classes)
    for share in SHARES:
        order = np.random.default_rng(seed + 2).permutation(len(sizes))
        below = np.searchsorted(np.cumsum(sizes[order]), share * len(classes) * 1.0000001)
        yield share, np.sort(order[: max(1, below)] if share < 1.0 else order)


def truths(scene: Scene, allowed: Sequence[npt.NDArray[np.bool_]]) -> list[Integers]:
    """The nearest rows among those allowed, by comparing all of them."""
    best = [(np.empty((len(scene.queries), 0), np.float32), np.empty((len(scene.queries), 0), np.int64))] * len(allowed)
    for batch in batches(len(scene.vectors)):
        scores = scene.queries @ scene.vectors[batch].T
        for number, flags in enumerate(allowed):
            columns = np.flatnonzero(flags[batch])
            rows = np.broadcast_to(columns + batch.start, (len(scores), len(columns)))
            best[number] = top(np.hstack([best[number][0], scores[:, columns]]), np.hstack([best[number][1], rows]))
    return [rows for _, rows in best]


def top(scores: Floats, rows: Integers) -> tuple[Floats, Integers]:
    """The best `K` of each line."""
    if scores.shape[1] <= K:
        return scores, rows
    chosen = np.argpartition(-scores, K, axis=1)[:, :K]
    return np.take_along_axis(scores, chosen, 1), np.take_along_axis(rows, chosen, 1)


def batches(rows: int, size: int = 50_000) -> Iterator[slice]:
    """Parts of all the rows."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def measure(subjects: Sequence[Subject], queries: Floats) -> None:
    """Ask each subject every query, in turns."""
    parts = np.array_split(np.arange(len(queries)), ROUNDS)
    for part in parts:
        for subject in subjects:
            for query in queries[part[:3]]:
                subject.ask(query)
            for query in queries[part]:
                start = time.process_time_ns()
                found = subject.ask(query)
                subject.cpu_ms.append((time.process_time_ns() - start) / 1e6)
                subject.found.append({int(row) for row in found})


def limit(scene: Scene, truth: Integers, options: argparse.Namespace) -> tuple[Ask, dict[str, Any]]:
    """FAISS's HNSW without any filter, no more careful than the wanted recall needs."""
    start = time.perf_counter()
    index = hnsw(scene.vectors, options)
    faiss.omp_set_num_threads(1)
    for effort in (16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 320, 400, 512, 700, 1000, 1500):
        parameters = faiss.SearchParametersHNSW(efSearch=effort)
        found = index.search(scene.queries, K, params=parameters)[1]
        recall = np.mean([len(set(a) & set(b)) / K for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
        if recall >= RECALL:
            break
    about = {"method": "hnsw", "effort": effort, "seconds_build": round(time.perf_counter() - start, 1)}
    return lambda query: index.search(query[None], K, params=parameters)[1][0], about


def hnsw(vectors: Floats, options: argparse.Namespace) -> Any:
    """The graph, read from the file of a run before if there is one."""
    if options.keep and Path(options.keep).exists():
        return faiss.read_index(options.keep)
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    index = faiss.IndexHNSWFlat(vectors.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 100
    index.add(vectors)
    if options.keep:
        faiss.write_index(index, options.keep)
    return index


def built(scene: Scene) -> tuple[AuthorisedVectors, dict[str, Any]]:
    """The authorised index, and what it took to build and to open it."""
    start, cpu = time.perf_counter(), time.process_time()
    index = AuthorisedVectors.build(np.arange(len(scene.vectors)), scene.vectors, scene.classes)
    about: dict[str, Any] = {
        "seconds_build": round(time.perf_counter() - start, 2),
        "cpu_s_build": round(time.process_time() - cpu, 2),
    }
    with tempfile.TemporaryDirectory() as folder:
        about["seconds_save"] = round(_seconds(lambda: index.save(folder)), 3)
        about["mb_on_disk"] = round(sum(path.stat().st_size for path in Path(folder).iterdir()) / 1e6, 1)
        about["mb_of_vectors"] = round(scene.vectors.nbytes / 1e6, 1)
        about["ms_open"] = _ms(lambda: AuthorisedVectors.open(folder, verify=False))
        about["ms_open_verified"] = _ms(lambda: AuthorisedVectors.open(folder))
    return index, about


def updates(index: AuthorisedVectors, scene: Scene, classes: Integers) -> dict[str, Any]:
    """How long changes take to be seen, for somebody with half of the rows; leaves the index as it was."""
    view, query = index.view(classes.tolist()), scene.queries[0]
    row = int(index.search(query, view, K).rows[0])
    batch = np.random.default_rng(0).choice(len(scene.vectors), 1000, replace=False)

    def moved(to: int, *, is_seen: bool) -> None:
        index.relabel([row], to)
        if (row in index.search(query, view, K).rows) != is_seen:
            raise SystemExit("a search did not see the change before it")

    hidden, shown = [], []
    for _ in range(9):
        hidden.append(_ms(lambda: moved(int(scene.classes.max()) + 1, is_seen=False)))
        shown.append(_ms(lambda: moved(int(scene.classes[row]), is_seen=True)))
    return {
        "ms_relabel_until_hidden": float(np.median(hidden)),
        "ms_relabel_until_shown": float(np.median(shown)),
        "ms_replace_1000": _ms(lambda: index.upsert(batch, scene.vectors[batch], scene.classes[batch])),
        "ms_next_search": _ms(lambda: index.search(query, view, K)),
        "ms_view": _ms(lambda: index.view(classes.tolist())),
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _ms(work: Callable[[], object]) -> float:
    return round(1000 * _seconds(work), 3)


def judged(lines: Sequence[dict[str, Any]], limit_ms: float, updated: dict[str, Any]) -> list[str]:
    """What falls short of the targets, in words."""
    short = [f"relabelling took {updated[name]} ms" for name in updated if "relabel" in name and updated[name] >= 5.0]
    for line in lines:
        share = f"{line['share']:.1%} permitted"
        if line["forbidden"]:
            short.append(f"{share}: {line['forbidden']} forbidden results")
        if line["recall"] < RECALL:
            short.append(f"{share}: recall {line['recall']}")
        if line["cpu_ms_p50"] > allowed_ratio(line["share"]) * limit_ms:
            short.append(f"{share}: {line['cpu_ms_p50'] / limit_ms:.2f} x the limit")
    return short


def say(line: dict[str, Any]) -> None:
    """One line of output."""
    print(json.dumps(line), flush=True)


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--grouping", choices=["random", "skewed", "topics"], default="random")
    parser.add_argument("--vectors", help="an .npy file of vectors to use instead of made-up ones")
    parser.add_argument("--keep", help="a file for the unfiltered graph: its building takes longest")
    parser.add_argument("--against", default="", help=f"peers, with a few queries each: {','.join(peers.KNOWN)}")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> list[str]:
    """Measure everything, say it, and return what falls short."""
    scene_ = scene(options)
    people = list(principals(scene_.classes, options.seed))
    allowed = [np.isin(scene_.classes, classes) for _, classes in people]
    answers = truths(scene_, allowed)
    index, about = built(scene_)
    ask_limit, about_limit = limit(scene_, answers[-1], options)
    subjects = [Subject("hnsw, unfiltered", 1.0, ask_limit, answers[-1], allowed[-1])]
    for (share, classes), flags, answer in zip(people, allowed, answers, strict=True):
        view = index.view(classes.tolist())
        subjects.append(Subject(f"ringwall, by {view.way}", share, _asking(index, view), answer, flags))
    measure(subjects, scene_.queries)
    say({"rows": len(scene_.vectors), "dimensions": scene_.vectors.shape[1], "classes": len(np.unique(scene_.classes))})
    say({"method": "ringwall", **about})
    say(about_limit)
    lines = [subject.line() for subject in subjects]
    for line in lines:
        say({**line, "of_limit": round(line["cpu_ms_p50"] / lines[0]["cpu_ms_p50"], 2)})
    updated = updates(index, scene_, people[5][1])
    say({"method": "ringwall", **updated})
    for name in filter(None, options.against.split(",")):
        against(name, scene_, people, allowed, answers)
    say({"mb_peak_of_process": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)})
    return judged(lines[1:], lines[0]["cpu_ms_p50"], updated)


def against(
    name: str,
    scene: Scene,
    people: Sequence[tuple[float, Integers]],
    allowed: Sequence[npt.NDArray[np.bool_]],
    answers: Sequence[Integers],
) -> None:
    """Measure a peer with a few queries."""
    queries = scene.queries[: peers.QUERIES]
    with peers.KNOWN[name](scene.vectors, scene.classes) as ask:
        for (share, classes), flags, answer in zip(people, allowed, answers, strict=True):
            subject = Subject(name, share, partial(_ask_peer, ask, classes.tolist()), answer[: len(queries)], flags)
            measure([subject], queries)
            say(subject.line())


def _ask_peer(ask: peers.Ask, classes: list[int], query: Floats) -> npt.NDArray[Any]:
    return ask(query, classes, K)


def _asking(index: AuthorisedVectors, view: View) -> Ask:
    return lambda query: index.search(query, view, K).rows


def main() -> int:
    """Run with one BLAS thread: the libraries read that when they are loaded."""
    if os.environ.get("OPENBLAS_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OPENBLAS_NUM_THREADS": "1"})
    start = time.perf_counter()
    options = parsed(sys.argv[1:])
    short = run(options)
    say({"seconds": round(time.perf_counter() - start, 1), "verdict": "short" if short else "met", "short": short})
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
