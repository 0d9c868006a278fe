"""What a text is made of: parts that are kept whole where they fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

_LONGEST: Final = 200
"""Characters of a heading, or of a table's head, that count: they travel with every passage below."""

# Possessive all through: nothing is tried twice, so a text takes time proportional to its length.
_HEADING: Final = r"[ ]{0,3}\#{1,6}(?=[ \t\r\n]|\Z)"
_FENCE: Final = r"[ \t]*+(?:`{3,}+(?![^\n]*`)|~{3,}+)"
_HEAD: Final = r"[^|\n]*+\|[^\n]*+\n(?=[^-\n]*+-)(?=[^|\n]*+\|)[ \t:|-]++\r?+(?=\n|\Z)"
_WORDS: Final = r"(?=[^\S\n]*+\S)[^\n]++"
_PART: Final = re.compile(
    rf"""
    ^(?P<heading>{_HEADING}[^\n]*+)
    | ^(?={_FENCE})[ \t]*+(?P<fence>`++|~++)[^\n]*+
        (?:\n(?![ \t]*+(?P=fence)[`~]*+[ \t\r]*+(?:\n|\Z))[^\n]*+)*+(?:\n[^\n]*+)?+
    | ^(?P<table>{_HEAD})(?:\n(?=[^|\n]*+\|)[^\n]++)*+
    | ^(?P<title>[ ]{{0,3}}[^\s>|*+-][^\n]*+)\n[ ]{{0,3}}(?P<line>=++|-++)[ \t\r]*+(?=\n|\Z)
    | ^{_WORDS}(?:\n(?!{_HEADING}|{_FENCE}|{_HEAD}){_WORDS})*+
    """,
    re.MULTILINE | re.VERBOSE,
)
_LINE_END: Final = re.compile(r"\n")
_PARAGRAPH: Final = re.compile(rf"^{_WORDS}(?:\n{_WORDS})*+", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Part:
    """A paragraph, a heading, a table or a block of code: characters `start` to `end`.

    `heading` are the headings it stands under, a heading's own included; `level` is a heading's, or 0. `rows` say
    where the rows of a table begin, and `columns` is its head.
    """

    start: int
    end: int
    heading: tuple[str, ...] = ()
    level: int = 0
    rows: tuple[int, ...] = ()
    columns: str = ""


Structure = Callable[[str], Iterator[Part]]
"""Tells the parts of a text, in order. Between them is nothing but white space."""


def markdown(text: str) -> Iterator[Part]:
    """Paragraphs, headings of both kinds, tables and fenced blocks; a fence without an end goes to the end."""
    above: list[tuple[int, str]] = []
    path: tuple[str, ...] = ()
    for found in _PART.finditer(text):
        level, title = _heading(found)
        if level:
            above = [*((one, name) for one, name in above if one < level), (level, title)]
            path = tuple(name for _, name in above)
        head = found["table"]
        rows = _line_starts(text, found.end("table"), found.end()) if head else ()
        yield Part(found.start(), found.end(), path, level, rows, _short(head.partition("\n")[0]) if head else "")


def plain(text: str) -> Iterator[Part]:
    """Paragraphs: what stands between blank lines."""
    return (Part(*found.span()) for found in _PARAGRAPH.finditer(text))


def whole(text: str) -> Iterator[Part]:
    """One part."""
    yield Part(0, len(text))


def table(text: str) -> Iterator[Part]:
    """The rows of a CSV file, the first of them its head; what is a Markdown table already is one."""
    first = text.lstrip()
    if first.startswith(("|", "#")):
        return markdown(text)
    return iter([_csv(text, len(text) - len(first))])


def _csv(text: str, start: int) -> Part:
    """A row goes on over the end of a line that stands between quotation marks."""
    begins, rows, quotes = [start, *_line_starts(text, start, len(text))], [], 0
    for here, there in pairwise([*begins, len(text)]):
        if quotes % 2 == 0 and here < there:
            rows.append(here)
        quotes += text.count('"', here, there)
    return Part(start, len(text), rows=tuple(rows[1:]), columns=_short(text[start : rows[1]]) if rows[1:] else "")


def _heading(found: re.Match[str]) -> tuple[int, str]:
    if found["heading"] is not None:
        line = found["heading"].strip()
        title = line.lstrip("#")
        return len(line) - len(title), _short(title.strip().rstrip("#"))
    if found["title"] is not None:
        return 1 if found["line"][0] == "=" else 2, _short(found["title"])
    return 0, ""


def _line_starts(text: str, start: int, end: int) -> tuple[int, ...]:
    """Where lines begin after the line ends in `start <= place < end`."""
    return tuple([found.end() for found in _LINE_END.finditer(text, start, end)])


def _short(line: str) -> str:
    line = " ".join(line[: 2 * _LONGEST].split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
