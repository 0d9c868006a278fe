"""What is measured of a model, in a process that does nothing else: see `ringwall_llama.tuning`."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Final

import llama_cpp
import numpy as np
import numpy.typing as npt

from ringwall.errors import BadModelFile
from ringwall.model.files import Quality, Speed
from ringwall_llama.batch import Batch
from ringwall_llama.cells import keyed
from ringwall_llama.child import UNWRITABLE
from ringwall_llama.context import Room, new_context
from ringwall_llama.loaded import Loaded
from ringwall_llama.tuning import Reference

_TYPES: Final = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "IQ4_NL": 25}
"""llama.cpp's numbers of the formats (`llama_ftype`)."""

_PROMPT: Final = 512
_STEPS: Final = 24
_TOGETHER: Final = 8

_PIECE: Final = 256
_PIECES: Final = 4
_AFTER: Final = 32
"""Tokens at the beginning of each piece of text that are read and not judged: little stands before them."""

_ROWS: Final = 32
"""Compared at once: a distribution over a large vocabulary takes two megabytes."""

_FULL: Final = 2**20
"""Bytes free on a disk that is as good as full."""

Logits = npt.NDArray[np.float32]
"""A row for each token that is judged, a column for each of the vocabulary."""


def main(what: str, *arguments: str) -> None:
    """Do one thing, and print what came of it as JSON; the exit status says what cannot be used: model or disk."""
    try:
        if what == "requantise":
            requantise(Path(arguments[0]), Path(arguments[1]), arguments[2])
        elif what == "speed":
            _print(asdict(speed(Path(arguments[0]), int(arguments[1]))))
        elif what == "reference":
            _print(asdict(reference(Path(arguments[0]), Path(arguments[1]), sys.stdin.read())))
        else:
            _print(asdict(quality(Path(arguments[0]), Path(arguments[1]), sys.stdin.read())))
    except BadModelFile:
        sys.exit(1)
    except OSError as error:
        sys.exit(UNWRITABLE if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) else 1)


def requantise(path: Path, target: Path, format: str) -> None:
    """Write the model in another format. Raises `BadModelFile`."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = _TYPES[format]
    params.allow_requantize = True
    if llama_cpp.llama_model_quantize(os.fsencode(path), os.fsencode(target), params):
        if shutil.disk_usage(target.parent).free < _FULL:
            raise OSError(errno.ENOSPC, "no space left")
        raise BadModelFile(f"{path} cannot be made into {format}")


def speed(path: Path, threads: int) -> Speed:
    """How fast a prompt is read, one reply is written, and eight are."""
    context = _Context(Loaded(path), threads, _PROMPT + _TOGETHER * _STEPS + 256)
    tokens = [(7 * n + 100) % context.model.size for n in range(_PROMPT)]
    read = min(_timed(partial(context.begin, tokens)) for _ in range(2))
    one = statistics.median(_timed(partial(context.step, 1, _PROMPT + n)) for n in range(_STEPS))
    context.spread(_TOGETHER, _PROMPT)
    eight = statistics.median(_timed(partial(context.step, _TOGETHER, _PROMPT + n)) for n in range(_STEPS))
    return Speed(_PROMPT / read, 1 / one, _TOGETHER / eight)


def reference(path: Path, target: Path, text: str) -> Reference:
    """Keep in a folder what the original says of the text: so one model is in memory at a time, and asked once."""
    model = Loaded(path)
    tokens = model.tokens(text)
    pieces = _pieces(tokens)
    for number, logits in enumerate(_said(model, pieces)):
        np.save(target / f"{number}.npy", logits)
    return Reference(len(tokens), len(pieces))


def quality(path: Path, kept: Path, text: str) -> Quality:
    """What the model says of the text beside what was kept of the original."""
    model = Loaded(path)
    pieces = _pieces(model.tokens(text))
    rows = [
        row
        for number, (piece, mine) in enumerate(zip(pieces, _said(model, pieces), strict=True))
        for row in _compared(mine, np.load(kept / f"{number}.npy", mmap_mode="r"), np.array(piece[_AFTER + 1 :]))
    ]
    surprise, expected, divergence, agreed = np.concatenate(rows, axis=1)
    return Quality(
        perplexity=_exp(surprise.mean()),
        original=_exp(expected.mean()),
        kl=float(divergence.mean()),
        kl_error=float(divergence.std(ddof=1)) / math.sqrt(len(divergence)),
        agreement=float(agreed.mean()),
    )


def _pieces(tokens: list[int]) -> list[list[int]]:
    """At most so many pieces of one length, as far from each other as the text allows."""
    whole = len(tokens) // _PIECE
    count = min(whole, _PIECES)
    places = [number * whole // count * _PIECE for number in range(count)]
    return [tokens[place : place + _PIECE] for place in places]


def _said(model: Loaded, pieces: list[list[int]]) -> Iterator[Logits]:
    context = _Context(model, 0, _PIECE)
    for piece in pieces:
        yield context.logits(piece)[_AFTER:-1]


def _compared(mine: Logits, its: Logits, following: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.float64]]:
    """Of some rows at a time: the surprise at what follows, the original's, the divergence, and whether both agree."""
    for first in range(0, len(mine), _ROWS):
        some = slice(first, first + _ROWS)
        here, there, next_ = _log_probabilities(mine[some]), _log_probabilities(its[some]), following[some]
        each = np.arange(len(next_))
        divergence = (np.exp(there) * (there - here)).sum(axis=1)
        agreed = here.argmax(axis=1) == there.argmax(axis=1)
        yield np.stack([-here[each, next_], -there[each, next_], divergence, agreed])


def _log_probabilities(logits: Logits) -> npt.NDArray[np.float64]:
    rows = logits.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows


def _exp(mean: float) -> float:
    return math.exp(min(float(mean), 700.0))  # a broken model's surprise has no bounds


class _Context:
    """A model with a context of its own, with which tokens are computed one batch after the other."""

    def __init__(self, model: Loaded, threads: int, cells: int) -> None:
        self.model = model
        self._context: Any = new_context(model, Room(cells, cells, _TOGETHER, threads=threads))
        if not self._context:
            raise BadModelFile(f"{model.path} cannot be computed with")
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self._batch = Batch(_PROMPT)

    def begin(self, tokens: list[int], *, asked: int = 1) -> None:
        """Forget everything, and read these."""
        llama_cpp.llama_memory_clear(self._memory, False)
        self._batch.clear()
        self._batch.add(keyed(tokens, 0), 0, 0, asked=asked)
        self._compute()

    def spread(self, count: int, length: int) -> None:
        """Let so many sequences begin with the first tokens that were read, and forget the others."""
        llama_cpp.llama_memory_seq_rm(self._memory, 0, length, -1)
        for other in range(1, count):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, other, 0, length)

    def step(self, count: int, place: int) -> None:
        """Compute the next token of so many sequences."""
        self._batch.clear()
        for sequence in range(count):
            self._batch.add(keyed([(200 + sequence) % self.model.size], 0), sequence, place, asked=1)
        self._compute()

    def logits(self, tokens: list[int]) -> Logits:
        """The logits of what follows each token."""
        self.begin(tokens, asked=len(tokens))
        rows = llama_cpp.llama_get_logits(self._context)
        return np.ctypeslib.as_array(rows, (len(tokens), self.model.size)).copy()

    def _compute(self) -> None:
        if llama_cpp.llama_decode(self._context, self._batch.whole()):
            raise BadModelFile(f"{self.model.path} cannot be computed with")


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _print(figures: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(figures))
