"""The blocking side of embedders and rerankers: one loaded model that makes a row of numbers of each text."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import llama_cpp
import numpy as np
import numpy.typing as npt

from ringwall.errors import BadModelFile, BadReply, ConfigurationError, ProviderUnavailable
from ringwall_llama.gguf import check_gguf
from ringwall_llama.loading import cpus, free, load, tokenized

Rows = npt.NDArray[np.float32]

_TOGETHER: Final = 256
"""Tokens of several texts computed at once: each is compared with all others, of its own text or not."""

_SHORTEST: Final = 16
"""Tokens that must count, or there is no room for a question and a passage."""

_MOST: Final = 64
"""Texts that can be computed at once."""

_CHARACTERS: Final = 16
"""Characters of a text that are tokenized for each token that counts: more than any language's tokens have."""


class Encoder:
    """A model whose file says how the tokens of a text become one row. May be used from several threads, in turn.

    Raises `BadModelFile` for a file that is none, or whose model does not work as one of `poolings`, each a
    `LLAMA_POOLING_TYPE`, does; `kind` is what the caller wants to have. And `ConfigurationError` for a `context` or a
    `batch` that cannot be.
    """

    def __init__(
        self, path: Path, *, context: int, threads: int | None, batch: int, poolings: Sequence[int], kind: str
    ) -> None:
        if context < _SHORTEST or not 1 <= batch <= _MOST:
            raise ConfigurationError(
                f"a context of {context} tokens, and {batch} texts together",
                expected=f"at least {_SHORTEST} tokens, and 1 to {_MOST} texts",
            )
        self.tensors = check_gguf(path)
        self._model = load(path)
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        self._longest = min(context, llama_cpp.llama_model_n_ctx_train(self._model))
        self._room = max(self._longest, _TOGETHER)
        self._context: Any = llama_cpp.llama_init_from_model(self._model, _params(self._room, batch, threads))
        self._free = weakref.finalize(self, free, self._context, self._model)
        pooled = bool(self._context) and llama_cpp.llama_pooling_type(self._context) in poolings
        if not pooled or llama_cpp.llama_vocab_type(self._vocab) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
            self._free()
            raise BadModelFile(f"{path} is no {kind}", expected=f"a model whose file says how it works as {kind}")
        self._name = path.stem
        self._rank = llama_cpp.llama_pooling_type(self._context) == llama_cpp.LLAMA_POOLING_TYPE_RANK
        size = llama_cpp.llama_model_n_cls_out if self._rank else llama_cpp.llama_model_n_embd_out
        self.width: int = size(self._model)
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self._lock, self._batch = threading.Lock(), batch

    def of_texts(self, texts: Sequence[str]) -> Rows:
        """A row for each text: of one that is too long its first tokens count; zeros for one without any.

        Raises `BadReply` if what came is no numbers, and `ProviderUnavailable` once it was closed.
        """
        with self._opened():
            return self._rows([self._text(text) for text in texts])

    def of_pairs(self, question: str, texts: Sequence[str]) -> Rows:
        """A row for the question with each text that may answer it. Raises as `of_texts` does."""
        with self._opened():
            return self._rows([self._pair(question, text) for text in texts])

    def close(self) -> None:
        """Free the model, once nobody uses it."""
        with self._lock:
            self._free()

    @contextmanager
    def _opened(self) -> Iterator[None]:
        with self._lock:
            if not self._free.alive:
                raise ProviderUnavailable(f"{self._name} was closed", provider=self._name)
            yield

    def _text(self, text: str) -> list[int]:
        """The tokens of a text; of one that is too long the first, and the one that ends each."""
        tokens = tokenized(self._vocab, self._start(text), special=True)
        if len(tokens) <= self._longest:
            return tokens
        end = tokens[-1:] if llama_cpp.llama_vocab_is_control(self._vocab, tokens[-1]) else []
        return tokens[: self._longest - len(end)] + end

    def _pair(self, question: str, text: str) -> list[int]:
        """The tokens of a question and a text, parted as the model was trained.

        Half of what counts is the question's at most, the rest the text's.
        """
        vocab = self._vocab
        begin = [llama_cpp.llama_vocab_bos(vocab)] if llama_cpp.llama_vocab_get_add_bos(vocab) else []
        ends = [llama_cpp.llama_vocab_eos(vocab)] if llama_cpp.llama_vocab_get_add_eos(vocab) else []
        parts = [llama_cpp.llama_vocab_sep(vocab)] if llama_cpp.llama_vocab_get_add_sep(vocab) else []
        asked = tokenized(vocab, self._start(question))[: self._longest // 2]
        first, last = [*begin, *asked, *ends, *parts], ends or parts
        return first + tokenized(vocab, self._start(text))[: self._longest - len(first) - len(last)] + last

    def _start(self, text: str) -> str:
        return text[: _CHARACTERS * self._longest]

    def _rows(self, texts: Sequence[list[int]]) -> Rows:
        rows = np.zeros((len(texts), self.width), np.float32)
        for places in _batches([len(tokens) for tokens in texts], self._batch):
            self._compute([texts[place] for place in places])
            for number, place in enumerate(places):
                pooled = llama_cpp.llama_get_embeddings_seq(self._context, number)
                rows[place] = np.ctypeslib.as_array(pooled, (self.width,))
        if not np.isfinite(rows).all():
            raise BadReply(f"{self._name} made what are no finite numbers", expected="weights that are whole")
        return rows

    def _compute(self, texts: Sequence[list[int]]) -> None:
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, False)
        batch = llama_cpp.llama_batch_init(self._room, 0, 1)
        try:
            for number, tokens in enumerate(texts):
                _add(batch, tokens, number)
            code = llama_cpp.llama_decode(self._context, batch)
        finally:
            llama_cpp.llama_batch_free(batch)
        if code:
            raise ProviderUnavailable(f"llama.cpp could not compute a batch (code {code})", provider=self._name)


def _add(batch: Any, tokens: list[int], number: int) -> None:
    """Put a text into a batch, as its sequence `number`."""
    for position, token in enumerate(tokens):
        place = batch.n_tokens
        batch.token[place], batch.pos[place] = token, position
        batch.n_seq_id[place], batch.seq_id[place][0] = 1, number
        batch.logits[place] = 1
        batch.n_tokens += 1


def _batches(lengths: Sequence[int], most: int) -> Iterator[list[int]]:
    """The places of texts that go together, `most` at most, in order; those without tokens go nowhere."""
    batch: list[int] = []
    size = 0
    for place, length in enumerate(lengths):
        if batch and (size + length > _TOGETHER or len(batch) == most):
            yield batch
            batch, size = [], 0
        if length:
            batch.append(place)
            size += length
    if batch:
        yield batch


def _params(room: int, batch: int, threads: int | None) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = room
    params.n_seq_max = batch
    params.kv_unified = True
    params.embeddings = True
    params.n_threads = params.n_threads_batch = threads or cpus()
    params.no_perf = True
    return params
