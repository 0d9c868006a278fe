"""The bridge to LangChain's vector stores: the contract over two of them, and none that cheats."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from chromadb.config import Settings
from langchain_chroma import Chroma
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore, VectorStore

from ringwall.bridge import Bridged, Filter, dictionary_filter, function_filter
from ringwall.data import Chunk, Condition, MemoryStore, Query, StoreOfRecord
from ringwall.data.contract import QUESTION, StoreOfRecordContract, chunk
from ringwall.errors import ConfigurationError, InvalidInput, StoreError
from ringwall.principal import ACL, PUBLIC, Grants

READER = frozenset((PUBLIC,))
OPEN, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")


def chroma(embeddings: Embeddings) -> Chroma:
    settings = Settings(anonymized_telemetry=False)
    return Chroma(f"c{uuid.uuid4().hex}", embeddings, client_settings=settings)


class Eager(Bridged):
    """Brings the vector store up to date before each search, so that it is the one that answers."""

    async def search(self, query: Query, readable: Grants, k: int) -> list:  # type: ignore[type-arg]
        if not await self._is_current():
            await self.build()
        return await super().search(query, readable, k)


def in_memory(
    vectors: Callable[[Embeddings], VectorStore] = InMemoryVectorStore, *, record: StoreOfRecord | None = None
) -> Eager:
    return Eager(record or MemoryStore(), vectors, filter=function_filter, dimension=3)


class TestInMemory(StoreOfRecordContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[StoreOfRecord]:
        store = in_memory()
        yield store
        await store.close()


class TestNotYetFilled(StoreOfRecordContract):
    """While the vector store is filled, the record itself answers."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[StoreOfRecord]:
        store = Bridged(MemoryStore(), InMemoryVectorStore, filter=function_filter, dimension=3)
        yield store
        await store.close()


class TestChroma(StoreOfRecordContract):
    @pytest.fixture
    async def store(self) -> AsyncIterator[StoreOfRecord]:
        store = Eager(MemoryStore(), chroma, filter=dictionary_filter, dimension=3)
        yield store
        await store.close()


async def ids(store: StoreOfRecord, readable: Grants = READER, k: int = 9, query: Query = QUESTION) -> set[str]:
    return {match.chunk.id for match in await store.search(query, readable, k)}


# ---- what cheats is not bridged


class IgnoresTheFilter(InMemoryVectorStore):
    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return await super().asimilarity_search(query, k)


class FiltersAfterwards(InMemoryVectorStore):
    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        found = await super().asimilarity_search(query, 20 * k)
        return [document for document in found if kwargs["filter"](document)][:k]


class TakesAnUnknownValueForNone(InMemoryVectorStore):
    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return await super().asimilarity_search(query, k, **kwargs) or await super().asimilarity_search(query, k)


class LetsPassWhatLacksTheKey(InMemoryVectorStore):
    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        def passes(document: Document) -> bool:
            return "ringwall_class" not in document.metadata or kwargs["filter"](document)

        return await super().asimilarity_search(query, k, filter=passes)


class AddsOnlyWhatIsNew(InMemoryVectorStore):
    async def aadd_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        new = [document for document in documents if document.id not in self.store]
        return await super().aadd_documents(new, **kwargs)


class KeepsTheOldVector(InMemoryVectorStore):
    async def aadd_documents(self, documents: list[Document], ids: list[str] | None = None, **kwargs: Any) -> list[str]:
        old = {id: row["vector"] for id, row in self.store.items()}
        added = await super().aadd_documents(documents, ids, **kwargs)
        for id in old.keys() & added:
            self.store[id]["vector"] = old[id]
        return added


class DeletesNothing(InMemoryVectorStore):
    async def adelete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> None:
        pass


class CannotDelete(InMemoryVectorStore):
    async def adelete(self, ids: Sequence[str] | None = None, **kwargs: Any) -> None:
        raise NotImplementedError


class TakesNoClassesForNoFilter(InMemoryVectorStore):
    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        classes = kwargs["filter"]["ringwall_class"]["$in"]
        return await super().asimilarity_search(query, k, **(function_filter(classes) if classes else {}))


CHEATS: dict[type[InMemoryVectorStore], str] = {
    IgnoresTheFilter: "returned rows of another",
    FiltersAfterwards: "of 5 permitted rows it found 0",
    TakesAnUnknownValueForNone: "a class that no row has found something",
    LetsPassWhatLacksTheKey: "without a class pass",
    AddsOnlyWhatIsNew: "found as it was before",
    KeepsTheOldVector: "found as it was before",
    DeletesNothing: "that were deleted are found",
    CannotDelete: "that were deleted are found",
    TakesNoClassesForNoFilter: "no class at all found something",
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat.__name__)
async def test_a_store_that_cheats_is_refused_by_name_whatever_is_done_first(
    cheat: type[InMemoryVectorStore],
) -> None:
    filter = dictionary_filter if cheat is TakesNoClassesForNoFilter else function_filter
    made: list[InMemoryVectorStore] = []

    def make(embeddings: Embeddings) -> VectorStore:
        made.append(cheat(embeddings))
        return made[0]

    record = MemoryStore()
    store = Bridged(record, make, filter=filter, dimension=3)
    for use in (
        lambda: store.check(),
        lambda: store.upsert([chunk("a", OPEN)]),
        lambda: store.search(QUESTION, READER, 5),
        lambda: store.build(),
    ):
        with pytest.raises(ConfigurationError, match=f"{cheat.__name__} cannot be bridged: .*{CHEATS[cheat]}"):
            await use()
    assert await ids(record) == set()
    assert not made[0].store or cheat in (DeletesNothing, CannotDelete)


@pytest.mark.parametrize("nothing", [{}, {"filter": None}, {"filter": {}}, {"filter": "", "k": 5}], ids=str)
async def test_an_empty_filter_is_never_sent(nothing: dict[str, Any]) -> None:
    class Fails(InMemoryVectorStore):
        async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
            raise AssertionError("it was sent")

    store = Bridged(MemoryStore(), Fails, filter=lambda classes: nothing, dimension=3)
    with pytest.raises(ConfigurationError, match="filter of Fails says nothing"):
        await store.check()


@pytest.mark.parametrize("dimension", [2, 256])
async def test_honest_stores_pass_in_any_dimension_and_keep_nothing_of_the_trial(dimension: int) -> None:
    in_memory: list[InMemoryVectorStore] = []
    in_chroma: list[Chroma] = []

    def make_in_memory(embeddings: Embeddings) -> VectorStore:
        in_memory.append(InMemoryVectorStore(embeddings))
        return in_memory[0]

    def make_in_chroma(embeddings: Embeddings) -> VectorStore:
        in_chroma.append(chroma(embeddings))
        return in_chroma[0]

    await Bridged(MemoryStore(), make_in_memory, filter=function_filter, dimension=dimension).check()
    await Bridged(MemoryStore(), make_in_chroma, filter=dictionary_filter, dimension=dimension).check()
    assert not in_memory[0].store
    assert not in_chroma[0].get()["ids"]


# ---- what breaks later leaks nothing


class Lies(InMemoryVectorStore):
    """Honest when it is tried, and not any more once it is told to lie."""

    lying = False
    asked: int = 0

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        self.asked += 1
        return await super().asimilarity_search(query, k, **({} if self.lying else kwargs))


class Seen:
    """A bridge over a store that is kept in sight."""

    def __init__(self, of: type[Lies] = Lies, filter: Filter = function_filter, **options: Any) -> None:
        self.record = MemoryStore()
        self.store = Eager(self.record, self.make, filter=filter, dimension=3, **options)

    def make(self, embeddings: Embeddings) -> VectorStore:
        self.vectors = Lies(embeddings)
        return self.vectors


async def test_a_row_from_outside_the_filter_fails_the_search_and_the_trust() -> None:
    seen = Seen()
    await seen.store.upsert([chunk("open", OPEN), chunk("staff's", STAFF)])
    assert await ids(seen.store) == {"open"}
    seen.vectors.lying = True
    with pytest.raises(StoreError, match="its filter excludes"):
        await seen.store.search(QUESTION, READER, 5)
    with pytest.raises(ConfigurationError, match="returned rows of another"):
        await seen.store.search(QUESTION, READER, 5)
    seen.vectors.lying = False
    assert await ids(seen.store) == {"open"}


async def test_a_row_whose_class_was_changed_behind_our_back_shows_nothing() -> None:
    seen = Seen()
    await seen.store.upsert([chunk("open", OPEN), chunk("staff's", STAFF)])
    assert await ids(seen.store) == {"open"}
    classes = {row["metadata"]["ringwall_class"] for row in seen.vectors.store.values()}
    assert len(classes) == 2
    for row in seen.vectors.store.values():
        row["metadata"]["ringwall_class"] = min(classes)
    assert await ids(seen.store) == {"open"}
    assert await ids(seen.store, frozenset(("role:staff",))) == {"staff's"}


async def test_who_may_read_nothing_costs_no_call() -> None:
    seen = Seen()
    await seen.store.upsert([chunk("staff's", STAFF)])
    await seen.store.build()
    before = seen.vectors.asked
    assert await ids(seen.store) == set()
    assert seen.vectors.asked == before
    assert await ids(seen.store, STAFF) == {"staff's"}
    assert seen.vectors.asked == before + 1


async def test_many_classes_go_in_several_calls() -> None:
    sent: list[int] = []

    def counted(classes: Sequence[str]) -> Any:
        sent.append(len(classes))
        return function_filter(classes)

    seen = Seen(filter=counted, classes_at_once=2)
    await seen.store.upsert([chunk(f"c{n}", ACL.of(f"collection:{n}", PUBLIC), "x") for n in range(5)])
    await seen.store.build()
    sent.clear()
    assert await ids(seen.store, query=Query("", (1.0, 0.0, 0.0))) == {f"c{n}" for n in range(5)}
    assert sent == [2, 2, 1]


async def test_the_vector_store_is_told_no_text_no_id_and_no_readers() -> None:
    seen = Seen()
    await seen.store.upsert([replace(chunk("hr/layoffs.md#0", STAFF, "we close the lake"), metadata={"year": 2024})])
    await seen.store.build()
    told = repr(seen.vectors.store)
    assert len(seen.vectors.store) == 1
    assert not any(word in told for word in ("hr", "layoffs", "lake", "staff", "2024"))


# ---- both together


async def test_ranks_are_those_of_the_store_in_memory_when_all_is_asked_for() -> None:
    texts = [f"trout {'lake ' * (n % 5)}{'pond ' * (n % 3)}number {n}" for n in range(60)]
    chunks = [
        Chunk(f"c{n:03}", f"d{n}", text, STAFF if n % 7 == 0 else OPEN, vector=(1.0, n % 11 / 10, n % 4 / 4))
        for n, text in enumerate(texts)
    ]
    seen = Seen()
    await seen.store.upsert(chunks)
    memory = MemoryStore()
    await memory.upsert(chunks)
    for query in (Query("trout in the lake", (1.0, 0.3, 0.5)), Query("pond 42"), Query("", (0.2, 1.0, 0.0))):
        expected = [(m.chunk.id, m.score) for m in await memory.search(query, READER, 60)]
        found = [(m.chunk.id, m.score) for m in await seen.store.search(query, READER, 60)]
        assert [id for id, _ in found] == [id for id, _ in expected]
        assert [score for _, score in found] == pytest.approx([score for _, score in expected], abs=1e-6)


async def test_where_the_vector_store_finds_fewer_than_there_are_the_record_answers() -> None:
    seen = Seen()
    await seen.store.upsert([replace(chunk(f"c{n}", OPEN, "x"), vector=(1.0, n / 10, 0.0)) for n in range(5)])
    await seen.store.build()
    seen.vectors.store.clear()
    assert await ids(seen.store, query=Query("", (1.0, 0.0, 0.0))) == {f"c{n}" for n in range(5)}


async def test_what_another_writes_into_the_record_is_found_and_what_it_hides_is_not() -> None:
    seen = Seen()
    await seen.store.upsert([chunk("a", OPEN), chunk("b", OPEN)])
    assert await ids(seen.store) == {"a", "b"}
    await seen.record.upsert([chunk("c", OPEN)])
    await seen.record.set_readers(["a"], STAFF)
    assert await Bridged.search(seen.store, QUESTION, READER, 9) == await seen.record.search(QUESTION, READER, 9)
    assert await ids(seen.store) == {"b", "c"}


async def test_a_vector_store_that_was_kept_is_brought_up_to_date_with_what_differs() -> None:
    seen = Seen()
    await seen.store.upsert([chunk("a", OPEN), chunk("b", OPEN), chunk("c", OPEN)])
    await seen.store.build()
    kept = {id: row.copy() for id, row in seen.vectors.store.items()}
    await seen.record.set_readers(["b"], STAFF)
    written: list[int] = []

    class Kept(InMemoryVectorStore):
        async def aadd_documents(self, documents: list[Document], *args: Any, **kwargs: Any) -> list[str]:
            written.append(len(documents))
            return await super().aadd_documents(documents, *args, **kwargs)

    def again(embeddings: Embeddings) -> VectorStore:
        vectors = Kept(embeddings)
        vectors.store = kept
        return vectors

    store = Bridged(seen.record, again, filter=function_filter, dimension=3)
    await store.check()
    written.clear()
    await store.build()
    assert written == [1]
    assert await ids(store) == {"a", "c"}


async def test_a_change_that_fails_halfway_is_looked_up_again() -> None:
    class Breaks(Lies):
        broken = False

        async def aadd_documents(self, documents: list[Document], *args: Any, **kwargs: Any) -> list[str]:
            if self.broken:
                raise ConnectionError("the secret line was cut")
            return await super().aadd_documents(documents, *args, **kwargs)

    made: list[Breaks] = []

    def make(embeddings: Embeddings) -> VectorStore:
        made.append(Breaks(embeddings))
        return made[0]

    store = Eager(MemoryStore(), make, filter=function_filter, dimension=3)
    await store.upsert([chunk("a", OPEN)])
    assert await ids(store) == {"a"}
    made[0].broken = True
    with pytest.raises(StoreError, match=r"Breaks could not write: ConnectionError$"):
        await store.upsert([chunk("b", OPEN)])
    assert await Bridged.search(store, QUESTION, READER, 1)
    made[0].broken = False
    assert await ids(store) == {"a", "b"}


async def test_a_chunk_that_loses_its_vector_is_found_by_its_words_alone() -> None:
    seen = Seen()
    await seen.store.upsert([chunk("a", OPEN)])
    await seen.store.build()
    await seen.store.upsert([replace(chunk("a", OPEN), vector=None)])
    assert not seen.vectors.store
    assert await ids(seen.store) == {"a"}
    assert await ids(seen.store, query=Query("", (1.0, 0.0, 0.0))) == set()


async def test_conditions_are_the_records_to_meet() -> None:
    seen = Seen()
    await seen.store.upsert([replace(chunk(str(year), OPEN), metadata={"year": year}) for year in (2023, 2024)])
    assert await ids(seen.store, query=replace(QUESTION, where=(Condition("year", ">", 2023),))) == {"2024"}


async def test_searches_go_on_while_documents_change() -> None:
    seen = Seen()
    store = seen.store
    await store.upsert([chunk(f"a{n}", OPEN) for n in range(20)])

    async def change() -> None:
        for n in range(20):
            await store.set_readers([f"a{n}"], STAFF)

    async def look() -> None:
        for _ in range(20):
            before = await store.revision()
            found = await ids(store, k=100)
            if before == await store.revision():
                assert found == {c.id for c in await store.get([f"a{n}" for n in range(20)], READER)}

    await asyncio.gather(change(), look(), look())
    assert await ids(store) == set()


async def test_a_record_with_vectors_of_another_size_is_refused() -> None:
    store = in_memory()
    with pytest.raises(InvalidInput, match="2 dimensions"):
        await store.upsert([replace(chunk("a", OPEN), vector=(1.0, 0.0))])
    record = MemoryStore()
    await record.upsert([replace(chunk("a", OPEN), vector=(1.0, 0.0))])
    with pytest.raises(InvalidInput, match="2 dimensions"):
        await in_memory(record=record).build()
