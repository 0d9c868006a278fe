"""Spans of text that something was found in, and sentences, in which one looks for them."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

_END: Final = re.compile(r"\n|[.!?][\"')\]]*[ \t]")
_TRIES: Final = 20
_LONG: Final = 4000


class Span(NamedTuple):
    """Characters `start` to `end` (exclusive) of a text are of this kind: a word, as `email`."""

    start: int
    end: int
    kind: str


Finder = Callable[[str], Iterable[Span]]
"""Finds spans in a sentence. It is told nothing of the sentences around, so that a stream need not wait for them."""


def sentences(text: str) -> Iterator[str]:
    """The sentences of a text, each with what ends it: joined, they are the text."""
    start = 0
    for match in _END.finditer(text):
        yield text[start : match.end()]
        start = match.end()
    if start < len(text):
        yield text[start:]


def whole_sentences(text: str) -> int:
    """How many characters of a text that goes on are whole sentences."""
    end = 0
    for match in _END.finditer(text):
        end = match.end()
    return end


def apart(spans: Iterable[Span]) -> list[Span]:
    """The spans in order, those that overlap made into one, of the longest one's kind."""
    out: list[Span] = []
    for span in sorted(spans):
        if out and span.start < out[-1].end:
            last = out[-1]
            longest = max(last, span, key=lambda s: s.end - s.start)
            out[-1] = Span(last.start, max(last.end, span.end), longest.kind)
        elif span.end > span.start:
            out.append(span)
    return out


async def rewrite(text: str, find: Finder, put: Callable[[str, str], str]) -> tuple[str, Counter[str]]:
    """`rewritten`, in a thread if the text is long: others go on meanwhile."""
    if len(text) <= _LONG:
        return rewritten(text, find, put)
    return await asyncio.to_thread(rewritten, text, find, put)


def rewritten(text: str, find: Finder, put: Callable[[str, str], str]) -> tuple[str, Counter[str]]:
    """A text with `put(kind, found)` in place of what is found in each sentence, until nothing more is.

    What is put there may set free what it stands beside. Raises `ValueError` if that has no end.
    """
    found: Counter[str] = Counter()
    return "".join([_rewritten(sentence, find, put, found) for sentence in sentences(text)]), found


def _rewritten(sentence: str, find: Finder, put: Callable[[str, str], str], found: Counter[str]) -> str:
    for _ in range(_TRIES):
        spans = apart(find(sentence))
        if not spans:
            return sentence
        out: list[str] = []
        place = 0
        for start, end, kind in spans:
            out += (sentence[place:start], put(kind, sentence[start:end]))
            place = end
            found[kind] += 1
        sentence = "".join((*out, sentence[place:]))
    raise ValueError("what is put in place of what was found is found again")


__all__ = ["Finder", "Span", "apart", "rewrite", "rewritten", "sentences", "whole_sentences"]
