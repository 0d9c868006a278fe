"""Vectors kept by content: embedded once, by model, and never a question among them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ringwall.data import CachedEmbeddings, Embeddings
from ringwall.data.contract import EmbeddingsContract
from ringwall.errors import StoreError
from ringwall_wordllama import WordLlamaEmbeddings


class Counting:
    principal = None

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.asked.append(text)
        return [float(len(text)), 0.1]


class TestOverWordLlama(EmbeddingsContract):
    @pytest.fixture
    def embeddings(self, tmp_path: Path) -> Iterator[Embeddings]:
        with closing(CachedEmbeddings(WordLlamaEmbeddings(), tmp_path / "vectors.db", model="wordllama")) as cached:
            yield cached


def test_a_text_is_embedded_once_in_whatever_process_and_place(tmp_path: Path) -> None:
    inner = Counting()
    with closing(CachedEmbeddings(inner, tmp_path / "v.db", model="a")) as first:
        vectors = first.embed_documents(["trout", "pike", "trout"])
    with closing(CachedEmbeddings(inner, tmp_path / "v.db", model="a")) as again:
        assert again.embed_documents(["eel", "trout"])[1] == vectors[0] == vectors[2]
    assert sorted(inner.asked) == ["eel", "pike", "trout"]


def test_another_model_has_vectors_of_its_own(tmp_path: Path) -> None:
    inner = Counting()
    for model in ("a", "b"):
        with closing(CachedEmbeddings(inner, tmp_path / "v.db", model=model)) as cached:
            cached.embed_documents(["trout"])
    assert inner.asked == ["trout", "trout"]


def test_neither_a_question_nor_a_text_stands_in_the_file(tmp_path: Path) -> None:
    inner = Counting()
    with closing(CachedEmbeddings(inner, tmp_path / "v.db", model="a")) as cached:
        cached.embed_documents(["the trout of the house"])
        cached.embed_query("who was laid off")
        cached.embed_query("who was laid off")
    assert inner.asked.count("who was laid off") == 2
    with closing(sqlite3.connect(tmp_path / "v.db")) as database:
        assert database.execute("select count(*) from vectors").fetchone() == (1,)
    assert b"trout" not in (tmp_path / "v.db").read_bytes()


def test_a_damaged_cache_says_so(tmp_path: Path) -> None:
    (tmp_path / "v.db").write_bytes(b"no database " * 100)
    with pytest.raises(StoreError, match="delete it"):
        CachedEmbeddings(Counting(), tmp_path / "v.db", model="a")
