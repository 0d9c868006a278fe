"""An embedder around another, which makes its vectors smaller."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from langchain_core.embeddings import Embeddings

from ringwall.data.base import Embeddings as EmbeddingsLike
from ringwall.data.receiving import receiver_of
from ringwall.errors import ConfigurationError
from ringwall.principal import Principal

Matrix = npt.NDArray[np.float32]


class Wrapped(Embeddings):
    """`embeddings`, with other vectors. Whom texts are sent to, and how many tokens they are, the inner one says."""

    def __init__(self, embeddings: EmbeddingsLike) -> None:
        self._embeddings = embeddings

    @property
    def principal(self) -> Principal | None:
        """Who receives the texts: asked of the outermost embedder, it must not look as if nobody did."""
        return receiver_of(self._embeddings)

    def __getattr__(self, name: str) -> Any:
        if name == "tokens":
            return getattr(self._embeddings, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vector of each text, in order."""
        return self._smaller_all(self._embeddings.embed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one text."""
        return self._smaller_all([self._embeddings.embed_query(text)])[0]

    @abstractmethod
    def _smaller(self, vectors: Matrix) -> Matrix:
        """The smaller vector of each row."""

    def _smaller_all(self, vectors: list[list[float]]) -> list[list[float]]:
        smaller: list[list[float]] = self._smaller(np.array(vectors, np.float32)).tolist() if vectors else []
        return smaller


def units(vectors: Matrix) -> Matrix:
    """Each row at length 1; one of only zeros stays as it is, and is like nothing."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def check_fewer(dimensions: int, given: int) -> None:
    """Raises `ConfigurationError` unless `given` dimensions can be made `dimensions`."""
    if not 1 <= dimensions <= given:
        raise ConfigurationError(
            f"{dimensions} dimensions of an embedder that has {given}", expected=f"from 1 to {given}"
        )
