"""WordLlama as LangChain `Embeddings`."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import wordllama
from langchain_core.embeddings import Embeddings

_LONGEST: Final = 8_000
"""Characters of a text that count: a batch takes memory as if all its texts were as long as the longest."""


class WordLlamaEmbeddings(Embeddings):
    """256 dimensions, unit length; an empty text is the zero vector, which is like nothing.

    Loads the model from its own package, nothing from the network. Characters that UTF-8 cannot hold count
    as `?`; of a text longer than 8,000 characters only the first 8,000 count.
    """

    principal: Final = None

    def __init__(self) -> None:
        folder = Path(wordllama.__file__).parent
        self._model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), ()  # another process loads its own

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vector of each text, in order."""
        readable = [text[:_LONGEST].encode(errors="replace").decode() for text in texts]
        # Not the model's own `norm`: it divides the zero vector of an empty text by zero.
        vectors = np.asarray(self._model.embed(readable), dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        rows: list[list[float]] = (vectors / np.where(lengths > 0, lengths, 1)).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one text."""
        return self.embed_documents([text])[0]

    def tokens(self, text: str) -> int:
        """Return how many tokens there are in a text, however long it is."""
        readable = text.encode(errors="replace").decode()
        return len(self._model.tokenizer.encode_batch_fast([readable], add_special_tokens=False)[0])
