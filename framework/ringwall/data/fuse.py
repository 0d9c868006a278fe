"""Two rankings into one: what the words say and what the vectors say."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final, TypeVar

T = TypeVar("T", bound=Hashable)

DENSE_WEIGHT: Final = 0.8
"""What meaning counts beside words, which count 1."""

NOISE: Final = 1e-6
"""A cosine up to here is one of 0, and how 32-bit numbers were rounded: as a share of itself it would count whole."""


def fuse(lexical: Mapping[T, float], dense: Mapping[T, float], *, dense_weight: float = DENSE_WEIGHT) -> dict[T, float]:
    """Add both scores, each as its share of the best of its side; what is missing, or negative, counts as 0.

    So do cosines of which none is above `NOISE`. Where one side found nothing the other's scores are returned as they
    are.
    """
    if not lexical or not dense:
        return dict(lexical or dense)
    words, meaning = _shares(lexical, of=1.0), _shares(dense, of=dense_weight, above=NOISE)
    return {key: words.get(key, 0.0) + meaning.get(key, 0.0) for key in {**words, **meaning}}


def _shares(scores: Mapping[T, float], *, of: float, above: float = 0.0) -> dict[T, float]:
    best = max(scores.values())
    share = of / best if best > above else 0.0
    return {key: max(score, 0.0) * share for key, score in scores.items()}
