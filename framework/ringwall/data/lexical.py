"""Words, and what each counts: the lexical half of a search, in whatever the words are kept."""

from __future__ import annotations

import math
import re
import threading
from typing import Final

import Stemmer

K1: Final = 1.2
B: Final = 0.75

_WORD: Final = re.compile(r"[^\W_]+")
_UNSPACED: Final = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
"""Characters of scripts that write without spaces: each is a word."""
_LOWER: Final = {code: chr(code).lower() if chr(code).isalnum() else " " for code in range(128)}
"""For text in ASCII, the same as `_WORD` and `lower`, at a third of the cost."""
_REMEMBERED: Final = 1 << 14
"""Words of which the stem is remembered."""

_CLOSED: Final = """
    a about above after again all also am an and any are as at be because been before being below between both but by
    can could did do does doing done down during each few for from further had has have having he her here hers him
    his how i if in into is it its itself just me more most my no nor not now of off on once only or other our ours
    out over own same shall she should so some such than that the their theirs them then there these they this those
    through to too under until up upon us very was we were what when where which while who whom whose why will with
    would you your yours
"""
_FUNCTION_WORDS: Final = frozenset(_CLOSED.split())
"""The closed classes of English: they are everywhere and tell nothing."""


class _Stems(dict[str, str]):
    """The stem of each word that was asked about, until they are too many; "" of a function word."""

    def __init__(self) -> None:
        self.stemmer = Stemmer.Stemmer("english", 0)

    def __missing__(self, word: str) -> str:
        if len(self) >= _REMEMBERED:
            self.clear()
        stem: str = "" if word in _FUNCTION_WORDS else self.stemmer.stemWord(word)
        self[word] = stem
        return stem


class _Stemmers(threading.local):
    """One stemmer for each thread: they are not to be shared."""

    def __init__(self) -> None:
        self.english = _Stems()


_STEMMERS: Final = _Stemmers()


def words(text: str) -> list[str]:
    """The words of `text` as they are compared: stems (Porter, "Snowball", 2001), in order, without function words.

    A text of function words alone keeps them: `The Who` is a question too.
    """
    stems = _STEMMERS.english
    found = spelled(text)
    telling = list(filter(None, map(stems.__getitem__, found)))
    return telling or [stems.stemmer.stemWord(word) for word in found]


def spelled(text: str) -> list[str]:
    """The words of `text` as they are spelled, in small letters, in order."""
    if text.isascii():
        return text.translate(_LOWER).split()
    return _WORD.findall(_UNSPACED.sub(r" \g<0> ", text).lower())


def rarity(holding: int, count: int) -> float:
    """What a word counts that stands in `holding` of `count` passages.

    BM25's inverse document frequency, never negative (Robertson and Zaragoza, "The Probabilistic Relevance
    Framework", 2009, with Lucene's `1 +`).
    """
    return math.log(1.0 + (count - holding + 0.5) / (holding + 0.5))


def saturation(times: int, length: int, mean: float) -> float:
    """What `times` occurrences in a passage of `length` words count, `mean` being the mean length (BM25)."""
    return times * (K1 + 1.0) / (times + K1 * (1.0 - B + B * length / mean))
