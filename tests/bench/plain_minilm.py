"""all-MiniLM-L6-v2 in plain numpy: what the plugin's vectors must agree with, and its speed is compared to.

One text after another: nothing is padded, and a passage keeps a core busy alone. Padded batches of 8 to 32
passages, as sentence-transformers makes them, take one and a half times to twice as long here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from tokenizers import Tokenizer

Array = npt.NDArray[np.float32]

HEADS: Final = 12
LAYERS: Final = 6
LONGEST: Final = 256


class PlainMiniLm:
    """The forward pass as the papers write it, one numpy operation after another."""

    def __init__(self, folder: Path) -> None:
        self._weights: dict[str, Array] = load_file(folder / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(LONGEST)

    def embed(self, texts: Sequence[str]) -> Array:
        """Return a row of unit length for each text."""
        return np.array([self._vector(self._tokenizer.encode(text).ids) for text in texts])

    def _vector(self, ids: list[int]) -> Array:
        mean = self.states(ids).mean(0)
        vector: Array = mean / np.linalg.norm(mean)
        return vector

    def states(self, ids: list[int]) -> Array:
        """What the last layer makes of each token."""
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x + w["embeddings.position_embeddings.weight"][: len(ids)], "embeddings")
        for layer in range(LAYERS):
            x = self._layer(x, f"encoder.layer.{layer}")
        return x

    def _layer(self, x: Array, name: str) -> Array:
        query, key, value = (self._heads(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        scores = query @ key.transpose(0, 2, 1) * np.float32(query.shape[-1] ** -0.5)
        seen = (_softmax(scores) @ value).transpose(1, 0, 2).reshape(x.shape)
        x = self._norm(x + self._linear(seen, f"{name}.attention.output.dense"), f"{name}.attention.output")
        inner = _gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output")

    def _heads(self, x: Array, name: str) -> Array:
        return self._linear(x, name).reshape(len(x), HEADS, -1).transpose(1, 0, 2)

    def _linear(self, x: Array, name: str) -> Array:
        y: Array = x @ self._weights[f"{name}.weight"].T
        y += self._weights[f"{name}.bias"]
        return y

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        centred /= np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(1e-12))
        scaled: Array = centred * self._weights[f"{name}.LayerNorm.weight"] + self._weights[f"{name}.LayerNorm.bias"]
        return scaled


def _softmax(scores: Array) -> Array:
    raised: Array = np.exp(scores - scores.max(-1, keepdims=True))
    raised /= raised.sum(-1, keepdims=True)
    return raised


def _gelu(x: Array) -> Array:
    half: Array = x * np.float32(0.5)
    return half * (1 + _erf(x * np.float32(2**-0.5)))


def _erf(x: Array) -> Array:
    """The error function, off by 1.5e-7 at most (Abramowitz and Stegun, 7.1.26): numpy has none."""
    t = 1 / (1 + np.float32(0.3275911) * np.abs(x))
    series = np.zeros_like(t)
    for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = (series + np.float32(factor)) * t
    erf: Array = np.copysign(1 - series * np.exp(-x * x), x)
    return erf
