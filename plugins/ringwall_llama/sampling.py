"""Which token comes next: of one request, whatever else is in the batch."""

from __future__ import annotations

import ctypes
import math
from contextlib import AbstractContextManager
from typing import Any, Final

import llama_cpp
import numpy as np
import numpy.typing as npt

from ringwall.errors import BadReply, InvalidInput
from ringwall.model.base import Alternative, Sampling, TokenProbability
from ringwall_llama.batch import Batch
from ringwall_llama.cells import keyed
from ringwall_llama.loaded import Loaded, Logits

_LIKELIEST: Final = 1024
"""Tokens among which a greedy choice is looked for before the grammar is asked about the whole vocabulary."""


class Sampler(AbstractContextManager["Sampler"]):
    """Chooses tokens as `sampling` says, among those that `grammar` allows.

    A grammar is slow to ask about a whole vocabulary: so the choice is made without it first, and made again
    only if the grammar forbids what was chosen.
    """

    def __init__(self, model: Loaded, sampling: Sampling, grammar: str) -> None:
        self._model, self._sampling = model, sampling
        self._grammar: Any = None
        if grammar:
            self._grammar = llama_cpp.llama_sampler_init_grammar(model.vocab, grammar.encode(), b"root")
            if not self._grammar:
                raise InvalidInput("a schema whose grammar llama.cpp cannot use", hint="make it simpler")
        bias = _bias(model, sampling)
        # What a grammar rules is JSON, whose commas and quotes must not grow dearer.
        penalty = None if grammar else _penalty(model, sampling)
        self._is_plain = sampling.temperature <= 0 and not bias and not penalty
        self._free = _chain([bias, penalty], sampling)
        # The chain owns the grammar from here on.
        self._bound = _chain([_bias(model, sampling), self._grammar], sampling)

    def next(self, context: Any, row: int) -> int:
        """Choose the token that follows a row of the batch. Raises `BadReply` when no token will do."""
        logits = logits_of(context, row, self._model)
        token = int(logits.argmax())
        if not math.isfinite(logits[token]):
            raise BadReply("the model computed no number", hint="its file is damaged, or an adapter does not fit it")
        if not self._is_plain:
            token = llama_cpp.llama_sampler_sample(self._free, context, row)
        return token if self._grammar is None else self._in_bounds(token, logits)

    def told(self, token: int, context: Any, row: int) -> TokenProbability | None:
        """How likely the chosen token was, and others with it; None unless that was asked for."""
        if self._sampling.logprobs is None:
            return None
        logits = logits_of(context, row, self._model).astype(np.float64)
        logs = logits - logits.max() - math.log(np.exp(logits - logits.max()).sum())
        best = np.argsort(-logs)[: self._sampling.logprobs].tolist()
        others = tuple(Alternative(self._text(other), float(logs[other])) for other in best)
        return TokenProbability(self._text(token), float(logs[token]), others)

    def _text(self, token: int) -> str:
        return self._model.text(token).decode("utf-8", "replace")

    def _in_bounds(self, token: int, logits: Logits) -> int:
        if self._allows(token):
            llama_cpp.llama_sampler_accept(self._grammar, token)
            return token
        token = self._bound_choice(logits)
        # llama.cpp ends the process when a grammar is made to accept what it does not allow.
        if not self._allows(token):
            raise BadReply("no token of the model fits the grammar of the schema")
        llama_cpp.llama_sampler_accept(self._bound, token)
        return token

    def _bound_choice(self, logits: Logits) -> int:
        if self._is_plain:
            rank = max(logits.size - _LIKELIEST, 0)
            token = self._choice_among(np.argpartition(logits, rank)[rank:], logits)
            if self._allows(token):
                return token
        return self._choice_among(np.arange(logits.size), logits)

    def _choice_among(self, ids: npt.NDArray[np.int64], logits: Logits) -> int:
        tokens = np.zeros(ids.size, dtype=[("id", np.int32), ("logit", np.float32), ("p", np.float32)])
        tokens["id"], tokens["logit"] = ids, logits[ids]
        first = ctypes.cast(tokens.ctypes.data, ctypes.POINTER(llama_cpp.llama_token_data))
        return self._apply(self._bound, first, ids.size)

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


def logits_of(context: Any, row: int, model: Loaded) -> Logits:
    """The logits of the token that follows a row of the last batch."""
    return model.logits_at(ctypes.addressof(llama_cpp.llama_get_logits_ith(context, row).contents))


def first_logits(context: Any, model: Loaded) -> bool:
    """Whether a first token can be computed."""
    batch = Batch(1)
    batch.add(keyed([0], 0), 0, 0, asked=1)
    return llama_cpp.llama_decode(context, batch.whole()) == 0 and bool(logits_of(context, 0, model).size)


def _penalty(model: Loaded, sampling: Sampling) -> Any:
    """What makes a token dearer each time it was chosen in this reply; None for nothing."""
    if not sampling.frequency_penalty:
        return None
    return llama_cpp.llama_sampler_init_penalties(model.size, sampling.max_tokens, 1.0, sampling.frequency_penalty, 0.0)


def _bias(model: Loaded, sampling: Sampling) -> Any:
    """What is added to the logits of some tokens; None for nothing."""
    if not sampling.logit_bias:
        return None
    if unknown := [token for token, _ in sampling.logit_bias if not 0 <= token < model.size]:
        raise InvalidInput(f"a bias for the token {unknown[0]}", expected=f"tokens from 0 to {model.size - 1}")
    biases = [llama_cpp.llama_logit_bias(token=token, bias=bias) for token, bias in sampling.logit_bias]
    array = (llama_cpp.llama_logit_bias * len(biases))(*biases)
    return llama_cpp.llama_sampler_init_logit_bias(model.size, len(biases), array)


def _chain(first: list[Any], sampling: Sampling) -> Any:
    chain: Any = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
    if sampling.temperature <= 0:
        samplers = [llama_cpp.llama_sampler_init_greedy()]
    else:
        seed = llama_cpp.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed & 0xFFFFFFFF
        samplers = [
            llama_cpp.llama_sampler_init_top_p(sampling.top_p, 1),
            llama_cpp.llama_sampler_init_min_p(sampling.min_p, 1),
            llama_cpp.llama_sampler_init_temp(sampling.temperature),
            llama_cpp.llama_sampler_init_dist(seed),
        ]
    for sampler in [*filter(None, first), *samplers]:
        llama_cpp.llama_sampler_chain_add(chain, sampler)
    return chain
