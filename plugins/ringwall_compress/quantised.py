"""Fewer bits for each dimension."""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np

from ringwall.data.base import Embeddings
from ringwall.errors import ConfigurationError
from ringwall_compress.wrapped import Matrix, Wrapped

Precision = Literal["int8", "binary"]

_LEVELS: Final = 127


class Quantised(Wrapped):
    """Vectors of passages in whole numbers from -127 to 127 (int8), or of -1 and 1 (binary).

    A store that keeps a byte or a bit for each value keeps these exactly. Each vector has a scale of its own, which
    no cosine sees; one of only zeros stays as it is. Questions are compared as they are: nothing is kept of them,
    and to round them too would find less.
    """

    def __init__(self, embeddings: Embeddings, precision: Precision) -> None:
        super().__init__(embeddings)
        if precision not in get_args(Precision):
            raise ConfigurationError(
                f"the precision {precision!r}", expected=f"one of: {', '.join(get_args(Precision))}"
            )
        self._precision = precision

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a question, as the inner embedder made it."""
        return self._embeddings.embed_query(text)

    def _smaller(self, vectors: Matrix) -> Matrix:
        largest = np.abs(vectors).max(axis=1, keepdims=True)
        if self._precision == "binary":
            signs: Matrix = np.where(vectors < 0, np.float32(-1), np.float32(1))
            return np.where(largest > 0, signs, np.float32(0))
        steps: Matrix = np.rint(vectors * (_LEVELS / np.where(largest > 0, largest, 1)))
        return steps
