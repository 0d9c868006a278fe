"""Builds a `Parsed`: counts characters, and remembers where pages begin and what is hidden."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ringwall_files.faults import TooLarge
from ringwall_files.parsed import Limits, Parsed

Span = tuple[str, bool]
"""A piece of text, and whether it is hidden."""

Cell = Sequence[Span]

_LONE: Final = re.compile("[\ud800-\udfff]")
_SPACES: Final = re.compile(r"\s+")
_SMUGGLED: Final = re.compile(
    "[\U000e0000-\U000e007f]+|[\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff\U000e0100-\U000e01ef]{4,}"
)
"""Characters without a shape, as many as it takes to spell something out with them."""


class Writer:
    """Takes a document's pieces in reading order."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._parts: list[str] = []
        self._length = 0
        self._tail = "\n\n"
        self._pages: list[int] = []
        self._hidden: list[tuple[int, int]] = []

    @property
    def at_space(self) -> bool:
        """Whether what was written last is white space, or nothing was."""
        return self._tail[-1].isspace()

    def put(self, text: str, *, hidden: bool = False) -> None:
        """Add `text` as it is."""
        if not text:
            return
        start, self._length = self._length, self._length + len(text)
        if self._length > self._limits.characters:
            raise TooLarge("holds too much text", expected=f"at most {self._limits.characters:,} characters")
        self._parts.append(text)
        self._tail = (self._tail + text)[-2:]
        if hidden and text.strip():
            self._hide(start, self._length)

    def line_end(self) -> None:
        """Begin a new line, unless one was just begun."""
        if not self._tail.endswith("\n"):
            self.put("\n")

    def gap(self) -> None:
        """Begin a new paragraph, unless one was just begun."""
        self.line_end()
        if self._tail != "\n\n":
            self.put("\n")

    def page(self) -> None:
        """Begin a page, a slide or a sheet."""
        self.gap()
        self._pages.append(self._length)

    def paragraph(self, spans: Iterable[Span], *, prefix: str = "") -> None:
        """Add a paragraph; one without words is left out."""
        spans = list(spans)
        if not _words(spans):
            return
        self.gap()
        self.put(prefix)
        for text, hidden in spans:
            self.put(text, hidden=hidden)
        self.gap()

    def heading(self, level: int, spans: Iterable[Span]) -> None:
        """Add a heading of `level` 1 to 6, on one line."""
        self.paragraph(_on_one_line(spans), prefix="#" * min(max(level, 1), 6) + " ")

    def table(self, rows: Iterable[Sequence[Cell]]) -> None:
        """Add a table whose first row is its head; rows without words are left out."""
        self.gap()
        head = True
        for row in rows:
            if any(map(_words, row)):
                self._row(row)
                if head:
                    self.put("| --- " * len(row) + "|\n")
                head = False
        self.gap()

    def _row(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            self.put("| ")
            for text, hidden in _on_one_line(cell):
                self.put(text.replace("|", "\\|"), hidden=hidden)
            self.put(" ")
        self.put("|\n")

    def _hide(self, start: int, end: int) -> None:
        if self._hidden and self._hidden[-1][1] == start:
            start = self._hidden.pop()[0]
        self._hidden.append((start, end))

    def parsed(self, *, title: str = "") -> Parsed:
        """What was written, without white space at its end."""
        text = "".join(self._parts).rstrip()
        return parsed(text, pages=self._pages, title=title, hidden=self._hidden)


def parsed(text: str, *, pages: Iterable[int] = (), title: str = "", hidden: Iterable[tuple[int, int]] = ()) -> Parsed:
    """Make a `Parsed` of a text, whose smuggled characters count as hidden; what ends behind it is cut off."""
    clean, end = _LONE.sub("\ufffd", text), len(text)
    found = [*hidden, *(match.span() for match in _SMUGGLED.finditer(clean))]
    within = sorted((start, min(stop, end)) for start, stop in found if start < end)
    return Parsed(
        clean,
        tuple(min(page, end) for page in pages),
        _LONE.sub("\ufffd", _SPACES.sub(" ", title).strip()),
        tuple(_merged(within)),
    )


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Sorted ranges, those that overlap or touch made one."""
    last: tuple[int, int] | None = None
    for start, end in ranges:
        if last and start <= last[1]:
            last = (last[0], max(last[1], end))
        else:
            if last:
                yield last
            last = (start, end)
    if last:
        yield last


def _words(spans: Iterable[Span]) -> bool:
    return any(text.strip() for text, _ in spans)


def _on_one_line(spans: Iterable[Span]) -> list[Span]:
    """Spans with each run of white space made one space, none at either end."""
    line = [(_SPACES.sub(" ", text), hidden) for text, hidden in spans if text]
    if line:
        line[0] = (line[0][0].lstrip(), line[0][1])
        line[-1] = (line[-1][0].rstrip(), line[-1][1])
    return line
