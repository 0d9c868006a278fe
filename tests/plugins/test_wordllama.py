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
