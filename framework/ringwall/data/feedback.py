"""A second look: what the best passages say is asked for too.

The relevance model RM3 (Lavrenko and Croft, SIGIR 2001; Abdul-Jaleel et al., TREC 2004). It looks at passages that
the reader may read and at nothing else, so it tells nothing of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

PASSAGES: Final = 5
"""How many of the best passages are looked at."""

_TERMS: Final = 20
_WEIGHT: Final = 0.4


def asked(words: Iterable[str]) -> dict[str, float]:
    """The words of a question, each with how often it is asked for."""
    weights: dict[str, float] = {}
    for word in words:
        weights[word] = weights.get(word, 0.0) + 1.0
    return weights


def expanded(question: Mapping[str, float], best: Iterable[tuple[Mapping[str, int], float]]) -> dict[str, float]:
    """The question's words and those of the best passages, with what each counts; the sum is 1.

    `best` gives each passage's words with their counts, and its score.
    """
    terms: dict[str, float] = {}
    for counts, score in best:
        share = score / (sum(counts.values()) or 1)
        for word, count in counts.items():
            terms[word] = terms.get(word, 0.0) + share * count
    top = sorted(terms.items(), key=lambda item: (-item[1], item[0]))[:_TERMS]
    said, mass = sum(question.values()), sum(weight for _, weight in top)
    if not said or not mass:
        return dict(question)
    weights = {word: (1.0 - _WEIGHT) * weight / said for word, weight in question.items()}
    for word, weight in top:
        weights[word] = weights.get(word, 0.0) + _WEIGHT * weight / mass
    return weights
