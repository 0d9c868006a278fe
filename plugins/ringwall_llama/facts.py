"""What a GGUF file tells of its model: its size, and what a token of it costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Final

from ringwall.model.files import ModelFacts
from ringwall_llama.gguf import Gguf, Tensor, read_gguf

_KINDS: Final = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K",
    13: "Q5_K", 14: "Q6_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 20: "IQ4_NL", 21: "IQ3_S",
    22: "IQ2_S", 23: "IQ4_XS", 29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip

_HALF: Final = 2
"""Bytes of a number in the KV memory: f16."""


def facts_of(path: Path) -> ModelFacts:
    """Read the header of a GGUF file. Raises `BadModelFile`."""
    file = read_gguf(path)
    header = _Header(file)
    layers, heads = header.number("block_count"), header.numbers("attention.head_count")
    width = header.number("embedding_length")
    size = width // max(heads[0], 1)
    keys, values = header.number("attention.key_length", size), header.number("attention.value_length", size)
    kv_heads = header.numbers("attention.head_count_kv", heads)
    weights = sum(prod(tensor.shape) for tensor in file.tensors)
    return ModelFacts(
        name=str(file.metadata.get("general.name", path.stem)),
        architecture=header.architecture,
        licence=str(file.metadata.get("general.license", "")),
        bytes=path.stat().st_size,
        quantisation=_commonest(file.tensors),
        parameters=weights,
        bits_per_weight=8 * sum(tensor.length for tensor in file.tensors) / max(weights, 1),
        window=header.number("context_length"),
        layers=layers,
        kv_bytes=_HALF * (keys + values) * _total(kv_heads, layers),
        flops=2 * sum(_multiplied(file.tensors, header)),
        flops_per_context=2 * (keys + values) * _total(heads, layers),
    )


class _Header:
    """Metadata by the names that every architecture puts its own in front of."""

    def __init__(self, file: Gguf) -> None:
        self._metadata = file.metadata
        self.architecture = str(file.metadata.get("general.architecture", ""))

    def number(self, name: str, default: int = 0) -> int:
        return self.numbers(name, (default,))[0]

    def numbers(self, name: str, default: tuple[int, ...] = (0,)) -> tuple[int, ...]:
        """One number for all layers, or one for each."""
        value = self._metadata.get(f"{self.architecture}.{name}")
        if isinstance(value, tuple):
            return value or default
        return (int(value),) if isinstance(value, int | float) else default


def _total(numbers: tuple[int, ...], layers: int) -> int:
    return sum(numbers) if len(numbers) == layers else numbers[0] * layers


def _multiplied(tensors: Iterable[Tensor], header: _Header) -> Iterable[int]:
    """The weights that a token is multiplied with, tensor by tensor."""
    each = list(tensors)
    is_tied = not any(tensor.name == "output.weight" for tensor in each)
    used, experts = header.number("expert_used_count"), header.number("expert_count")
    for tensor in each:
        if len([side for side in tensor.shape if side > 1]) < 2 or (tensor.name == "token_embd.weight" and not is_tied):
            continue
        share = used / experts if "_exps." in tensor.name and experts else 1.0
        yield round(prod(tensor.shape) * share)


def _commonest(tensors: Iterable[Tensor]) -> str:
    """The type that most bytes are of."""
    sizes: Counter[int] = Counter()
    for tensor in tensors:
        sizes[tensor.kind] += tensor.length
    kind = sizes.most_common(1)[0][0]
    return _KINDS.get(kind, str(kind))
