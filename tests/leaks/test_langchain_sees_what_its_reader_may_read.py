"""Through LangChain's faces too: whatever is written, relabelled and deleted, a reader sees and touches what it may."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import ACL
from ringwall.data import Chunk, StoreOfRecord
from ringwall.errors import InvalidInput
from ringwall.principal import PUBLIC, Grants
from ringwall.vectorstore import RingwallRetriever, RingwallVectorStore
from tests.leaks.stores import STORES, Digests
from tests.leaks.world import CLUBS, Secret, Words, shown_forms, words_in, words_of

EVERYBODY: Final[Grants] = frozenset((PUBLIC, "user:ana", *CLUBS))
PLACES: Final = 4
QUESTION: Final = "which wine is there"
EMBEDDINGS: Final = Digests()


@dataclass(frozen=True)
class Ingest:
    """The deployer writes a document, in the place of what was there."""

    place: int
    readers: frozenset[str]


@dataclass(frozen=True)
class Relabel:
    """The deployer gives a document other readers."""

    place: int
    readers: frozenset[str]


@dataclass(frozen=True)
class Remove:
    """The deployer deletes a document."""

    place: int


@dataclass(frozen=True)
class Add:
    """The reader writes a text, under an id of its own choice or none."""

    place: int | None


@dataclass(frozen=True)
class Delete:
    """The reader deletes by ids, whatever they are of."""

    places: tuple[int, ...]


Action = Ingest | Relabel | Remove | Add | Delete

_places = st.integers(0, PLACES - 1)
_readers = st.frozensets(st.sampled_from(sorted(EVERYBODY)), min_size=1, max_size=2)
_actions: st.SearchStrategy[Action] = st.one_of(
    st.builds(Ingest, _places, _readers),
    st.builds(Relabel, _places, _readers),
    st.builds(Remove, _places),
    st.builds(Add, st.none() | _places),
    st.builds(Delete, st.lists(_places, max_size=2).map(tuple)),
)


@pytest.mark.parametrize("store", STORES)
def test_a_reader_sees_all_that_it_may_read_and_nothing_else_and_touches_nothing_else(store: str) -> None:
    kind = STORES[store]

    @settings(max_examples=kind.examples(of=100), deadline=None)
    @given(
        readable=st.frozensets(st.sampled_from(sorted(EVERYBODY))),
        writes_for=_readers,
        first=st.lists(_readers, max_size=PLACES),
        actions=st.lists(_actions, min_size=1, max_size=6),
    )
    def holds(readable: Grants, writes_for: frozenset[str], first: list[frozenset[str]], actions: list[Action]) -> None:
        begun = [Ingest(place, readers) for place, readers in enumerate(first)]
        with kind.opened() as documents:
            asyncio.run(live([*begun, *actions], Shelf(documents, readable, writes_for)))

    holds()


async def live(actions: Iterable[Action], shelf: Shelf) -> None:
    for action in actions:
        match action:
            case Ingest():
                await shelf.ingest(action)
            case Relabel():
                await shelf.relabel(action)
            case Remove():
                await shelf.remove(action)
            case Add():
                await shelf.add(action)
            case Delete():
                await shelf.delete(action)
        await shelf.check()
    await shelf.documents.close()


class Shelf:
    """A store, what it should hold by id, and one reader's faces of it."""

    def __init__(self, documents: StoreOfRecord, readable: Grants, writes_for: frozenset[str]) -> None:
        self.documents, self.readable, self.writes_for = documents, readable, writes_for
        self.face = RingwallVectorStore(documents, EMBEDDINGS, readable=readable, readers=ACL(writes_for))
        self.held: dict[str, Secret] = {}
        self.ids = [f"{place}.md" for place in range(PLACES)]
        self.written = 0

    def secret(self, readers: frozenset[str]) -> Secret:
        self.written += 1
        return Secret(f"secret-{self.written}", readers, "")

    @property
    def visible(self) -> Mapping[str, Secret]:
        return {id: secret for id, secret in self.held.items() if secret.readers & self.readable}

    async def ingest(self, action: Ingest) -> None:
        id, secret = self.ids[action.place], self.secret(action.readers)
        vector = tuple(EMBEDDINGS.embed_query(secret.text))
        chunk = Chunk(id, id, secret.text, secret.acl, end=len(secret.text), vector=vector, metadata={"id": id})
        await self.documents.replace([id], [chunk])
        self.held[id] = secret

    async def relabel(self, action: Relabel) -> None:
        id = self.ids[action.place]
        await self.documents.set_readers([id], ACL(action.readers))
        if id in self.held:
            self.held[id] = replace(self.held[id], readers=action.readers)

    async def remove(self, action: Remove) -> None:
        await self.documents.delete([self.ids[action.place]])
        self.held.pop(self.ids[action.place], None)

    async def add(self, action: Add) -> None:
        id, secret = None if action.place is None else self.ids[action.place], self.secret(self.writes_for)
        described = [{"id": id or "new"}]
        if id is None or id in self.visible:
            ids = None if id is None else [id]
            (id,) = await self.face.aadd_texts([secret.text], described, ids=ids)
            self.held[id] = secret
            return
        with pytest.raises(InvalidInput) as refused:
            await self.face.aadd_texts([secret.text], described, ids=[id])
        assert words_in(*shown_forms(refused.value)) <= {secret.word}

    async def delete(self, action: Delete) -> None:
        ids = [self.ids[place] for place in action.places]
        gone = self.visible.keys() & ids
        await self.face.adelete(ids)
        self.held = {id: secret for id, secret in self.held.items() if id not in gone}

    async def check(self) -> None:
        expected = words_of(self.visible.values())
        for seen in await self.looked_everywhere():
            assert seen == expected
        assert len(await self.face.asimilarity_search(QUESTION, k=1)) == min(1, len(expected))
        for id in self.ids:
            own = [self.visible[id]] if id in self.visible else []
            assert words_in(await self.face.asimilarity_search(QUESTION, k=99, filter={"id": id})) == words_of(own)
        kept = await self.documents.get([*self.held, *self.ids], EVERYBODY)
        assert {(chunk.id, chunk.text, chunk.readers) for chunk in kept} == {
            (id, secret.text, secret.acl) for id, secret in self.held.items()
        }

    async def looked_everywhere(self) -> list[Words]:
        """What each door shows of everything that it can be asked for."""
        face, vector = self.face, EMBEDDINGS.embed_query(QUESTION)
        by_words = RingwallRetriever(store=self.documents, readable=self.readable, k=99)
        by_both = RingwallRetriever(store=self.documents, readable=self.readable, embeddings=EMBEDDINGS, k=99)
        return [
            words_in(await face.asimilarity_search(QUESTION, k=99)),
            words_in(await face.asimilarity_search_with_score(QUESTION, k=99)),
            words_in(await face.asimilarity_search_by_vector(vector, k=99)),
            words_in(await face.aget_by_ids([*self.held, *self.ids])),
            words_in(await face.as_retriever(search_kwargs={"k": 99}).ainvoke(QUESTION)),
            words_in(await by_words.ainvoke(QUESTION)),
            words_in(await by_both.ainvoke(QUESTION)),
            words_in(await asyncio.to_thread(face.similarity_search, QUESTION, k=99)),
            words_in(await asyncio.to_thread(face.get_by_ids, [*self.held, *self.ids])),
        ]
