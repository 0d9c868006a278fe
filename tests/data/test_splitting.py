"""Splitting: passages that stand where they say, cut where an author would."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.documents import Document

from ringwall.data import ByKind, Ingestor, MemoryStore, Passage, Query, split
from ringwall.errors import InvalidInput
from ringwall.principal import ACL, PUBLIC

OPEN = ACL.of(PUBLIC)
texts = st.lists(st.sampled_from(["word", "é😀", "#", "\n", "\n\n", ". ", " ", "\t", "x" * 50]), max_size=60).map(
    "".join
)


@example(text="\n\né😀\nword", size=8, overlap=4)
@given(text=texts | st.text(), size=st.integers(1, 60), overlap=st.integers(0, 30))
def test_passages_cover_the_text_in_order_within_the_size(text: str, size: int, overlap: int) -> None:
    overlap = min(overlap, size // 2)
    passages = split(text, size, overlap)
    covered = set[int]()
    for passage in passages:
        assert text[passage.start : passage.end] == passage.text == passage.text.strip() != ""
        assert len(passage.text) <= size
        covered |= set(range(passage.start, passage.end))
    assert [p.start for p in passages] == sorted({p.start for p in passages})
    assert all(at in covered or char.isspace() for at, char in enumerate(text))


def test_a_heading_begins_a_passage() -> None:
    text = "# Fish\n\nTrout and pike.\n\n# Wine\n\nRiesling, dry."
    assert [p.text for p in split(text, 40, 10)] == ["# Fish\n\nTrout and pike.", "# Wine\n\nRiesling, dry."]


def test_paragraphs_are_kept_whole_before_sentences_are() -> None:
    text = "One. Two. Three.\n\nFour. Five. Six."
    assert [p.text for p in split(text, 30, 0)] == ["One. Two. Three.", "Four. Five. Six."]


def test_a_passage_repeats_the_end_of_the_one_before_from_a_word_on() -> None:
    first, second = split("alpha beta gamma delta", 16, 8)
    assert (first.text, second.text) == ("alpha beta", "beta gamma delta")


@pytest.mark.parametrize("text", ["", " \n\t ", "\ufeff"[:0]])
def test_a_text_without_words_gives_no_passage(text: str) -> None:
    assert split(text) == []


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (10, 6), (10, -1)])
def test_sizes_that_cannot_be_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(InvalidInput, match="overlap"):
        split("text", size, overlap)


@pytest.mark.parametrize("unit", ["A sentence of some words. ", "x", "\n", "# "])
def test_ten_megabytes_are_split_into_passages_of_the_size(unit: str) -> None:
    passages = split(unit * (10_000_000 // len(unit)))
    assert all(len(passage.text) <= 1000 for passage in passages)


async def test_the_pieces_of_a_text_splitter_are_found_again_in_the_text() -> None:
    class Overlapping:
        def split_text(self, text: str) -> list[str]:
            return [text[at : at + 30].strip() for at in range(0, len(text), 20)]

    text = "Trout and pike. " * 20 + "Riesling, dry."
    store = MemoryStore()
    await Ingestor(store, splitter=Overlapping()).ingest([("menu", text)], OPEN)
    matches = await store.search(Query("trout riesling"), frozenset((PUBLIC,)), 50)
    assert len(matches) > 5
    assert all(text[m.chunk.start : m.chunk.end] == m.chunk.text for m in matches)
    assert len({m.chunk.start for m in matches}) == len(matches)


async def test_a_piece_that_a_splitter_rewrote_has_no_place() -> None:
    class Shouting:
        def split_text(self, text: str) -> list[str]:
            return [text.upper(), " "]

    store = MemoryStore()
    await Ingestor(store, splitter=Shouting()).ingest([("menu", "trout")], OPEN)
    (match,) = await store.search(Query("trout"), frozenset((PUBLIC,)), 5)
    assert (match.chunk.text, match.chunk.start, match.chunk.end) == ("TROUT", 0, 0)


async def test_a_function_is_a_splitter() -> None:
    def lines(text: str) -> list[Passage]:
        return [Passage(line, 0, 0) for line in text.splitlines()]

    report = await Ingestor(MemoryStore(), splitter=lines).ingest([("menu", "trout\npike")], OPEN)
    assert report.passages == 2


async def test_each_kind_of_document_has_its_splitter() -> None:
    class Lines:
        def split_text(self, text: str) -> list[str]:
            return text.split("\n")

    by_kind = ByKind({".py": Lines(), ".md": lambda text: []}, default=lambda text: split(text, 5, 0))
    documents = [("a/b.PY", "one two\nthree"), ("c.md", "one"), ("py", "one two"), ("d.py.txt", "three four five")]
    report = await Ingestor(MemoryStore(), splitter=by_kind).ingest(documents, OPEN, tenant="acme")
    assert [done.passages for done in report.ingested] == [2, 0, 2, 3]


async def test_what_a_splitter_says_of_a_passage_does_not_replace_what_its_document_says() -> None:
    def said(text: str) -> list[Passage]:
        return [Passage(text, 0, len(text), {"heading": "Menu", "title": "from the text"})]

    store = MemoryStore()
    await Ingestor(store, splitter=said).ingest([Document("trout", id="a", metadata={"title": "Fish"})], OPEN)
    (match,) = await store.search(Query("trout"), frozenset((PUBLIC,)), 5)
    assert match.chunk.metadata == {"heading": "Menu", "title": "Fish"}
