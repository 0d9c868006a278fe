"""The blocking side: one loaded model, one context, one reply at a time. Used from one thread only."""

from __future__ import annotations

import codecs
import ctypes
import math
import weakref
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import llama_cpp
import numpy as np
import numpy.typing as npt

from ringwall.errors import BadModelFile, BadReply, ContextOverflow, InvalidInput, ProviderUnavailable
from ringwall.label import Label
from ringwall.model.base import Sampling
from ringwall_llama.gguf import check_gguf
from ringwall_llama.loading import cpus, free, load, tokenized
from ringwall_llama.prompt import Piece

Logits = npt.NDArray[np.float32]

_SILENT: Final = (llama_cpp.LLAMA_VOCAB_TYPE_NONE, llama_cpp.LLAMA_VOCAB_TYPE_WPM)
"""Vocabularies of models that read only, or not even that."""

_BATCH: Final = 512
"""Prompt tokens handed to llama.cpp at once."""


class Stop:
    """A flag that ends a reply between two tokens, and a computation in the middle of one."""

    def __init__(self) -> None:
        self._flag = ctypes.create_string_buffer(2)

    def set(self) -> None:
        self._flag[0] = b"\x01"

    def __bool__(self) -> bool:
        return self._flag[0] != b"\x00"

    @property
    def address(self) -> int:
        return ctypes.addressof(self._flag)


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens since the model was loaded: `reused` prompt tokens were not computed again."""

    prompt: int = 0
    reused: int = 0
    completion: int = 0


class Engine:
    """A model in memory, and the keys and values of the last prompt.

    They are used again for a prompt that begins alike, but only under an equal label: how long a prompt
    takes must not tell anyone what somebody else asked about. Otherwise they are cleared.
    """

    def __init__(self, path: Path, *, context: int, threads: int | None) -> None:
        check_gguf(path)
        self._model: Any = load(path)
        self._vocab: Any = llama_cpp.llama_model_get_vocab(self._model)
        self.window = min(context, llama_cpp.llama_model_n_ctx_train(self._model))
        self._context: Any = llama_cpp.llama_init_from_model(self._model, _params(self.window, threads))
        self.close = weakref.finalize(self, free, self._context, self._model)
        if not self._context or llama_cpp.llama_vocab_type(self._vocab) in _SILENT:
            self.close()
            raise BadModelFile(f"{path} is not a model that generates text", expected="a chat model")
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self._piece = ctypes.create_string_buffer(1024)
        self._held: list[int] = []
        self._held_for: Label | None = None
        self.spent = Spent()

    @property
    def template(self) -> str:
        """The model's chat template, or an empty string."""
        return (llama_cpp.llama_model_chat_template(self._model, None) or b"").decode("utf-8", "replace")

    @property
    def bos(self) -> str:
        return self._special(llama_cpp.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> str:
        return self._special(llama_cpp.llama_vocab_eos(self._vocab))

    def prompt(self, pieces: Sequence[Piece]) -> list[int]:
        """The tokens of a prompt, exactly as the model will read them."""
        found = [token for text, control in pieces for token in self.tokens(text, control=control)]
        bos = llama_cpp.llama_vocab_bos(self._vocab)
        if llama_cpp.llama_vocab_get_add_bos(self._vocab) and found[:1] != [bos]:
            found.insert(0, bos)
        return found

    def tokens(self, text: str, *, control: bool = False) -> list[int]:
        """The tokens of `text`; what looks like a control token is one only if `control` says so."""
        return tokenized(self._vocab, text, control=control)

    def call_probability(self, prompt: list[int], sampling: Sampling, *, label: Label, stop: Stop) -> float:
        """How likely the model is to begin its reply with a brace. Raises `ContextOverflow` as `generate` does."""
        self._check_fits(prompt, sampling.max_tokens)
        with self._interruptible(stop):
            self._read(self._reuse(prompt, label), stop)
        if stop:
            return 0.0
        logits = _logits(self._context, self._vocab).astype(np.float64)
        weights = np.exp(logits - logits.max())
        return float(weights[self._braces].sum() / weights.sum())

    @cached_property
    def _braces(self) -> list[int]:
        """The tokens that begin with an opening brace."""
        count = llama_cpp.llama_vocab_n_tokens(self._vocab)
        return [token for token in range(count) if self._text(token).startswith(b"{")]

    def _check_fits(self, prompt: list[int], reserved: int) -> None:
        if len(prompt) + reserved > self.window:
            raise ContextOverflow(len(prompt), self.window, reserved=reserved)

    def generate(
        self, prompt: list[int], sampling: Sampling, *, label: Label, stop: Stop, grammar: str = ""
    ) -> Generator[str, None, None]:
        """Yield the text of the reply, a token at a time, until the model ends it or `stop` is set.

        Each item is one token's text, empty while a character is incomplete. Raises `ContextOverflow` if the
        prompt and `sampling.max_tokens` do not fit.
        """
        self._check_fits(prompt, sampling.max_tokens)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with _Sampler(self._vocab, sampling, grammar) as sampler, self._interruptible(stop):
            unread = self._reuse(prompt, label)
            for _ in range(sampling.max_tokens):
                self._read(unread, stop)
                if stop:
                    return
                token = sampler.next(self._context)
                if llama_cpp.llama_vocab_is_eog(self._vocab, token):
                    return
                unread = [token]
                self._count(completion=1)
                yield decoder.decode(self._text(token))

    def _reuse(self, prompt: list[int], label: Label) -> list[int]:
        """Keep what may be kept of the last prompt; return the tokens still to be read."""
        kept = _common(self._held, prompt[:-1]) if label == self._held_for else 0
        if not kept or not llama_cpp.llama_memory_seq_rm(self._memory, 0, kept, -1):
            kept = 0
            self._forget()
        del self._held[kept:]
        self._held_for = label
        self._count(prompt=len(prompt), reused=kept)
        return prompt[kept:]

    def _forget(self) -> None:
        llama_cpp.llama_memory_clear(self._memory, False)
        self._held, self._held_for = [], None

    def _read(self, tokens: list[int], stop: Stop) -> None:
        """Compute `tokens`. Does not finish when `stop` is set: then nothing is kept."""
        for start in range(0, len(tokens), _BATCH):
            part = tokens[start : start + _BATCH]
            array = (llama_cpp.llama_token * len(part))(*part)
            code = llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(array, len(part)))
            if code:
                self._forget()
                if stop:
                    return
                raise ProviderUnavailable(f"llama.cpp could not compute a batch (code {code})")
            self._held += part

    @contextmanager
    def _interruptible(self, stop: Stop) -> Iterator[None]:
        llama_cpp.llama_set_abort_callback(self._context, _flag_is_set(), stop.address)
        try:
            yield
        finally:
            llama_cpp.llama_set_abort_callback(self._context, _never(), None)

    def _count(self, *, prompt: int = 0, reused: int = 0, completion: int = 0) -> None:
        spent = self.spent
        self.spent = Spent(spent.prompt + prompt, spent.reused + reused, spent.completion + completion)

    def _text(self, token: int) -> bytes:
        room = len(self._piece)
        count = llama_cpp.llama_token_to_piece(self._vocab, token, self._piece, room, 0, False)
        return self._piece.raw[:count]

    def _special(self, token: int) -> str:
        text = llama_cpp.llama_vocab_get_text(self._vocab, token) if token >= 0 else b""
        return str(text.decode("utf-8", "replace"))


class _Sampler(AbstractContextManager["_Sampler"]):
    """Chooses tokens as `sampling` says, among those that `grammar` allows.

    A grammar is slow to ask about a whole vocabulary: so the choice is made without it first, and made again
    only if the grammar forbids what was chosen.
    """

    def __init__(self, vocab: Any, sampling: Sampling, grammar: str) -> None:
        self._vocab = vocab
        self._grammar: Any = None
        if grammar:
            self._grammar = llama_cpp.llama_sampler_init_grammar(vocab, grammar.encode(), b"root")
            if not self._grammar:
                raise InvalidInput("a schema whose grammar llama.cpp cannot use", hint="make it simpler")
        # What a grammar rules is JSON, whose commas and quotes must not grow dearer.
        self._free = _chain(None if grammar else _penalty(vocab, sampling), sampling)
        # The chain owns the grammar from here on.
        self._bound = _chain(self._grammar, sampling)

    def next(self, context: Any) -> int:
        """Choose the next token. Raises `BadReply` when no token fits the grammar."""
        token: int = llama_cpp.llama_sampler_sample(self._free, context, -1)
        if self._grammar is None:
            return token
        if self._allows(token):
            llama_cpp.llama_sampler_accept(self._grammar, token)
            return token
        token = self._bound_choice(context)
        # llama.cpp ends the process when a grammar is made to accept what it does not allow.
        if not self._allows(token):
            raise BadReply("no token of the model fits the grammar of the schema")
        llama_cpp.llama_sampler_accept(self._bound, token)
        return token

    def _bound_choice(self, context: Any) -> int:
        logits = _logits(context, self._vocab)
        tokens = np.zeros(logits.size, dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        tokens["id"], tokens["logit"] = np.arange(logits.size), logits
        first = ctypes.cast(tokens.ctypes.data, ctypes.POINTER(llama_cpp.llama_token_data))
        return self._apply(self._bound, first, logits.size)

    def _allows(self, token: int) -> bool:
        only = llama_cpp.llama_token_data(id=token, logit=1.0, p=0.0)
        self._apply(self._grammar, ctypes.pointer(only), 1)
        return not math.isinf(only.logit)

    def _apply(self, sampler: Any, tokens: Any, size: int) -> int:
        """Let `sampler` work on `tokens`; return the one it selected, or the first."""
        array = llama_cpp.llama_token_data_array(data=tokens, size=size, selected=-1, sorted=False)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        return int(array.data[max(array.selected, 0)].id)

    def __exit__(self, *_: object) -> None:
        llama_cpp.llama_sampler_free(self._free)
        llama_cpp.llama_sampler_free(self._bound)


def _logits(context: Any, vocab: Any) -> Logits:
    """The logits of the token to come, by token; llama.cpp's own memory, until the next token is read."""
    size = llama_cpp.llama_vocab_n_tokens(vocab)
    return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (size,))


def _penalty(vocab: Any, sampling: Sampling) -> Any:
    """What makes a token dearer each time it was chosen in this reply; None for nothing."""
    if not sampling.frequency_penalty:
        return None
    size = llama_cpp.llama_vocab_n_tokens(vocab)
    return llama_cpp.llama_sampler_init_penalties(size, sampling.max_tokens, 1.0, sampling.frequency_penalty, 0.0)


def _chain(first: Any, sampling: Sampling) -> Any:
    chain: Any = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    if sampling.temperature <= 0:
        samplers = [llama_cpp.llama_sampler_init_greedy()]
    else:
        seed = llama_cpp.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed & 0xFFFFFFFF
        samplers = [
            llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1),
            llama_cpp.llama_sampler_init_temp(sampling.temperature),
            llama_cpp.llama_sampler_init_dist(seed),
        ]
    for sampler in [first, *samplers] if first else samplers:
        llama_cpp.llama_sampler_chain_add(chain, sampler)
    return chain


def _params(context: int, threads: int | None) -> Any:
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = context
    params.n_batch = params.n_ubatch = min(context, _BATCH)
    params.n_threads = params.n_threads_batch = threads or cpus()
    params.no_perf = True
    return params


def _flag_is_set() -> Any:
    """What llama.cpp asks between two operations: whether the text of one byte at `Stop.address` is empty.

    A Python function would take the interpreter's lock thousands of times a second; `strlen` does not.
    """
    return ctypes.cast(ctypes.CDLL(None).strlen, llama_cpp.ggml_abort_callback)


def _never() -> Any:
    return llama_cpp.ggml_abort_callback()


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the prefix that both share."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
