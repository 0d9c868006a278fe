"""What follows a search: copies left out, other wordings, and stages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from ringwall.data import (
    Chunk,
    Condition,
    Decay,
    Ingestor,
    Match,
    MemoryStore,
    Mmr,
    Neighbours,
    Passage,
    Rerank,
    Retriever,
    Scalar,
    Trail,
)
from ringwall.errors import InvalidInput
from ringwall.principal import ACL, PUBLIC, Principal

ANA = Principal.user("ana").vouched_grants
OPEN, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")


class Heard(Trail):
    def __init__(self) -> None:
        self.stages: list[tuple[str, list[str]]] = []

    def note(self, stage: str, matches: Sequence[Match]) -> None:
        self.stages.append((stage, [match.chunk.id for match in matches]))


def chunk(id: str, text: str, vector: tuple[float, ...] | None = None, readers: ACL = OPEN, **more: Scalar) -> Chunk:
    return Chunk(id, id.partition("#")[0], text, readers, end=len(text), vector=vector, metadata=more)


async def filled(*chunks: Chunk) -> MemoryStore:
    store = MemoryStore()
    await store.upsert(chunks)
    return store


def ids(matches: Sequence[Match]) -> list[str]:
    return [match.chunk.id for match in matches]


async def test_copies_of_a_passage_take_one_place() -> None:
    store = await filled(*(chunk(f"copy {n}", "trout  trout\nlake") for n in range(8)), chunk("other", "trout pond"))
    assert ids(await Retriever(store).retrieve("trout", ANA, 2)) == ["copy 0", "other"]


async def test_a_hidden_copy_takes_no_place_of_a_readable_one() -> None:
    store = await filled(chunk("a", "trout", readers=STAFF), chunk("b", "trout"))
    assert ids(await Retriever(store).retrieve("trout", ANA)) == ["b"]


async def test_other_wordings_are_searched_for_too() -> None:
    async def rewriter(question: str) -> list[str]:
        return ["pike", question]

    store, heard = await filled(chunk("a", "trout"), chunk("b", "pike"), chunk("c", "eel")), Heard()
    retriever = Retriever(store, trail=heard)
    assert ids(await retriever.retrieve("trout", ANA, rewriter=rewriter)) == ["a", "b"]
    assert heard.stages == [("rewriter", ["a", "b"])]


async def test_conditions_reach_the_store() -> None:
    store = await filled(chunk("a", "trout", year=2023), chunk("b", "trout", year=2024))
    assert ids(await Retriever(store).retrieve("trout", ANA, where=(Condition("year", ">", 2023),))) == ["b"]


async def test_a_reranker_sees_the_candidates_and_decides() -> None:
    class Shortest:
        principal = None

        def scores(self, question: str, texts: Sequence[str]) -> list[float]:
            return [-len(text) for text in texts]

    store, heard = await filled(chunk("a", "trout trout pond"), chunk("b", "trout"), chunk("c", "trout lake")), Heard()
    found = await Retriever(store, trail=heard).retrieve("trout", ANA, 2, fetch=10, stages=[Rerank(Shortest())])
    assert ids(found) == ["b", "c"]
    assert heard.stages == [("Rerank", ["b", "c", "a"])]


@pytest.mark.parametrize("vectors", [True, False])
async def test_what_says_the_same_is_left_out_for_what_says_something_else(*, vectors: bool) -> None:
    texts = {"a": "trout pond blue", "b": "trout pond blue.", "c": "trout recipe"}
    at = {"a": (1.0, 0.0), "b": (1.0, 0.01), "c": (0.6, 0.8)}
    store = await filled(*(chunk(id, text, at[id] if vectors else None) for id, text in texts.items()))
    assert ids(await Retriever(store).retrieve("trout pond", ANA, 2, fetch=3)) == ["a", "b"]
    assert ids(await Retriever(store).retrieve("trout pond", ANA, 2, fetch=3, stages=[Mmr(0.7)])) == ["a", "c"]
    assert ids(await Retriever(store).retrieve("trout pond", ANA, 2, fetch=3, stages=[Mmr(0.0)])) == ["a", "b"]


async def test_a_passage_is_widened_by_its_neighbours_with_the_same_readers() -> None:
    def in_words(text: str) -> list[Passage]:
        return [Passage(w, text.index(w), text.index(w) + len(w)) for w in text.split()]

    store = MemoryStore()
    await Ingestor(store, splitter=in_words).ingest([("doc", "one two three four five six")], OPEN)
    (hidden,) = await store.get(["doc#3"], ANA)
    await store.upsert([hidden.read_by(STAFF)])
    retriever = Retriever(store)
    (wide,) = await retriever.retrieve("two", ANA, stages=[Neighbours()])
    assert (wide.chunk.text, wide.chunk.start, wide.chunk.end) == ("one\ntwo\nthree", 0, 13)
    (cut,) = await retriever.retrieve("three", ANA, stages=[Neighbours(before=1, after=3)])
    assert cut.chunk.text == "two\nthree"
    both = await retriever.retrieve("five six", ANA, stages=[Neighbours()])
    assert [match.chunk.text for match in both] == ["five\nsix"]


async def test_overlapping_neighbours_hold_each_character_once() -> None:
    text = "# Fish\n\n" + " ".join(f"Sentence {n} about trout." for n in range(60))
    store = MemoryStore()
    await Ingestor(store).ingest([("doc", text)], OPEN)
    (wide,) = await Retriever(store).retrieve("sentence 25", ANA, 1, stages=[Neighbours(before=9, after=9)])
    assert wide.chunk.text == text


async def test_what_is_old_counts_less() -> None:
    store = await filled(
        chunk("old", "trout trout", date="2020-01-01"),
        chunk("new", "trout pond", date=datetime(2024, 1, 1, tzinfo=UTC).timestamp()),
        chunk("undated", "trout lake pond"),
        chunk("odd", "trout one two three", date="soon"),
    )
    decay = Decay("date", days=30, now=lambda: datetime(2024, 1, 2, tzinfo=UTC))
    found = await Retriever(store).retrieve("trout", ANA, stages=[decay])
    assert ids(found) == ["new", "undated", "odd", "old"]


@pytest.mark.parametrize("make", [lambda: Mmr(1.5), lambda: Decay("date", days=0)])
def test_a_stage_that_means_nothing_is_refused(make: object) -> None:
    with pytest.raises(InvalidInput):
        make()  # type: ignore[operator]


async def test_passages_know_their_page() -> None:
    from langchain_core.documents import Document

    store = MemoryStore()
    document = Document(id="a.pdf", page_content="one two\nthree", metadata={"pages": "[0, 8]", "title": "T"})
    words = lambda text: [Passage(w, text.index(w), text.index(w) + len(w)) for w in text.split()]  # noqa: E731
    await Ingestor(store, splitter=words).ingest([document], OPEN)
    found = await store.get(["a.pdf#0", "a.pdf#1", "a.pdf#2"], ANA)
    assert [dict(c.metadata) for c in found] == [{"title": "T", "page": p} for p in (1, 1, 2)]
