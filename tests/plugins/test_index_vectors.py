"""The authorised index: what it must find, what it must never find, and what a folder must survive."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ringwall.errors import InvalidInput, StoreError
from ringwall_index import AuthorisedVectors, Found

Floats = npt.NDArray[np.float32]

DIMENSIONS = 24
CLASSES = 40


def embeddings(rows: int, *, seed: int, dimensions: int = DIMENSIONS) -> Floats:
    """Vectors in some dozens of clusters, like texts on as many topics."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((60, dimensions))
    drawn = centres[random.integers(0, 60, rows)] + 0.7 * random.standard_normal((rows, dimensions))
    return drawn.astype(np.float32)


def cosines(query: Floats, vectors: Floats) -> npt.NDArray[np.float64]:
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1) * np.linalg.norm(query.astype(np.float64))
    scores: npt.NDArray[np.float64] = vectors @ query.astype(np.float64) / np.where(lengths > 0, lengths, 1)
    return scores


class Model:
    """What the index holds, as plainly as can be."""

    def __init__(self) -> None:
        self.vectors: dict[int, Floats] = {}
        self.classes: dict[int, int] = {}

    def upsert(self, rows: Iterable[int], vectors: Floats, classes: Iterable[int]) -> None:
        for row, vector, of in zip(rows, vectors, classes, strict=True):
            self.vectors[row], self.classes[row] = vector, of

    def remove(self, rows: Iterable[int]) -> None:
        for row in rows:
            self.vectors.pop(row, None)
            self.classes.pop(row, None)

    def relabel(self, rows: Iterable[int], to: int) -> None:
        self.classes.update((row, to) for row in rows if row in self.classes)

    def permitted(self, classes: Iterable[int]) -> list[int]:
        wanted = set(classes)
        return [row for row, of in self.classes.items() if of in wanted]

    def scores(self, query: Floats, rows: list[int]) -> dict[int, float]:
        if not rows:
            return {}
        return dict(zip(rows, cosines(query, np.stack([self.vectors[row] for row in rows])), strict=True))


def check(model: Model, found: Found, query: Floats, classes: Iterable[int], k: int) -> float:
    """Assert all that is promised; return the recall, which is not."""
    right = model.scores(query, model.permitted(classes))
    rows = found.rows.tolist()
    assert len(rows) == len(set(rows)) == min(k, len(right))
    assert set(rows) <= right.keys()
    assert np.allclose(found.scores, [right[row] for row in rows], atol=2e-5)
    assert (np.diff(found.scores) <= 0).all()
    best = sorted(right.values(), reverse=True)[: len(rows)]
    return float(np.mean([right[row] >= best[-1] - 2e-5 for row in rows])) if rows else 1.0


def filled(rows: int, *, seed: int = 0, classes: int = CLASSES) -> tuple[AuthorisedVectors, Model]:
    vectors = embeddings(rows, seed=seed)
    of = np.random.default_rng(seed + 1).integers(0, classes, rows)
    model = Model()
    model.upsert(range(rows), vectors, of.tolist())
    return AuthorisedVectors.build(np.arange(rows), vectors, of), model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built index with short codes, once for all that open it."""
    folder = tmp_path_factory.mktemp("saved")
    filled(6000)[0].save(folder, stamp="first")
    return folder


class Changes(RuleBasedStateMachine):
    """Whatever is written in whatever order, each view finds just what its classes permit."""

    @initialize(rows=st.sampled_from([0, 50, 4500]), seed=st.integers(0, 3))
    def begin(self, rows: int, seed: int) -> None:
        self.index, self.model = filled(rows, seed=seed) if rows else (AuthorisedVectors(), Model())
        self.views = [
            (classes, self.index.view(classes)) for classes in ([], [0], [1, 2, 3], range(0, 40, 2), range(60))
        ]

    @rule(first=st.integers(0, 5000), count=st.integers(1, 40), to=st.integers(0, 50), seed=st.integers(0, 99))
    def upsert(self, first: int, count: int, to: int, seed: int) -> None:
        rows, vectors = range(first, first + count), embeddings(count, seed=seed)
        classes = [(to + row) % 50 for row in rows]
        self.index.upsert(list(rows), vectors, classes)
        self.model.upsert(rows, vectors, classes)

    @rule(first=st.integers(0, 5000), count=st.integers(0, 60))
    def remove(self, first: int, count: int) -> None:
        self.index.remove(list(range(first, first + count)))
        self.model.remove(range(first, first + count))

    @rule(first=st.integers(0, 5000), count=st.integers(0, 3000), to=st.integers(0, 50))
    def relabel(self, first: int, count: int, to: int) -> None:
        self.index.relabel(np.arange(first, first + count), to)
        self.model.relabel(range(first, first + count), to)

    @rule()
    def compact(self) -> None:
        self.index.compact()

    @rule()
    def open_again(self) -> None:
        with TemporaryDirectory() as folder:
            self.index.save(folder, stamp="now")
            self.index = AuthorisedVectors.open(folder)
        assert self.index.stamp == "now"

    @rule(which=st.integers(0, 4), k=st.sampled_from([1, 10, 200, 3000]), seed=st.integers(0, 99))
    def search(self, which: int, k: int, seed: int) -> None:
        classes, view = self.views[which]
        query = embeddings(1, seed=seed)[0]
        check(self.model, self.index.search(query, view, k), query, classes, k)

    @invariant()
    def counts_its_rows(self) -> None:
        assert len(self.index) == len(self.model.classes)


TestChanges = Changes.TestCase
TestChanges.settings = settings(
    max_examples=20, stateful_step_count=15, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("dimensions", [3, 33, 64])
def test_finds_about_as_much_as_comparing_everything(dimensions: int) -> None:
    rows, random = 20_000, np.random.default_rng(3)
    drawn = embeddings(rows + 100, seed=5, dimensions=dimensions)
    vectors, queries = drawn[:rows], drawn[rows:]
    classes = random.integers(0, 100, rows)
    index, model = AuthorisedVectors.build(np.arange(rows), vectors, classes), Model()
    model.upsert(range(rows), vectors, classes.tolist())
    for permitted in (range(1), range(3), range(10), range(40), range(100)):
        view = index.view(permitted)
        recall = [check(model, index.search(query, view, 10), query, permitted, 10) for query in queries[:40]]
        assert np.mean(recall) >= 0.95


def test_finds_what_is_permitted_even_when_the_question_is_about_something_else() -> None:
    vectors = embeddings(20_000, seed=1)
    topics = np.argmax(vectors @ embeddings(50, seed=9).T, axis=1)
    index, model = AuthorisedVectors.build(np.arange(20_000), vectors, topics), Model()
    model.upsert(range(20_000), vectors, topics.tolist())
    for permitted in ([3], [5, 6, 7], range(20)):
        view = index.view(permitted)
        recall = [check(model, index.search(q, view, 10), q, permitted, 10) for q in embeddings(40, seed=77)]
        assert np.mean(recall) >= 0.95


def test_a_search_after_a_change_sees_it(saved: Path) -> None:
    index = AuthorisedVectors.open(saved)
    view = index.view(range(0, CLASSES, 2))
    query = embeddings(1, seed=50)[0]
    first, second = index.search(query, view, 2).rows.tolist()
    index.relabel([first], 1)
    assert index.search(query, view, 1).rows.tolist() == [second]
    index.remove([second])
    assert second not in index.search(query, view, 500).rows
    index.relabel([first, second], 0)
    assert index.search(query, view, 1).rows.tolist() == [first]
    index.upsert([7_000_000], [query], [CLASSES + 5])
    assert index.search(query, view, 1).rows.tolist() == [first]
    assert index.search(query, index.view([CLASSES + 5]), 3).rows.tolist() == [7_000_000]


def test_equal_vectors_do_not_crowd_each_other_out() -> None:
    vectors = np.ones((9000, 16), np.float32)
    index = AuthorisedVectors.build(np.arange(9000), vectors, np.arange(9000) % 30)
    for permitted in (range(1), range(15), range(30)):
        assert len(index.search(vectors[0], index.view(permitted), 10).rows) == 10


def test_nothing_is_found_where_nothing_is_permitted_or_there(saved: Path) -> None:
    index = AuthorisedVectors.open(saved)
    query = embeddings(1, seed=1)[0]
    assert not len(index.search(query, index.view([]), 5).rows)
    assert not len(index.search(query, index.view([CLASSES + 9]), 5).rows)
    assert not len(index.search(query, index.view([0]), 0).rows)
    empty = AuthorisedVectors()
    assert not len(empty.search(query, empty.view([0]), 5).rows)


@pytest.mark.parametrize(
    "write",
    [
        lambda index: index.upsert([1], np.full((1, DIMENSIONS), np.nan), [0]),
        lambda index: index.upsert([1], np.full((1, DIMENSIONS), 1e39), [0]),
        lambda index: index.upsert([1], np.ones((1, DIMENSIONS + 1)), [0]),
        lambda index: index.upsert([1], np.ones((2, DIMENSIONS)), [0]),
        lambda index: index.upsert([1], np.ones(DIMENSIONS), [0]),
        lambda index: index.upsert([1.5], np.ones((1, DIMENSIONS)), [0]),
        lambda index: index.upsert([1], np.ones((1, DIMENSIONS)), [-1]),
        lambda index: index.upsert([1], np.ones((1, DIMENSIONS)), [2**24]),
        lambda index: index.relabel([1], -1),
        lambda index: index.view([-1]),
        lambda index: index.search(np.full(DIMENSIONS, np.inf), index.view([0]), 1),
        lambda index: index.search(np.full(DIMENSIONS, np.nan, np.float32), index.view([0]), 1),
        lambda index: index.search(np.ones(DIMENSIONS - 1, np.float32), index.view([0]), 1),
        lambda index: index.search(np.ones((1, DIMENSIONS), np.float32), index.view([0]), 1),
    ],
)
def test_what_cannot_be_used_is_refused_and_changes_nothing(
    saved: Path, write: Callable[[AuthorisedVectors], object]
) -> None:
    index = AuthorisedVectors.open(saved)
    before = index.search(np.ones(DIMENSIONS), index.view(range(CLASSES)), 20)
    with pytest.raises(InvalidInput):
        write(index)
    after = index.search(np.ones(DIMENSIONS), index.view(range(CLASSES)), 20)
    assert (before.rows == after.rows).all()
    assert len(index) == 6000


def test_very_long_and_very_short_vectors_keep_their_direction() -> None:
    index = AuthorisedVectors.build([1, 2, 3], [[3e38, 3e38], [1e-38, 0.0], [0.0, 0.0]], [0, 0, 0])
    for length in (1e-30, 1.0, 2e38):
        found = index.search(np.array([length, length], np.float32), index.view([0]), 3)
        assert found.rows.tolist() == [1, 2, 3]
        assert found.scores == pytest.approx([1.0, 0.5**0.5, 0.0], abs=1e-6)


def test_the_last_of_several_rows_with_one_number_counts() -> None:
    index = AuthorisedVectors.build([5, 5], [[1.0, 0.0], [0.0, 1.0]], [0, 1])
    index.upsert([6, 6], [[1.0, 0.0], [0.0, 1.0]], [0, 1])
    assert len(index) == 2
    assert not len(index.search([1.0, 0.0], index.view([0]), 5).rows)
    assert index.search([0.0, 1.0], index.view([1]), 5).scores.tolist() == [1.0, 1.0]


def test_saving_later_changes_leaves_the_built_part_alone(saved: Path, tmp_path: Path) -> None:
    index = AuthorisedVectors.open(saved)
    index.save(tmp_path)
    built = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*vectors.npy")}
    index.relabel([3], 0)
    index.remove([4])
    index.save(tmp_path, stamp="later")
    again = AuthorisedVectors.open(tmp_path)
    assert again.stamp == "later"
    assert len(again) == 5999
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*vectors.npy")}
    assert len(built.items() & kept.items()) == 1


def test_a_damaged_file_is_noticed(saved: Path, tmp_path: Path) -> None:
    AuthorisedVectors.open(saved).save(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        whole = path.read_bytes()
        damaged = bytearray(whole)
        damaged[len(whole) // 2] ^= 4
        for text in (bytes(damaged), whole[:-9], b""):
            path.write_bytes(text)
            with pytest.raises(StoreError, match="build the index anew"):
                AuthorisedVectors.open(tmp_path)
        path.unlink()
        with pytest.raises(StoreError):
            AuthorisedVectors.open(tmp_path)
        path.write_bytes(whole)
    assert len(AuthorisedVectors.open(tmp_path)) == 6000


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        AuthorisedVectors.open(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        AuthorisedVectors().save(tmp_path / "file")


def test_readers_never_see_a_row_that_was_taken_away_before_they_asked() -> None:
    index, _ = filled(6000)
    views = [index.view(range(0, CLASSES, 2)), index.view([0, 2])]
    queries, hidden, wrong = embeddings(20, seed=4), set[int](), list[object]()
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                for query in queries:
                    for view in views:
                        before = set(hidden)
                        wrong.extend(before & set(index.search(query, view, 20).rows.tolist()))
        except BaseException as error:  # whatever a reader dies of must fail the test
            wrong.append(error)
            raise

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for number, query in enumerate(queries):
        rows = index.search(query, views[0], 15).rows.tolist()
        index.relabel(rows, 1)
        hidden.update(rows)
        index.upsert([10_000 + number], [query], [number % 2])
        if number % 8 == 3:
            index.compact()
    done.set()
    for reader in readers:
        reader.join()
    assert wrong == []


def test_what_is_written_while_it_compacts_is_kept() -> None:
    index, model = filled(5000)
    compacting = threading.Thread(target=index.compact)
    compacting.start()
    rows = 0
    while compacting.is_alive() and rows < 500:
        vector = embeddings(1, seed=rows)
        index.upsert([rows], vector, [rows % 3])
        model.upsert([rows], vector, [rows % 3])
        index.remove([4000 + rows])
        model.remove([4000 + rows])
        index.relabel([2000 + rows], 0)
        model.relabel([2000 + rows], 0)
        rows += 1
    compacting.join()
    query = embeddings(1, seed=1)[0]
    for classes in ([0], range(CLASSES)):
        check(model, index.search(query, index.view(classes), 5000), query, classes, 5000)


def test_says_when_compacting_pays() -> None:
    index, _ = filled(5000)
    assert not index.wants_compacting
    index.relabel(np.arange(5000), 3)
    assert index.wants_compacting
    index.compact()
    assert not index.wants_compacting
