"""WordLlama: LangChain's standard tests, and ours."""

from __future__ import annotations

import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

from ringwall.data import Embeddings
from ringwall.data.contract import EmbeddingsContract
from ringwall_wordllama import WordLlamaEmbeddings


class TestLangChainsTests(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self) -> type[WordLlamaEmbeddings]:
        return WordLlamaEmbeddings


class TestOurContract(EmbeddingsContract):
    @pytest.fixture
    def embeddings(self) -> Embeddings:
        return WordLlamaEmbeddings()


def test_it_counts_the_tokens_of_a_text_however_long_it_is() -> None:
    model = WordLlamaEmbeddings()
    counted = [model.tokens(text) for text in ("", "word", "\ud800", "word " * 10_000)]
    assert counted[:3] == [0, 1, model.tokens("?")]
    assert counted[3] >= 10_000
