"""An embedder elsewhere is sent what it was given the right to, and one that does not say is taken to be elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from langchain_core.documents import Document

from ringwall.data import CachedEmbeddings, Chunk, Embeddings, Ingestor, InProcess, MemoryStore, Retriever, receiver_of
from ringwall.data.care import copy
from ringwall.errors import FlowDenied
from ringwall.principal import ACL, PUBLIC, Principal

FAR = Principal("embedder:far")
OPEN, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")
STAFF_GRANTS = frozenset((PUBLIC, "role:staff"))
DOCUMENTS = [("menu", "trout"), ("wages", "the cook earns little")]


class Silent:
    """Takes down what it is sent, and does not say where it is."""

    def __init__(self) -> None:
        self.sent: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.sent.append(text)
        return [1.0, float(len(text))]


class Far(Silent):
    principal = FAR


class Hiding(Far):
    """A wrapper that forgot what the one inside says."""

    principal = "far"  # type: ignore[assignment]


def wages_are_for_staff(document: Document) -> ACL:
    return STAFF if document.id == "wages" else OPEN


@pytest.mark.parametrize(
    ("part", "receiver"), [(Far(), FAR), (Silent(), Principal("embedder:Silent")), (InProcess(Silent()), None)]
)
def test_who_receives_is_what_is_said_and_at_worst_somebody_unknown(
    part: Embeddings, receiver: Principal | None
) -> None:
    assert receiver_of(part) == receiver


@pytest.mark.parametrize("inner", [Far(), Silent(), InProcess(Silent())])
@pytest.mark.parametrize("wrap", [lambda inner: CachedEmbeddings(inner, ":memory:", model="m")])
def test_a_wrapper_says_what_the_one_inside_says(
    wrap: Callable[[Embeddings], CachedEmbeddings], inner: Embeddings
) -> None:
    wrapper = wrap(inner)
    assert receiver_of(wrapper) == receiver_of(inner)
    wrapper.close()


@pytest.mark.parametrize("embeddings", [Far(), Silent(), Hiding()])
async def test_what_it_may_not_read_is_refused_and_the_rest_goes_on(embeddings: Silent) -> None:
    store = MemoryStore()
    report = await Ingestor(store, embeddings).ingest(DOCUMENTS, wages_are_for_staff)
    assert [done.document for done in report.ingested] == ["menu"]
    (refused,) = report.refused
    assert (refused.document, type(refused.error)) == ("wages", FlowDenied)
    assert receiver_of(embeddings).id in str(refused.error)  # type: ignore[union-attr]
    assert embeddings.sent == ["trout"]


async def test_what_it_holds_it_is_sent() -> None:
    far = Far()
    report = await Ingestor(MemoryStore(), far, embedder_holds=STAFF_GRANTS).ingest(DOCUMENTS, wages_are_for_staff)
    assert len(report.ingested) == len(far.sent) == 2


async def test_without_embeddings_nobody_is_asked() -> None:
    assert not (await Ingestor(MemoryStore()).ingest(DOCUMENTS, STAFF)).refused


async def test_a_copy_sends_nothing_it_may_not() -> None:
    store, target, far = MemoryStore(), MemoryStore(), Far()
    await store.upsert([Chunk("wages#0", "wages", "little", STAFF), Chunk("menu#0", "menu", "trout", OPEN)])
    with pytest.raises(FlowDenied, match="embedder:far may not receive document 'wages'"):
        await copy(store, target, embeddings=far)
    assert far.sent == []
    assert await copy(store, target, embeddings=far, embedder_holds=STAFF_GRANTS) == 2
    assert sorted(far.sent) == ["little", "trout"]


async def test_a_retriever_alone_does_not_send_a_question_that_nobody_allowed() -> None:
    asked: list[tuple[str, tuple[str, ...]]] = []

    async def write_down(receiver: Principal, texts: Sequence[str]) -> bool:
        asked.append((receiver.id, tuple(texts)))
        return "trout" in texts

    store, far = MemoryStore(), Far()
    await Ingestor(store, far).ingest(DOCUMENTS[:1], OPEN)
    far.sent.clear()
    with pytest.raises(FlowDenied, match="nobody said that embedder:far"):
        await Retriever(store, far).retrieve("trout", STAFF_GRANTS)
    retriever = Retriever(store, far, may_receive=write_down)
    assert [m.chunk.document for m in await retriever.retrieve("trout", STAFF_GRANTS)] == ["menu"]
    assert await retriever.retrieve("pike", STAFF_GRANTS) == []
    assert (asked, far.sent) == ([("embedder:far", ("trout",)), ("embedder:far", ("pike",))], ["trout"])
