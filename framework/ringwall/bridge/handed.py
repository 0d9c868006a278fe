"""Embeddings for a store that must have some: they hand over vectors that are known already."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from langchain_core.embeddings import Embeddings

from ringwall.data.base import Vector


class Handed(Embeddings):
    """The vectors of the texts that are being handed over, in whichever thread they are asked for.

    Another text is the store's own question, how long a vector is: any will do.
    """

    def __init__(self, dimension: int) -> None:
        self._any = [1.0, *[0.0] * (dimension - 1)]
        self._vectors: dict[str, Vector] = {}

    @contextlib.contextmanager
    def over(self, vectors: Mapping[str, Vector]) -> Iterator[None]:
        """Hand over these while the block runs; no two blocks at a time may name the same text."""
        self._vectors.update(vectors)
        try:
            yield
        finally:
            for text in vectors:
                del self._vectors[text]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = self._vectors.get(text)
        return list(self._any if vector is None else vector)
