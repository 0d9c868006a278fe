"""Embedding models out of GGUF files, as LangChain `Embeddings`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import llama_cpp
import numpy as np
from langchain_core.embeddings import Embeddings

from ringwall_llama.encoder import Encoder

_POOLINGS: Final = (
    llama_cpp.LLAMA_POOLING_TYPE_MEAN,
    llama_cpp.LLAMA_POOLING_TYPE_CLS,
    llama_cpp.LLAMA_POOLING_TYPE_LAST,
)


class GgufEmbeddings(Embeddings):
    """Vectors of unit length, made by llama.cpp in this process as the file says: its tokens, its pooling.

    Of a text the first `context` tokens count, or as many as the model was trained with; a text without tokens is
    the zero vector, which is like nothing. Characters that UTF-8 cannot hold count as `?`, and what looks like a
    control token is plain text. `prefix` and `query_prefix` go before passages and questions, for models that were
    trained so.

    Texts are computed one by one, so that a text's vector does not depend on what is embedded along with it. A larger
    `batch` computes so many together, which is twice as fast for short ones; the numbers of a vector then move by up
    to 2e-4, and with quantised weights by 4e-3.

    May be used from several threads, which take turns. Raises `BadModelFile` for a file that cannot be used, or
    holds no embedding model: a chat model, a reranker.
    """

    principal: Final = None

    def __init__(
        self,
        model_path: str | Path,
        *,
        context: int = 512,
        threads: int | None = None,
        batch: int = 1,
        prefix: str = "",
        query_prefix: str = "",
    ) -> None:
        self._prefix, self._query_prefix = prefix, query_prefix
        self._encoder = Encoder(
            Path(model_path), context=context, threads=threads, batch=batch, poolings=_POOLINGS, kind="embedding model"
        )

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vector of each text, in order."""
        return self._vectors([self._prefix + text for text in texts])

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return self._vectors([self._query_prefix + text])[0]

    def close(self) -> None:
        """Free the model; nothing can be embedded afterwards."""
        self._encoder.close()

    def _vectors(self, texts: list[str]) -> list[list[float]]:
        rows = self._encoder.of_texts(texts)
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        vectors: list[list[float]] = (rows / np.where(lengths > 0, lengths, 1)).tolist()
        return vectors
