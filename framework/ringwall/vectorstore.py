"""Document stores as LangChain sees them: a `VectorStore` to fill and search, and a `BaseRetriever`.

Each is bound to one reader: what that reader may not read is not there.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict

from ringwall.data.admit import Readers, admit
from ringwall.data.base import Chunk, Condition, DocumentStore, Query, Scalar
from ringwall.data.base import Embeddings as EmbeddingsLike
from ringwall.data.memory import MemoryStore
from ringwall.data.receiving import PUBLIC_ONLY, check_may_embed, nobody_said, receiver_of
from ringwall.data.retrieve import Retriever
from ringwall.deployment.gates import QUESTIONS
from ringwall.door import Door
from ringwall.errors import InvalidInput
from ringwall.principal import PUBLIC, Grants, Principal


class RingwallVectorStore(VectorStore):
    """A `DocumentStore` as LangChain's `VectorStore`, for whoever holds `readable`.

    What is added has the `readers` given here, as in `App.ingest`: an ACL, or a function that says it of each
    document. Each text is one chunk, stored as it is: split it first. `filter` is a mapping of metadata that must
    be equal. Every search gives the chunk's text, metadata and id.

    Who writes may replace what the reader may read, by its id; what is new gets an id here. An id that is hidden and
    one that nobody has are refused alike, so that nothing hidden is overwritten, found out or waited for under its
    name. `chooses_ids` gives that up: ids are taken as they are and replace whatever has them, as the deployer's
    ingestion does. It is for who may write anything, and for `langchain.indexes.index`, which makes its own ids.

    There is no run and no policy here: `readable` is what it was when this was made, so make it anew when a policy
    changes, and give it to nobody else.

    An embedder elsewhere is sent what somebody who holds `embedder_holds` may read, and questions if
    `collection:questions` is among it; anything else is a `FlowDenied`.
    """

    def __init__(
        self,
        store: DocumentStore,
        embeddings: EmbeddingsLike,
        *,
        readable: Grants,
        readers: Readers = None,
        chooses_ids: bool = False,
        embedder_holds: Grants = PUBLIC_ONLY,
    ) -> None:
        self._store, self._embeddings, self._readable, self._readers = store, embeddings, readable, readers
        self._chooses_ids, self._embedder_holds = chooses_ids, embedder_holds
        self._door = Door()

    @property
    def embeddings(self) -> Embeddings | None:
        return self._embeddings if isinstance(self._embeddings, Embeddings) else None

    async def aadd_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        given = kwargs.get("ids") or [document.id for document in documents]
        ids = [id or uuid.uuid4().hex for id in given]
        if len(ids) != len(documents):
            raise InvalidInput(f"{len(ids)} ids for {len(documents)} documents", expected="one id for each")
        await self._check_chosen([id for id in given if id])
        chunks = [self._chunk(id, document) for id, document in zip(ids, documents, strict=True)]
        texts = [chunk.text for chunk in chunks]
        vectors = map(tuple, await asyncio.to_thread(self._embeddings.embed_documents, texts))
        rows = zip(chunks, vectors, strict=True)
        await self._store.upsert([replace(chunk, vector=vector) for chunk, vector in rows])
        return ids

    async def aadd_texts(self, texts: Iterable[str], metadatas: list[dict[Any, Any]] | None = None, *,
                         ids: list[str] | None = None, **kwargs: Any) -> list[str]:  # fmt: skip
        all_texts = list(texts)
        described = metadatas or [{} for _ in all_texts]
        documents = [Document(page_content=t, metadata=m) for t, m in zip(all_texts, described, strict=True)]
        return await self.aadd_documents(documents, ids=ids)

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        """Delete what has these ids and the reader may read, with the documents it is of; the rest stays untold."""
        if ids is None:
            raise InvalidInput("delete without ids", hint="say which to delete: `delete([...])`")
        found = await self._store.get(ids, self._readable)
        await self._store.delete([chunk.document for chunk in found])
        return True

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        return [_document(chunk) for chunk in await self._store.get(ids, self._readable)]

    async def asimilarity_search_with_score(self, *args: Any, **kwargs: Any) -> list[tuple[Document, float]]:
        """Documents with their scores; a higher one is better."""
        return await self._scored(*args, **kwargs)

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return [document for document, _ in await self._scored(query, k, **kwargs)]

    async def asimilarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        query = Query("", tuple(embedding), _conditions(kwargs.get("filter")))
        return [_document(match.chunk) for match in await self._store.search(query, self._readable, k)]

    # The same from plain code

    def add_documents(self, documents: list[Document], **kwargs: Any) -> list[str]:
        return self._door.run(self.aadd_documents(documents, **kwargs))

    def add_texts(self, texts: Iterable[str], metadatas: list[dict[Any, Any]] | None = None, *,
                  ids: list[str] | None = None, **kwargs: Any) -> list[str]:  # fmt: skip
        return self._door.run(self.aadd_texts(texts, metadatas, ids=ids, **kwargs))

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool:
        return self._door.run(self.adelete(ids))

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        return self._door.run(self.aget_by_ids(ids))

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        return self._door.run(self.asimilarity_search(query, k, **kwargs))

    def similarity_search_with_score(self, *args: Any, **kwargs: Any) -> list[tuple[Document, float]]:
        return self._door.run(self._scored(*args, **kwargs))

    def similarity_search_by_vector(self, embedding: list[float], k: int = 4, **kwargs: Any) -> list[Document]:
        return self._door.run(self.asimilarity_search_by_vector(embedding, k, **kwargs))

    @classmethod
    def from_texts(
        cls, texts: list[str], embedding: EmbeddingsLike, metadatas: list[dict[Any, Any]] | None = None, *,
        ids: list[str] | None = None, store: DocumentStore | None = None,
        readable: Grants = frozenset((PUBLIC,)), readers: Readers = None, chooses_ids: bool = False,
        embedder_holds: Grants = PUBLIC_ONLY, **kwargs: Any,
    ) -> Self:  # fmt: skip
        """A store filled with `texts`, in memory unless `store` is given. Raises `DocumentWithoutReaders`."""
        filled = cls(
            store or MemoryStore(),
            embedding,
            readable=readable,
            readers=readers,
            chooses_ids=chooses_ids or not store,
            embedder_holds=embedder_holds,
        )
        filled.add_texts(texts, metadatas, ids=ids)
        return filled

    async def _check_chosen(self, ids: Sequence[str]) -> None:
        if self._chooses_ids or not ids:
            return
        known = {chunk.id for chunk in await self._store.get(ids, self._readable)}
        if any(id not in known for id in ids):
            raise InvalidInput(
                "an id of which the reader may read nothing",
                expected="ids of what the reader may read: it is replaced",
                hint="leave out ids of what is new, or make this with `chooses_ids=True` for who may write anything",
            )

    async def _scored(self, query: str, k: int = 4, **kwargs: Any) -> list[tuple[Document, float]]:
        if (receiver := receiver_of(self._embeddings)) is not None:
            await _Holding(self._embedder_holds)(receiver, (query,))
        vector = tuple(await asyncio.to_thread(self._embeddings.embed_query, query))
        asked = Query(query, vector, _conditions(kwargs.get("filter")))
        matches = await self._store.search(asked, self._readable, k)
        return [(_document(match.chunk), match.score) for match in matches]

    def _chunk(self, id: str, document: Document) -> Chunk:
        """A document as it is stored, once it is known that it may be embedded."""
        admitted = admit(document, id, self._readers, "")
        check_may_embed(self._embeddings, admitted.readers, self._embedder_holds, id)
        return Chunk(
            id,
            admitted.name,
            admitted.text,
            admitted.readers,
            end=len(admitted.text),
            metadata=admitted.metadata,
        )


class RingwallRetriever(BaseRetriever):
    """What somebody who holds `readable` finds in a store, as a LangChain retriever of at most `k` documents.

    An embedder elsewhere is sent questions only if `collection:questions` is in `embedder_holds`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    store: DocumentStore
    readable: Grants
    embeddings: EmbeddingsLike | None = None
    embedder_holds: Grants = PUBLIC_ONLY
    k: int = 4

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return await self._found(query, k)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        door = Door()
        try:
            return door.run(self._found(query, k))
        finally:
            door.close()

    async def _found(self, query: str, k: int | None) -> list[Document]:
        retriever = Retriever(self.store, self.embeddings, may_receive=_Holding(self.embedder_holds))
        return [_document(m.chunk) for m in await retriever.retrieve(query, self.readable, k or self.k)]


class _Holding:
    """Lets a question out to an embedder that holds this."""

    def __init__(self, grants: Grants) -> None:
        self._grants = grants

    async def __call__(self, receiver: Principal, texts: Sequence[str]) -> bool:
        return QUESTIONS in self._grants or await nobody_said(receiver, texts)


def _document(chunk: Chunk) -> Document:
    return Document(id=chunk.id, page_content=chunk.text, metadata=dict(chunk.metadata))


def _conditions(filter: dict[str, Scalar] | None) -> tuple[Condition, ...]:
    if not isinstance(filter or {}, dict):
        raise InvalidInput(f"the filter {filter!r}", expected="a mapping of metadata that must be equal")
    return tuple(Condition(key, "==", value) for key, value in (filter or {}).items())
