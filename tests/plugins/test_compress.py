"""Smaller vectors: what they are, whom they are said to go to, and what they find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ringwall.data import Chunk, Embeddings, Ingestor, Manifest
from ringwall.data.contract import EmbeddingsContract
from ringwall.errors import ConfigurationError, InvalidInput
from ringwall.principal import ACL, PUBLIC, Principal
from ringwall_compress import Matryoshka, Pca, Quantised
from ringwall_compress.wrapped import Wrapped
from ringwall_sql import SqlDocuments
from ringwall_wordllama import WordLlamaEmbeddings

Wrap = Callable[[Embeddings], Wrapped]

EVERYONE = ACL.of(PUBLIC)
HERBS = ("sage", "mint", "dill", "rue", "bay", "mace", "thyme")
PASSAGES = [f"{fish} with {herb} number {n}" for n in range(20) for fish in ("trout", "pike") for herb in HERBS]
WORDS = WordLlamaEmbeddings()


def fitted(inner: Embeddings) -> Pca:
    return Pca.fit(inner, PASSAGES, 32)


def eighth(inner: Embeddings) -> Matryoshka:
    return Matryoshka(inner, 32)


def bytewise(inner: Embeddings) -> Quantised:
    return Quantised(inner, "int8")


def bitwise(inner: Embeddings) -> Quantised:
    return Quantised(inner, "binary")


WRAPPERS = (fitted, eighth, bytewise, bitwise)


class TestMatryoshka(EmbeddingsContract):
    @pytest.fixture
    def embeddings(self) -> Embeddings:
        return eighth(WORDS)


class TestPca(EmbeddingsContract):
    @pytest.fixture
    def embeddings(self) -> Embeddings:
        return fitted(WORDS)


class Elsewhere:
    """An embedder that sends its texts to somebody."""

    principal = Principal("embedder:hosted")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return WORDS.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        return WORDS.embed_query(text)


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_who_receives_the_texts_is_not_hidden(wrap: Wrap) -> None:
    assert wrap(Elsewhere()).principal is Elsewhere.principal
    assert eighth(bytewise(Elsewhere())).principal is Elsewhere.principal
    assert wrap(WORDS).principal is None


def test_the_first_dimensions_at_length_1() -> None:
    whole, cut = np.array(WORDS.embed_query("trout"))[:32], np.array(eighth(WORDS).embed_query("trout"))
    assert cut == pytest.approx(whole / np.linalg.norm(whole), abs=1e-6)
    with pytest.raises(ConfigurationError, match="from 1 to 256"):
        Matryoshka(WORDS, 257).embed_query("trout")
    with pytest.raises(ConfigurationError):
        Matryoshka(WORDS, 0)


def test_all_directions_change_no_cosine() -> None:
    texts = PASSAGES[:20]
    whole, turned = (np.array(e.embed_documents(texts)) for e in (WORDS, Pca.fit(WORDS, PASSAGES, 256)))
    assert turned @ turned.T == pytest.approx(whole @ whole.T, abs=1e-5)


def test_a_few_directions_keep_what_differs() -> None:
    texts = PASSAGES[:50]
    whole, few = (np.array(e.embed_documents(texts)) for e in (WORDS, fitted(WORDS)))
    assert few.shape == (50, 32)
    assert np.abs(few @ few.T - whole @ whole.T).max() < 0.05


def test_a_fit_is_the_same_in_whatever_order_and_from_its_file(tmp_path: Path) -> None:
    first, again = fitted(WORDS), Pca.fit(WORDS, [*reversed(PASSAGES), *PASSAGES], 32)
    first.save(tmp_path / "a.npz")
    loaded = Pca.load(WORDS, tmp_path / "a.npz")
    assert first.embed_query("trout") == again.embed_query("trout") == loaded.embed_query("trout")


def test_a_fit_on_too_few_passages_is_refused() -> None:
    with pytest.raises(InvalidInput, match="7 different passages"):
        Pca.fit(WORDS, PASSAGES[:7] * 100, 32)
    with pytest.raises(ConfigurationError, match="257 dimensions"):
        Pca.fit(WORDS, PASSAGES, 257)


def test_directions_fitted_to_another_embedder_are_refused(tmp_path: Path) -> None:
    class Backwards(Elsewhere):
        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [vector[::-1] for vector in super().embed_documents(texts)]

    fitted(WORDS).save(tmp_path / "a.npz")
    for other in (Backwards(), eighth(WORDS)):
        with pytest.raises(ConfigurationError, match="another embedder"):
            Pca.load(other, tmp_path / "a.npz")


def test_a_file_that_holds_something_else_is_refused_and_never_run(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(ConfigurationError):
        Pca.load(WORDS, path)
    for content in (b"", b"PK\x03\x04 not quite", b"anything"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError):
            Pca.load(WORDS, path)
    odd: dict[str, object] = {"directions": np.array([{}], object), "probe": np.zeros(256, np.float32)}
    np.savez(path, **odd)  # type: ignore[arg-type]  # with pickle, as an attacker would
    with pytest.raises(ConfigurationError, match="pickle"):
        Pca.load(WORDS, path)
    np.savez(path, directions=np.full((256, 4), np.nan, np.float32), probe=np.zeros(256, np.float32))
    with pytest.raises(ConfigurationError):
        Pca.load(WORDS, path)


def test_quantised_passages_stand_on_the_grid_and_questions_do_not() -> None:
    texts = [*PASSAGES[:5], ""]
    steps, signs = (np.array(e.embed_documents(texts)) for e in (bytewise(WORDS), bitwise(WORDS)))
    assert (np.abs(steps).max(axis=1) == [127.0] * 5 + [0.0]).all()
    assert (steps == np.rint(steps)).all()
    assert (np.abs(signs) == np.array([[1.0]] * 5 + [[0.0]])).all()
    assert bitwise(WORDS).embed_query("trout") == WORDS.embed_query("trout")
    with pytest.raises(ConfigurationError, match="int4"):
        Quantised(WORDS, "int4")  # type: ignore[arg-type]


@pytest.mark.parametrize(("precision", "size"), [("int8", 256 + 5), ("binary", 32 + 5)])
async def test_a_store_of_bytes_or_bits_keeps_them_exactly(tmp_path: Path, precision: str, size: int) -> None:
    wrapped = bytewise(WORDS) if precision == "int8" else bitwise(WORDS)
    texts = [*PASSAGES[:50], ""]
    vectors = wrapped.embed_documents(texts)
    store = SqlDocuments(tmp_path / "documents.db", vectors=precision)  # type: ignore[arg-type]
    pairs = list(zip(texts, map(tuple, vectors), strict=True))
    await store.upsert([Chunk(f"d#{n}", "d", text, EVERYONE, vector=v) for n, (text, v) in enumerate(pairs)])
    kept = {chunk.text: chunk.vector async for batch in store.scan() for chunk in batch}
    assert kept == dict(pairs)
    await store.close()


@pytest.mark.parametrize("wrap", WRAPPERS)
async def test_a_library_that_gets_smaller_vectors_is_embedded_anew(tmp_path: Path, wrap: Wrap) -> None:
    manifest, path = Manifest(tmp_path / "manifest.db"), tmp_path / "documents.db"
    for embeddings, ingested in ((WORDS, 1), (WORDS, 0), (wrap(WORDS), 1), (wrap(WORDS), 0)):
        if ingested:
            path.unlink(missing_ok=True)
        store = SqlDocuments(path)
        report = await Ingestor(store, embeddings, manifest=manifest).ingest([("menu", "trout")], EVERYONE)
        assert len(report.ingested) == ingested
        await store.close()
    manifest.close()
