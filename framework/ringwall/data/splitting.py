"""Cuts a text where its author would: before a heading, between paragraphs, after a sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import Final, Protocol, runtime_checkable

from ringwall.data.base import Scalar
from ringwall.errors import InvalidInput
from ringwall.schema import JSON

_CUTS: Final = ("\n#", "\n\n", "\n", ". ", " ")
"""Where to cut, best first. A heading opens the next passage; the others close the one before."""

_SPACE: Final = re.compile(r"\s")
_WORD: Final = re.compile(r"\S")


@dataclass(frozen=True, slots=True)
class Passage:
    """A piece of a text: `text` stands there at characters `start` to `end` (end exclusive).

    `metadata` is what a splitter knows about it: `heading`, what it stands under, and `columns`, the head of the
    table it was cut from. Where the document has metadata of the same name, that counts.
    """

    text: str
    start: int
    end: int
    metadata: Mapping[str, Scalar] = field(default_factory=dict, hash=False)


Splitter = Callable[[str], list[Passage]]
"""Cuts a text into passages. None for a text without words.

What a probe of some pages does not show, a size for instance, it may say in an attribute `recipe`: when that
changes, documents are cut anew.
"""


class TextSplitter(Protocol):
    """LangChain's `TextSplitter`, or anything that splits like one."""

    def split_text(self, text: str) -> list[str]: ...


@runtime_checkable
class CountsTokens(Protocol):
    """An embedder that says how many tokens it would read of a text if it read all of it, special ones included."""

    def tokens(self, text: str) -> int: ...


def split(text: str, size: int = 1000, overlap: int = 100) -> list[Passage]:
    """Cut `text` into passages of at most `size` characters, repeating at most `overlap` of the one before.

    White space at either end is left out; a heading begins a passage, without overlap. Text without words
    gives none. Takes time proportional to the length.
    Raises `InvalidInput` unless `0 <= overlap <= size / 2`.
    """
    if size < 1 or not 0 <= overlap <= size // 2:
        raise InvalidInput(
            f"passages of {size} characters with an overlap of {overlap}",
            expected="a size of at least 1 and an overlap between 0 and half of it",
        )
    return [p for start, end in _ranges(text, size, overlap) if (p := _trimmed(text, start, end)).text]


class ByKind:
    """A splitter for each kind of document: `ByKind({".py": code, ".md": markdown}, default=split)`.

    The kind is what a document's id ends with, from its last dot on, in small letters.
    """

    def __init__(self, kinds: Mapping[str, Splitter | TextSplitter], default: Splitter | TextSplitter = split) -> None:
        self._kinds = {suffix: _as_splitter(splitter) for suffix, splitter in kinds.items()}
        self._default = _as_splitter(default)

    def of(self, document: str) -> Splitter:
        """The splitter for the document with this id."""
        return self._kinds.get(PurePosixPath(document).suffix.lower(), self._default)

    def recipe(self, probe: str) -> JSON:
        """What tells these splitters from others: how they cut a probe, and what they say themselves."""
        every = {"": self._default, **self._kinds}
        return {suffix: _recipe(splitter, probe) for suffix, splitter in every.items()}


def by_kind(splitter: Splitter | TextSplitter | ByKind) -> ByKind:
    """Return `splitter` if it tells kinds apart, or one that gives it to all."""
    return splitter if isinstance(splitter, ByKind) else ByKind({}, splitter)


def _as_splitter(splitter: Splitter | TextSplitter) -> Splitter:
    return splitter if callable(splitter) else partial(_split_with, splitter)


def _recipe(splitter: Splitter, probe: str) -> JSON:
    cuts: list[JSON] = [[passage.start, passage.end] for passage in splitter(probe)]
    return [cuts, str(getattr(splitter, "recipe", ""))]


def _split_with(splitter: TextSplitter, text: str) -> list[Passage]:
    """Split, and find each piece again; one that the splitter rewrote has the range 0 to 0, known nowhere."""
    passages, searched = [], 0
    for piece in splitter.split_text(text):
        start = text.find(piece, searched)
        if start >= 0:
            searched = start + 1  # pieces may overlap, so the next may begin anywhere after this one's start
            passages.append(Passage(piece, start, start + len(piece)))
        else:
            passages.append(Passage(piece, 0, 0))
    return [p for p in passages if p.text.strip()]


def _ranges(text: str, size: int, overlap: int) -> Iterator[tuple[int, int]]:
    start = 0
    while len(text) - start > size:
        end = _cut(text, start + size // 2, start + size)
        yield start, end
        at_heading = text.startswith("#", end)
        start = end if at_heading else _word_start(text, max(end - overlap, _first_word(text, start, end)), end)
    yield start, len(text)


def _cut(text: str, low: int, high: int) -> int:
    """The best place to cut in `low < place <= high`: the last of the best kind there is, or `high`."""
    for mark in _CUTS:
        at = text.rfind(mark, low, high)
        if at >= 0:
            return at + (1 if mark == "\n#" else len(mark))
    return high


def _first_word(text: str, start: int, end: int) -> int:
    """Where the first word of a passage begins: the next must begin after it, or it would repeat it all."""
    word = _WORD.search(text, start, end)
    return word.start() if word else start


def _word_start(text: str, low: int, high: int) -> int:
    """The first place in `low < place <= high` where a word begins after a space; `high` if there is none."""
    space = _SPACE.search(text, low, high)
    return space.end() if space else high


def _trimmed(text: str, start: int, end: int) -> Passage:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    piece = piece.strip()
    return Passage(piece, start, start + len(piece))
