"""What is measured of a model, in a process that does nothing else: see `ringwall_llama.tuning`."""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import llama_cpp
import numpy as np
import numpy.typing as npt

from ringwall.errors import BadModelFile
from ringwall_llama.batch import Batch
from ringwall_llama.cells import keyed
from ringwall_llama.engine import Room, new_context
from ringwall_llama.loaded import Loaded
from ringwall_llama.sampling import logits_of
from ringwall_llama.tuning import Quality, Speed

_TYPES: Final = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "IQ4_NL": 25}
"""llama.cpp's numbers of the formats (`llama_ftype`)."""

_PROMPT: Final = 512
_STEPS: Final = 24
_TOGETHER: Final = 8
_CHUNK: Final = 256
_CHUNKS: Final = 16
_AFTER: Final = 32
"""Tokens at the beginning of each piece of text that are read and not judged: nothing stands before them."""

Distribution = npt.NDArray[np.float64]


def main(what: str, *arguments: str) -> None:
    """Do one thing, and print what came of it as JSON; exits with 1 when the model cannot be used."""
    try:
        if what == "requantise":
            requantise(Path(arguments[0]), Path(arguments[1]), arguments[2])
        elif what == "speed":
            _print(asdict(speed(Path(arguments[0]), int(arguments[1]))))
        else:
            _print(asdict(quality(Path(arguments[0]), Path(arguments[1]), sys.stdin.read())))
    except BadModelFile:
        sys.exit(1)


def requantise(path: Path, target: Path, format: str) -> None:
    """Write the model in another format. Raises `BadModelFile`."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = _TYPES[format]
    params.allow_requantize = True
    if llama_cpp.llama_model_quantize(os.fsencode(path), os.fsencode(target), params):
        raise BadModelFile(f"{path} cannot be made into {format}")


def speed(path: Path, threads: int) -> Speed:
    """How fast a prompt is read, one reply is written, and eight are."""
    context = _Context(Loaded(path), threads, _PROMPT + _TOGETHER * _STEPS + 256)
    tokens = [(7 * n) % 10_000 + 100 for n in range(_PROMPT)]
    read = min(_timed(lambda: context.begin(tokens)) for _ in range(2))
    context.begin(tokens)
    one = statistics.median(_timed(lambda step=step: context.step(1, _PROMPT + step)) for step in range(_STEPS))
    context.begin(tokens)
    context.spread(_TOGETHER, _PROMPT)
    eight = statistics.median(
        _timed(lambda step=step: context.step(_TOGETHER, _PROMPT + step)) for step in range(_STEPS)
    )
    return Speed(_PROMPT / read, 1 / one, _TOGETHER / eight)


def quality(path: Path, original: Path, text: str) -> Quality:
    """What the model says of the text beside the original."""
    here, there = (_Context(Loaded(p), 0, _CHUNK) for p in (path, original))
    tokens = here.model.tokens(text)
    surprise, expected, divergence, agreed = [], [], [], []
    for first in range(0, min(len(tokens), _CHUNK * _CHUNKS) - _CHUNK + 1, _CHUNK):
        piece = tokens[first : first + _CHUNK]
        for place, (mine, its) in enumerate(zip(here.distributions(piece), there.distributions(piece), strict=True)):
            if _AFTER <= place < _CHUNK - 1:
                following = piece[place + 1]
                surprise.append(-mine[following])
                expected.append(-its[following])
                divergence.append(float((np.exp(its) * (its - mine)).sum()))
                agreed.append(mine.argmax() == its.argmax())
    if not surprise:
        raise BadModelFile(f"the text is too short to compare {path} on: {len(tokens)} tokens")
    means = [float(np.mean(values)) for values in (surprise, expected, divergence, agreed)]
    return Quality(math.exp(means[0]), math.exp(means[1]), means[2], means[3])


class _Context:
    """A model with a context of its own, with which tokens are computed one batch after the other."""

    def __init__(self, model: Loaded, threads: int, cells: int) -> None:
        self.model = model
        self._context: Any = new_context(model, Room(cells, cells, _TOGETHER, threads=threads))
        if not self._context:
            raise BadModelFile(f"{model.path} cannot be computed with")
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self._batch = Batch(512)

    def begin(self, tokens: list[int], *, asked: int = 1) -> None:
        """Forget everything, and read these."""
        llama_cpp.llama_memory_clear(self._memory, False)
        self._batch.clear()
        self._batch.add(keyed(tokens, 0), 0, 0, asked=asked)
        self._compute()

    def spread(self, count: int, length: int) -> None:
        """Let so many sequences begin with what was read."""
        for other in range(1, count):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, other, 0, length)

    def step(self, count: int, place: int) -> None:
        """Compute the next token of so many sequences."""
        self._batch.clear()
        for sequence in range(count):
            self._batch.add(keyed([200 + sequence], 0), sequence, place, asked=1)
        self._compute()

    def distributions(self, tokens: list[int]) -> list[Distribution]:
        """The logarithms of the probabilities of what follows each token."""
        self.begin(tokens, asked=len(tokens))
        logits = (logits_of(self._context, row, self.model).astype(np.float64) for row in range(len(tokens)))
        return [row - row.max() - math.log(np.exp(row - row.max()).sum()) for row in logits]

    def _compute(self) -> None:
        if llama_cpp.llama_decode(self._context, self._batch.whole()):
            raise BadModelFile(f"{self.model.path} cannot be computed with")


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _print(figures: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(figures))
