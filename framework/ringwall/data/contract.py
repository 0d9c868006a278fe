"""What every document store and every embedder must pass. Subclass, give a fixture, run pytest.

    class TestMyStore(DocumentStoreContract):
        @pytest.fixture
        def store(self, tmp_path: Path) -> DocumentStore:
            return MyStore(tmp_path)

Needs pytest, pytest-asyncio and hypothesis.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringwall.data.base import Chunk, Condition, DocumentStore, Embeddings, Match, Query, Scalar, StoreOfRecord
from ringwall.errors import InvalidInput
from ringwall.principal import ACL, PUBLIC, Grants, Principal

ANA = Principal.user("ana", "guest")
BEN = Principal.user("ben", "staff")
QUESTION = Query("which table is free", (1.0, 0.5, 0.25))
"""Every generated chunk shares a word with it and has a vector: whatever a store ranks by, each one matches."""

_PUBLIC = ACL.of(PUBLIC)
_STAFF = ACL.of("role:staff")
_ANA = ACL.of(ANA.own_grant)

_GRANTS = (PUBLIC, "role:guest", "role:staff", "user:ana", "acme::role:staff", "collection:finance/q3")
_DOCUMENTS = tuple(f"document-{n}" for n in range(6))
_documents = st.sampled_from(_DOCUMENTS)
_acls = st.sets(st.sampled_from(_GRANTS), min_size=1, max_size=3).map(ACL)
_readables = st.frozensets(st.sampled_from(_GRANTS))
_components = st.floats(-1, 1, width=16)
_words = st.lists(st.sampled_from(["wine", "garden", "staff", "é", "secret"]), max_size=4)


@st.composite
def _chunks(draw: st.DrawFn) -> Chunk:
    document, number = draw(_documents), draw(st.integers(0, 3))
    text = " ".join(["table", *draw(_words)])
    vector = tuple(draw(_components) for _ in range(3))
    return Chunk(f"{document}#{number}", document, text, draw(_acls), end=len(text), vector=vector)


@dataclass(frozen=True)
class _Upsert:
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class _Delete:
    documents: tuple[str, ...]


@dataclass(frozen=True)
class _SetReaders:
    documents: tuple[str, ...]
    readers: ACL


_Change = _Upsert | _Delete | _SetReaders
_some_documents = st.lists(_documents, max_size=3).map(tuple)
_changes = st.one_of(
    st.lists(_chunks(), max_size=8).map(lambda chunks: _Upsert(tuple(chunks))),
    st.builds(_Delete, _some_documents),
    st.builds(_SetReaders, _some_documents, _acls),
)
_histories = st.lists(_changes, min_size=1, max_size=6)
_examples = settings(
    max_examples=50,
    deadline=None,
    # The store of a test is emptied before each example; and subclasses share these tests.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)


class _Model:
    """What a store should hold, as plainly as it can be said."""

    def __init__(self) -> None:
        self.chunks: dict[str, Chunk] = {}

    def change(self, change: _Change) -> None:
        match change:
            case _Upsert(chunks):
                self.chunks |= {chunk.id: chunk for chunk in chunks}
            case _Delete(documents):
                self.chunks = {i: c for i, c in self.chunks.items() if c.document not in documents}
            case _SetReaders(documents, readers):
                changed = {i: c.read_by(readers) for i, c in self.chunks.items() if c.document in documents}
                self.chunks |= changed

    def readable(self, readable: Grants) -> dict[str, Chunk]:
        return {i: c for i, c in self.chunks.items() if c.readers.admits(readable)}


async def _change(store: DocumentStore, change: _Change) -> None:
    match change:
        case _Upsert(chunks):
            await store.upsert(chunks)
        case _Delete(documents):
            await store.delete(documents)
        case _SetReaders(documents, readers):
            await store.set_readers(documents, readers)


async def _filled(store: DocumentStore, history: Sequence[_Change]) -> _Model:
    """Empty the store, then live through `history` on it and on the model."""
    await store.delete(_DOCUMENTS)
    model = _Model()
    for change in history:
        await _change(store, change)
        model.change(change)
    return model


def chunk(id: str, readers: ACL, text: str = "a table by the window", document: str = "") -> Chunk:
    """A chunk that matches `QUESTION`."""
    return Chunk(id, document or id, text, readers, end=len(text), vector=(1.0, 0.0, 0.0))


def _ids(matches: Sequence[Match]) -> set[str]:
    return {match.chunk.id for match in matches}


def _plain(chunk: Chunk) -> Chunk:
    """The chunk without its vector, which a store may keep in its own precision, or to itself."""
    return replace(chunk, vector=None, metadata=dict(chunk.metadata))


class DocumentStoreContract:
    """Access is part of the query, and every change is visible to the next search.

    The fixture `store` gives an empty one. `scores_like_a_store_of_its_own`: hidden chunks have no influence on
    scores either; set it to False only for an approximate index.
    """

    pytestmark = pytest.mark.asyncio
    scores_like_a_store_of_its_own = True

    @_examples
    @given(history=_histories, readable=_readables, k=st.integers(1, 30))
    async def test_a_search_finds_k_chunks_if_the_reader_may_read_so_many_and_none_other(
        self, store: DocumentStore, history: Sequence[_Change], readable: Grants, k: int
    ) -> None:
        model = await _filled(store, history)
        expected = model.readable(readable)
        matches = await store.search(QUESTION, readable, k)
        found = {match.chunk.id: _plain(match.chunk) for match in matches}
        assert len(found) == len(matches) == min(k, len(expected))
        assert found == {id: _plain(expected[id]) for id in found if id in expected}
        assert [m.score for m in matches] == sorted((m.score for m in matches), reverse=True)

    @_examples
    @given(history=_histories, readable=_readables, k=st.integers(1, 30))
    async def test_hidden_chunks_leave_no_trace_in_a_result(
        self, store: DocumentStore, history: Sequence[_Change], readable: Grants, k: int
    ) -> None:
        model = await _filled(store, history)
        beside_hidden = await store.search(QUESTION, readable, k)
        await store.delete(_DOCUMENTS)
        await store.upsert(list(model.readable(readable).values()))
        alone = await store.search(QUESTION, readable, k)
        assert len(beside_hidden) == len(alone)
        if self.scores_like_a_store_of_its_own:
            assert [m.score for m in beside_hidden] == pytest.approx([m.score for m in alone], abs=1e-6)

    @_examples
    @given(history=_histories, readable=_readables)
    async def test_chunks_are_read_by_their_ids_as_far_as_the_reader_may_read_them(
        self, store: DocumentStore, history: Sequence[_Change], readable: Grants
    ) -> None:
        model = await _filled(store, history)
        ids = [*sorted(model.chunks, reverse=True), "nobody's", *sorted(model.chunks)]
        expected = model.readable(readable)
        found = await store.get(ids, readable)
        assert [_plain(c) for c in found] == [_plain(expected[id]) for id in dict.fromkeys(ids) if id in expected]

    @pytest.mark.parametrize(
        ("condition", "found"),
        [
            (Condition("year", "==", 2024), {"a"}),
            (Condition("year", "!=", 2024), {"b", "c"}),
            (Condition("year", ">", 2023.5), {"a"}),
            (Condition("year", "<=", 2023), {"b"}),
            (Condition("year", "in", (2023, "2024")), {"b"}),
            (Condition("kind", "==", "menu"), {"a", "b"}),
            (Condition("kind", ">=", "menu"), {"a", "b", "c"}),
            (Condition("year", ">=", ""), {"c"}),
            (Condition("open", "==", True), {"a"}),
            (Condition("open", "==", 1), set()),
            (Condition("nothing", "!=", "x"), set()),
            (Condition('"; --', "==", "'"), set()),
        ],
        ids=str,
    )
    async def test_only_what_meets_the_conditions_is_found(
        self, store: DocumentStore, condition: Condition, found: set[str]
    ) -> None:
        described: dict[str, dict[str, Scalar]] = {
            "a": {"year": 2024, "kind": "menu", "open": True},
            "b": {"year": 2023, "kind": "menu", "open": False},
            "c": {"year": "n/a", "kind": "wine", "open": 0},
            "d": {},
        }
        await store.upsert([replace(chunk(id, _PUBLIC), metadata=metadata) for id, metadata in described.items()])
        await store.upsert([replace(chunk("hidden", _STAFF), metadata=described["a"])])
        matches = await store.search(replace(QUESTION, where=(condition,)), ANA.vouched_grants, 5)
        assert _ids(matches) == found

    async def test_a_reader_is_not_starved_by_better_matches_that_are_hidden(self, store: DocumentStore) -> None:
        await store.upsert([chunk(f"hidden {n}", _STAFF, "which table is free") for n in range(1000)])
        await store.upsert([chunk(f"open {n}", _PUBLIC, "some table") for n in range(5)])
        matches = await store.search(QUESTION, ANA.vouched_grants, 5)
        assert _ids(matches) == {f"open {n}" for n in range(5)}

    async def test_who_holds_nothing_finds_nothing(self, store: DocumentStore) -> None:
        await store.upsert([chunk("a", _PUBLIC)])
        assert await store.search(QUESTION, frozenset(), 5) == []

    async def test_an_empty_store_finds_nothing(self, store: DocumentStore) -> None:
        assert await store.search(QUESTION, ANA.vouched_grants, 5) == []

    @pytest.mark.parametrize("k", [0, -1])
    async def test_nothing_asked_for_is_nothing_found(self, store: DocumentStore, k: int) -> None:
        await store.upsert([chunk("a", _PUBLIC)])
        assert await store.search(QUESTION, ANA.vouched_grants, k) == []

    async def test_a_tenants_grant_opens_nothing_of_another_tenant(self, store: DocumentStore) -> None:
        await store.upsert([chunk("a", ACL.of("role:staff", tenant="acme"))])
        for tenant, found in (("acme", {"a"}), ("beta", set()), ("", set())):
            ben = Principal.user("ben", "staff", tenant=tenant)
            assert _ids(await store.search(QUESTION, ben.vouched_grants, 5)) == found

    async def test_a_chunk_comes_back_as_it_was_stored(self, store: DocumentStore) -> None:
        metadata: dict[str, Scalar] = {"title": "Menu", "page": 3, "price": 9.5, "open": True}
        stored = replace(chunk("menu#0", _ANA, "table\n\n 'é' 😀", "menu"), start=7, end=19, metadata=metadata)
        await store.upsert([stored])
        (match,) = await store.search(QUESTION, ANA.vouched_grants, 1)
        assert _plain(match.chunk) == _plain(stored)
        assert match.label == stored.label

    async def test_upsert_replaces_a_chunk_whole(self, store: DocumentStore) -> None:
        first = replace(chunk("a", _STAFF, "table of old", "one"), metadata={"old": 1})
        second = replace(chunk("a", _ANA, "table of new", "two"), metadata={"new": 1})
        await store.upsert([first])
        await store.upsert([second])
        assert await store.search(QUESTION, BEN.vouched_grants, 5) == []
        (match,) = await store.search(QUESTION, ANA.vouched_grants, 5)
        assert _plain(match.chunk) == _plain(second)
        await store.delete(["one"])
        assert _ids(await store.search(QUESTION, ANA.vouched_grants, 5)) == {"a"}

    async def test_of_two_chunks_with_one_id_the_last_counts(self, store: DocumentStore) -> None:
        await store.upsert([chunk("a", _PUBLIC), chunk("a", _STAFF)])
        assert await store.search(QUESTION, ANA.vouched_grants, 5) == []

    async def test_readers_taken_away_find_nothing_from_the_next_search_on(self, store: DocumentStore) -> None:
        await store.upsert([chunk("a#0", _PUBLIC, document="a"), chunk("a#1", _PUBLIC, document="a")])
        await store.set_readers(["a"], _STAFF)
        assert await store.search(QUESTION, ANA.vouched_grants, 5) == []
        matches = await store.search(QUESTION, BEN.vouched_grants, 5)
        assert {(m.chunk.id, m.chunk.readers) for m in matches} == {("a#0", _STAFF), ("a#1", _STAFF)}

    async def test_a_deleted_document_is_gone_with_every_chunk(self, store: DocumentStore) -> None:
        await store.upsert([chunk(f"a#{n}", _PUBLIC, document="a") for n in range(3)] + [chunk("b", _PUBLIC)])
        await store.delete(["a"])
        assert _ids(await store.search(QUESTION, ANA.vouched_grants, 5)) == {"b"}

    async def test_unknown_documents_and_empty_lists_are_fine(self, store: DocumentStore) -> None:
        await store.upsert([chunk("a", _PUBLIC)])
        for unknown in ([], ["never seen"], [""], ["\ud800"]):
            await store.delete(unknown)
            await store.set_readers(unknown, _STAFF)
        await store.upsert([])
        assert _ids(await store.search(QUESTION, ANA.vouched_grants, 5)) == {"a"}

    @pytest.mark.parametrize(
        "id", ["", " ", "a\nb", "a\x00b", "'; DROP TABLE chunks; --", '"', "日本語", "x" * 3000, "\ud800"]
    )
    async def test_an_odd_id_is_kept_as_it_is_or_refused(self, store: DocumentStore, id: str) -> None:
        await store.upsert([chunk("plain", _PUBLIC)])
        expected = {"plain", id}
        try:
            await store.upsert([chunk(id, _PUBLIC)])
        except InvalidInput:
            expected = {"plain"}
        assert _ids(await store.search(QUESTION, ANA.vouched_grants, 5)) == expected
        await store.set_readers([id], _STAFF)
        assert _ids(await store.search(QUESTION, ANA.vouched_grants, 5)) == {"plain"}
        await store.delete([id])
        assert _ids(await store.search(QUESTION, BEN.vouched_grants, 5)) == {"plain"}

    @pytest.mark.parametrize("odd", ["\ud800 table", "\x00 table", "table " * 200_000])
    async def test_an_odd_text_is_kept_as_it_is_or_refused(self, store: DocumentStore, odd: str) -> None:
        try:
            await store.upsert([chunk("a", _PUBLIC, odd)])
        except InvalidInput:
            assert await store.search(QUESTION, ANA.vouched_grants, 5) == []
        else:
            (match,) = await store.search(QUESTION, ANA.vouched_grants, 5)
            assert match.chunk.text == odd

    @pytest.mark.parametrize("vector", [(math.nan, 0.0, 1.0), (math.inf, 0.0, 0.0), (1.0, 0.0), (), (1e300, 0.0, 0.0)])
    async def test_a_bad_vector_is_refused_and_nothing_is_half_written(
        self, store: DocumentStore, vector: tuple[float, ...]
    ) -> None:
        await store.upsert([chunk("old", _PUBLIC)])
        with pytest.raises(InvalidInput):
            await store.upsert([chunk("new", _PUBLIC), replace(chunk("bad", _PUBLIC), vector=vector)])
        assert _ids(await store.search(QUESTION, ANA.vouched_grants, 5)) == {"old"}
        with pytest.raises(InvalidInput):
            await store.search(Query("table", vector), ANA.vouched_grants, 5)

    async def test_searches_at_the_same_time_do_not_mix_readers(self, store: DocumentStore) -> None:
        await store.upsert([chunk("ana's", _ANA), chunk("staff's", _STAFF)])
        readers = [ANA, BEN] * 10
        results = await asyncio.gather(*(store.search(QUESTION, r.vouched_grants, 5) for r in readers))
        assert [_ids(result) for result in results] == [{"ana's"}, {"staff's"}] * 10


class StoreOfRecordContract(DocumentStoreContract):
    """What a store must also pass from which indexes and copies are made. The fixture `store` gives an empty one."""

    @_examples
    @given(history=_histories)
    async def test_a_scan_yields_every_chunk_once(self, store: StoreOfRecord, history: Sequence[_Change]) -> None:
        model = await _filled(store, history)
        scanned = [chunk async for batch in store.scan() for chunk in batch]
        assert {c.id: _plain(c) for c in scanned} == {id: _plain(c) for id, c in model.chunks.items()}
        assert len(scanned) == len(model.chunks)
        for c in scanned:
            assert c.vector == pytest.approx(model.chunks[c.id].vector, abs=1e-3)

    async def test_every_change_gives_another_revision_and_a_search_none(self, store: StoreOfRecord) -> None:
        seen = [await store.revision()]
        for change in (
            _Upsert((chunk("a", _PUBLIC), chunk("b", _STAFF))),
            _SetReaders(("a",), _STAFF),
            _Upsert((chunk("a", _STAFF),)),
            _Delete(("b",)),
        ):
            await _change(store, change)
            seen.append(await store.revision())
            await store.search(QUESTION, BEN.vouched_grants, 5)
            assert await store.revision() == seen[-1]
        assert len(set(seen)) == len(seen)

    @_examples
    @given(before=_histories, after=_histories)
    async def test_sections_tell_what_must_be_read_again(
        self, store: StoreOfRecord, before: Sequence[_Change], after: Sequence[_Change]
    ) -> None:
        """Whoever reads those sections that changed, and drops those that are gone, holds all the store does."""
        copy = _Copy()
        model = await _filled(store, before)
        if not await copy.follow(store):
            pytest.skip("this store has no sections")
        for change in after:
            await _change(store, change)
            model.change(change)
        await copy.follow(store)
        assert copy.holds == {id: _plain(chunk) for id, chunk in model.chunks.items()}
        assert copy.sizes == {name: len(marks) for name, (_, marks) in copy.marks.items()}


class _Copy:
    """What somebody holds who reads only what changed."""

    def __init__(self) -> None:
        self.versions: dict[int, str] = {}
        self.sizes: dict[int, int] = {}
        self.marks: dict[int, tuple[ACL, Sequence[int]]] = {}
        self.chunks: dict[int, Chunk] = {}

    async def follow(self, store: StoreOfRecord) -> bool:
        sections = await store.sections()
        if sections is None:
            return False
        changed = [name for name, version in sections.versions.items() if self.versions.get(name) != version]
        found = {section.name: section async for section in sections.read(changed, self.chunks)}
        stay = {name: known for name, known in self.marks.items() if name in sections.versions}
        self.marks = stay | {name: (section.readers, section.marks) for name, section in found.items()}
        for section in found.values():
            self.chunks |= section.chunks
        self.versions, self.sizes = dict(sections.versions), dict(sections.sizes)
        return True

    @property
    def holds(self) -> dict[str, Chunk]:
        each = [self.chunks[mark].read_by(readers) for readers, marks in self.marks.values() for mark in marks]
        return {chunk.id: _plain(chunk) for chunk in each}


class EmbeddingsContract:
    """Vectors of one size, finite whatever the text. The fixture `embeddings` gives the embedder."""

    @pytest.mark.parametrize("text", ["", " ", "\n\n", "a table", "日本語 😀", "\x00", "\ud800", "word " * 50_000])
    def test_every_text_has_a_finite_vector_of_one_size(self, embeddings: Embeddings, text: str) -> None:
        expected = len(embeddings.embed_query("a table"))
        for vector in (embeddings.embed_query(text), *embeddings.embed_documents([text, "a table"])):
            assert len(vector) == expected > 0
            assert all(map(math.isfinite, vector))

    def test_a_text_has_the_same_vector_alone_and_among_others(self, embeddings: Embeddings) -> None:
        texts = ["a table by the window", "", "wine"]
        together = embeddings.embed_documents(texts)
        for text, vector in zip(texts, together, strict=True):
            assert embeddings.embed_documents([text])[0] == pytest.approx(vector, abs=1e-4)

    def test_it_says_who_receives_the_texts(self, embeddings: Embeddings) -> None:
        said = getattr(embeddings, "principal", embeddings)
        assert said is None or isinstance(said, Principal)

    def test_no_texts_have_no_vectors(self, embeddings: Embeddings) -> None:
        assert embeddings.embed_documents([]) == []

    def test_a_question_is_nearer_to_its_answer_than_to_something_else(self, embeddings: Embeddings) -> None:
        question = embeddings.embed_query("Which wine goes with fish?")
        answer, other = embeddings.embed_documents(
            ["With fish we pour a white wine.", "The printer on the second floor is out of paper."]
        )
        assert _cosine(question, answer) > _cosine(question, other)


def _cosine(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))
