"""WordLlama as LangChain `Embeddings`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import wordllama
from langchain_core.embeddings import Embeddings

_LONGEST: Final = 8_000
"""Characters of a text that count."""


class WordLlamaEmbeddings(Embeddings):
    """256 dimensions, unit length; an empty text is the zero vector, which is like nothing.

    Loads the model from its own package, nothing from the network. Characters that UTF-8 cannot hold count
    as `?`; of a text longer than 8,000 characters only the first 8,000 count.
    """

    principal: Final = None

    def __init__(self) -> None:
        folder = Path(wordllama.__file__).parent
        model = wordllama.WordLlama.load(cache_dir=folder, disable_download=True)
        self._table: npt.NDArray[np.float32] = model.embedding
        self._tokenizer = model.tokenizer
        self._tokenizer.no_padding()
        with contextlib.suppress(AttributeError):  # it would keep up to 10,000 whole passages, and never meet one again
            self._tokenizer.model._resize_cache(0)  # noqa: SLF001 (there is no other way to say so)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), ()  # another process loads its own

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vector of each text, in order."""
        readable = [text[:_LONGEST].encode(errors="replace").decode() for text in texts]
        vectors = np.empty((len(texts), self._table.shape[1]), np.float32)
        # Text by text, since the words of one fit in the processor's cache: more than twice as fast as the model's
        # own `embed`, which fills a batch up to its longest text, and the same to the last digit.
        for row, encoded in enumerate(self._tokenizer.encode_batch_fast(readable, add_special_tokens=False)):
            ids = encoded.ids
            self._table.take(ids, axis=0, mode="clip").sum(axis=0, out=vectors[row])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        rows: list[list[float]] = (vectors / np.where(lengths > 0, lengths, 1)).tolist()
        return rows

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one text."""
        return self.embed_documents([text])[0]

    def tokens(self, text: str) -> int:
        """Return how many tokens there are in a text, however long it is."""
        readable = text.encode(errors="replace").decode()
        return len(self._tokenizer.encode_batch_fast([readable], add_special_tokens=False)[0])
