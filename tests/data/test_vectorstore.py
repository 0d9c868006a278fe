"""Our stores as LangChain sees them: its own standard tests, and what a reader must not see through that face."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from ringwall.data import DocumentStore, InProcess, MemoryStore
from ringwall.deployment.gates import QUESTIONS
from ringwall.errors import DocumentWithoutReaders, FlowDenied, InvalidInput
from ringwall.principal import ACL, PUBLIC
from ringwall.vectorstore import RingwallRetriever, RingwallVectorStore
from ringwall_chroma import ChromaStore
from ringwall_index import Indexed
from ringwall_sql import SqlDocuments

READER = frozenset((PUBLIC,))
OPEN, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")


class Here(DeterministicFakeEmbedding):
    principal: ClassVar[None] = None


class Standard(VectorStoreIntegrationTests):
    """LangChain's tests on a store in its `VectorStore` face."""

    def store(self, folder: Path) -> DocumentStore:
        raise NotImplementedError

    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        store = self.store(tmp_path)
        embeddings = InProcess(self.get_embeddings())
        yield RingwallVectorStore(store, embeddings, readable=READER, readers=OPEN, chooses_ids=True)
        asyncio.run(store.close())


class TestMemoryStore(Standard):
    def store(self, folder: Path) -> DocumentStore:
        return MemoryStore()


class TestChromaStore(Standard):
    def store(self, folder: Path) -> DocumentStore:
        return ChromaStore(folder)


class TestSqlDocuments(Standard):
    def store(self, folder: Path) -> DocumentStore:
        return SqlDocuments(folder / "documents.db")


class TestIndexed(Standard):
    def store(self, folder: Path) -> DocumentStore:
        return Indexed(MemoryStore())


class TestRetriever(RetrieversIntegrationTests):
    @property
    def retriever_constructor(self) -> type[RingwallRetriever]:
        return RingwallRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        embeddings = Here(size=4)
        texts = [f"trout {n}" for n in range(9)]
        filled = RingwallVectorStore.from_texts(texts, embeddings, store=(store := MemoryStore()), readers=OPEN)
        assert filled.embeddings is embeddings
        return {"store": store, "readable": READER, "embeddings": embeddings}

    @property
    def retriever_query_example(self) -> str:
        return "trout"


@pytest.fixture
def shared() -> tuple[RingwallVectorStore, RingwallVectorStore]:
    """One store, seen by its keeper and by the public."""
    store, embeddings = MemoryStore(), Here(size=4)
    everything = frozenset(("role:staff", PUBLIC))
    keeper = RingwallVectorStore(store, embeddings, readable=everything, readers=STAFF, chooses_ids=True)
    return keeper, RingwallVectorStore(store, embeddings, readable=READER, readers=OPEN)


def test_what_a_reader_may_not_read_is_not_there(shared: tuple[RingwallVectorStore, RingwallVectorStore]) -> None:
    keeper, public = shared
    keeper.add_texts(["trout"], ids=["secret"])
    (open_,) = public.add_texts(["pike"])
    assert [d.id for d in public.similarity_search("trout", k=5)] == [open_]
    assert [d.id for d in public.similarity_search_by_vector([1.0, 0.0, 0.0, 0.0], k=5)] == [open_]
    assert public.get_by_ids(["secret", open_]) == keeper.get_by_ids([open_])
    public.delete(["secret"])
    assert [d.id for d in keeper.get_by_ids(["secret"])] == ["secret"]


def test_who_writes_replaces_what_it_may_read_and_learns_of_no_other_id(
    shared: tuple[RingwallVectorStore, RingwallVectorStore],
) -> None:
    keeper, public = shared
    keeper.add_texts(["trout"], ids=["secret"])
    (open_,) = public.add_texts(["pike"])
    assert public.add_texts(["perch"], ids=[open_]) == [open_]
    assert [d.page_content for d in public.get_by_ids([open_])] == ["perch"]
    refusals = []
    for id in "secret", "nobody's":
        with pytest.raises(InvalidInput, match="may read nothing") as refused:
            public.add_texts(["carp", "carp"], ids=[open_, id])
        refusals.append(str(refused.value))
    assert len(set(refusals)) == 1
    assert [d.page_content for d in keeper.get_by_ids(["secret", open_])] == ["trout", "perch"]


def test_only_equal_metadata_passes_a_filter(shared: tuple[RingwallVectorStore, RingwallVectorStore]) -> None:
    _, public = shared
    _, second = public.add_documents([Document("trout", metadata={"year": year}) for year in (1, 2)])
    assert [d.id for d, _ in public.similarity_search_with_score("trout", k=5, filter={"year": 2})] == [second]
    with pytest.raises(InvalidInput, match="filter"):
        public.similarity_search("trout", filter=lambda document: True)


def test_nothing_is_added_without_readers() -> None:
    with pytest.raises(DocumentWithoutReaders):
        RingwallVectorStore.from_texts(["trout"], Here(size=4))


async def test_an_embedder_that_does_not_say_where_it_is_receives_what_it_was_given_the_right_to() -> None:
    class Elsewhere(DeterministicFakeEmbedding):
        sent: ClassVar[list[str]] = []

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            self.sent.extend(texts)
            return super().embed_documents(texts)

        def embed_query(self, text: str) -> list[float]:
            self.sent.append(text)
            return super().embed_query(text)

    store, elsewhere = MemoryStore(), Elsewhere(size=4)
    closed = RingwallVectorStore(store, elsewhere, readable=READER, readers=STAFF, chooses_ids=True)
    with pytest.raises(FlowDenied, match="embedder:Elsewhere may not receive document 'secret'"):
        await closed.aadd_texts(["trout"], ids=["secret"])
    for ask in (
        closed.asimilarity_search,
        RingwallRetriever(store=store, readable=READER, embeddings=elsewhere).ainvoke,
    ):
        with pytest.raises(FlowDenied, match="nobody said that embedder:Elsewhere"):
            await ask("who is laid off?")
    assert elsewhere.sent == []
    holds = frozenset((PUBLIC, "role:staff", QUESTIONS))
    opened = RingwallVectorStore(
        store, elsewhere, readable=holds, readers=STAFF, embedder_holds=holds, chooses_ids=True
    )
    await opened.aadd_texts(["trout"], ids=["secret"])
    assert [d.id for d in await opened.asimilarity_search("pike")] == ["secret"]
    retriever = RingwallRetriever(store=store, readable=holds, embeddings=elsewhere, embedder_holds=holds)
    assert [d.id for d in await retriever.ainvoke("eel")] == ["secret"]
    assert elsewhere.sent == ["trout", "pike", "eel"]


def test_nothing_is_deleted_without_ids(shared: tuple[RingwallVectorStore, RingwallVectorStore]) -> None:
    with pytest.raises(InvalidInput, match="ids"):
        shared[0].delete()
