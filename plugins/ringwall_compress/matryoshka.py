"""The first dimensions alone."""

from __future__ import annotations

from ringwall.data.base import Embeddings
from ringwall_compress.wrapped import Matrix, Wrapped, check_fewer, units


class Matryoshka(Wrapped):
    """The first `dimensions` of each vector, at length 1.

    For embedders that were trained to say the most important first (Kusupati et al., "Matryoshka Representation
    Learning", NeurIPS 2022), as WordLlama was; of others it throws away as much as it cuts off. Raises
    `ConfigurationError` at the first text for more dimensions than there are.
    """

    def __init__(self, embeddings: Embeddings, dimensions: int) -> None:
        super().__init__(embeddings)
        check_fewer(dimensions, dimensions)
        self._dimensions = dimensions

    def _smaller(self, vectors: Matrix) -> Matrix:
        check_fewer(self._dimensions, vectors.shape[1])
        return units(vectors[:, : self._dimensions])
