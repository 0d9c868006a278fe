"""How alike two texts are: the share of their shingles, runs of words, that both have."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from ringwall.data.lexical import spelled
from ringwall.errors import InvalidInput

THRESHOLD: Final = 0.9
SHINGLE: Final = 4
"""Both as in Manning, Raghavan and Schütze, "Introduction to Information Retrieval" (2008), chapter 19.6."""


def shingles(text: str) -> frozenset[str]:
    """Every run of four words (Broder, "On the resemblance and containment of documents", 1997), as it is written.

    Stems and function words would not do: `may` and `may not` must differ. Of fewer words all are one run, and of a
    text without words so is the text.
    """
    words = spelled(text)
    if len(words) < SHINGLE:
        return frozenset((" ".join(words) or text,))
    return frozenset(map(" ".join, zip(*(words[n:] for n in range(SHINGLE)), strict=False)))


def likeness(a: Set[object], b: Set[object]) -> float:
    """The share of all that both have (Jaccard): 1 if they are the same."""
    common = len(a & b)
    return common / (len(a) + len(b) - common)


def may_be_alike(a: Set[object], b: Set[object], threshold: float) -> bool:
    """Whether their sizes alone allow a likeness of `threshold`."""
    return min(len(a), len(b)) >= threshold * max(len(a), len(b))


def check_threshold(threshold: float) -> None:
    """Raises `InvalidInput` unless it is a likeness that something can have and something can lack."""
    if not 0.0 < threshold <= 1.0:
        raise InvalidInput(f"a likeness of {threshold}", expected="more than 0, and at most 1")
