"""Two rankings into one: what the words say and what the vectors say."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final, TypeVar

T = TypeVar("T", bound=Hashable)

DENSE_WEIGHT: Final = 0.3
"""What meaning counts beside words, which count 1: for a small static embedder; a strong one earns 0.5."""


def fuse(lexical: Mapping[T, float], dense: Mapping[T, float], *, dense_weight: float = DENSE_WEIGHT) -> dict[T, float]:
    """Add both scores, each stretched to 0..1 over all that was found; one that is missing counts as 0.

    Where one side found nothing the other's scores are returned as they are.
    """
    if not lexical or not dense:
        return dict(lexical or dense)
    words, meaning = _stretched(lexical, floor=0.0), _stretched(dense, floor=min(dense.values()))
    return {key: words.get(key, 0.0) + dense_weight * meaning.get(key, 0.0) for key in {**words, **meaning}}


def _stretched(scores: Mapping[T, float], *, floor: float) -> dict[T, float]:
    span = (max(scores.values()) - floor) or 1.0
    return {key: (score - floor) / span for key, score in scores.items()}
