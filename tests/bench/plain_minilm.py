"""all-MiniLM-L6-v2 in plain numpy: what the plugin's vectors must agree with, and its speed is compared to.

Texts are computed longest first, in padded and masked batches, as sentence-transformers does.
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
BATCH: Final = 32
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
        tokens = [self._tokenizer.encode(text).ids for text in texts]
        order = sorted(range(len(tokens)), key=lambda i: -len(tokens[i]))
        rows = np.empty((len(tokens), 384), np.float32)
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            rows[batch] = self._forward(*_padded([tokens[i] for i in batch]))
        return rows

    def _forward(self, ids: npt.NDArray[np.int64], mask: Array) -> Array:
        w = self._weights
        x = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
        x = self._norm(x + w["embeddings.position_embeddings.weight"][: ids.shape[1]], "embeddings")
        unseen = ((mask - 1) * np.float32(1e9))[:, None, None, :]
        for layer in range(LAYERS):
            x = self._layer(x, unseen, f"encoder.layer.{layer}")
        mean = (x * mask[:, :, None]).sum(1) / mask.sum(1, keepdims=True)
        rows: Array = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return rows

    def _layer(self, x: Array, unseen: Array, name: str) -> Array:
        query, key, value = (self._heads(x, f"{name}.attention.self.{part}") for part in ("query", "key", "value"))
        scores = query @ key.transpose(0, 1, 3, 2) * np.float32(query.shape[-1] ** -0.5) + unseen
        seen = (_softmax(scores) @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = self._norm(x + self._linear(seen, f"{name}.attention.output.dense"), f"{name}.attention.output")
        inner = _gelu(self._linear(x, f"{name}.intermediate.dense"))
        return self._norm(x + self._linear(inner, f"{name}.output.dense"), f"{name}.output")

    def _heads(self, x: Array, name: str) -> Array:
        return self._linear(x, name).reshape(*x.shape[:2], HEADS, -1).transpose(0, 2, 1, 3)

    def _linear(self, x: Array, name: str) -> Array:
        flat = x.reshape(-1, x.shape[-1]) @ self._weights[f"{name}.weight"].T
        flat += self._weights[f"{name}.bias"]
        return flat.reshape(*x.shape[:-1], -1)

    def _norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        centred /= np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(1e-12))
        scaled: Array = centred * self._weights[f"{name}.LayerNorm.weight"] + self._weights[f"{name}.LayerNorm.bias"]
        return scaled


def _padded(tokens: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], Array]:
    """The token ids as a rectangle, and a 1 wherever there is one."""
    ids = np.zeros((len(tokens), max(map(len, tokens))), np.int64)
    mask = np.zeros(ids.shape, np.float32)
    for row, text in enumerate(tokens):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask


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
