"""A model in memory, and its vocabulary: what is the same for every request."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Final

import llama_cpp
import numpy as np
import numpy.typing as npt

from ringwall.errors import BadModelFile
from ringwall_llama.gguf import check_gguf
from ringwall_llama.loading import load, tokenized
from ringwall_llama.prompt import Piece

_SILENT: Final = (llama_cpp.LLAMA_VOCAB_TYPE_NONE, llama_cpp.LLAMA_VOCAB_TYPE_WPM)
"""Vocabularies of models that read only, or not even that."""

Logits = npt.NDArray[np.float32]
"""A number for each token of the vocabulary; llama.cpp's own memory, until the next batch is computed."""


class Loaded:
    """The weights of a GGUF file, to be used by any number of contexts. Raises `BadModelFile`.

    `gpu_layers` of them are put on a GPU, where llama.cpp was compiled for one.
    """

    def __init__(self, path: Path, *, gpu_layers: int = 0) -> None:
        check_gguf(path)
        self.path = path
        self.handle: Any = load(path, gpu_layers=gpu_layers)
        self.close = weakref.finalize(self, llama_cpp.llama_model_free, self.handle)
        self.vocab: Any = llama_cpp.llama_model_get_vocab(self.handle)
        self.size = int(llama_cpp.llama_vocab_n_tokens(self.vocab))
        self._piece = ctypes.create_string_buffer(1024)
        self.text = lru_cache(maxsize=4096)(self._text)
        self.logits_at = lru_cache(maxsize=1024)(self._logits_at)
        is_decoder = llama_cpp.llama_model_has_decoder(self.handle) and not llama_cpp.llama_model_has_encoder(
            self.handle
        )
        if not is_decoder or llama_cpp.llama_vocab_type(self.vocab) in _SILENT:
            self.close()
            raise BadModelFile(f"{path} is not a model that generates text", expected="a chat model")

    @property
    def can_share(self) -> bool:
        """Whether the beginning of a sequence can be kept without its end: not what recurrent models remember."""
        return not (llama_cpp.llama_model_is_recurrent(self.handle) or llama_cpp.llama_model_is_hybrid(self.handle))

    @property
    def template(self) -> str:
        """The model's chat template, or an empty string."""
        return (llama_cpp.llama_model_chat_template(self.handle, None) or b"").decode("utf-8", "replace")

    @property
    def bos(self) -> str:
        return self._special(llama_cpp.llama_vocab_bos(self.vocab))

    @property
    def eos(self) -> str:
        return self._special(llama_cpp.llama_vocab_eos(self.vocab))

    def prompt(self, pieces: Sequence[Piece]) -> list[list[int]]:
        """The tokens of each piece of a prompt, exactly as the model will read them."""
        found = [self.tokens(piece.text, control=piece.is_control) for piece in pieces]
        bos = llama_cpp.llama_vocab_bos(self.vocab)
        first = next((tokens for tokens in found if tokens), [])
        if llama_cpp.llama_vocab_get_add_bos(self.vocab) and first[:1] != [bos]:
            first.insert(0, bos)
        return found

    def tokens(self, text: str, *, control: bool = False) -> list[int]:
        """The tokens of `text`; what looks like a control token is one only if `control` says so."""
        return tokenized(self.vocab, text, control=control)

    def ends(self, token: int) -> bool:
        """Whether a token ends the reply."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab, token))

    @cached_property
    def braces(self) -> npt.NDArray[np.int64]:
        """The tokens that begin with an opening brace."""
        return np.array([token for token in range(self.size) if self._text(token).startswith(b"{")], np.int64)

    def _text(self, token: int) -> bytes:
        count = llama_cpp.llama_token_to_piece(self.vocab, token, self._piece, len(self._piece), 0, False)
        return self._piece.raw[: max(count, 0)]

    def _logits_at(self, address: int) -> Logits:
        """What stands there, whenever it is looked at; llama.cpp writes at the same places again and again."""
        return np.ctypeslib.as_array((ctypes.c_float * self.size).from_address(address))

    def _special(self, token: int) -> str:
        text = llama_cpp.llama_vocab_get_text(self.vocab, token) if token >= 0 else b""
        return str(text.decode("utf-8", "replace"))


def probability(logits: Logits, tokens: npt.NDArray[np.int64]) -> float:
    """How likely the next token is one of these."""
    weights = np.exp(logits.astype(np.float64) - float(logits.max()))
    return float(weights[tokens].sum() / weights.sum())
