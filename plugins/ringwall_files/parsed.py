"""What a file gives, and what reading it may cost."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

MEGABYTE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Parsed:
    """The text of a file, with what a reader needs to cite it and to distrust it.

    `text` has headings as Markdown's `#` lines and tables as its rows. `pages` says at which character each
    page, slide or sheet begins, in ascending order; an empty page begins where the next one does, and a format
    without pages has none. `hidden` are the character ranges, end exclusive, of text that somebody who looks at
    the file does not see.
    """

    text: str
    pages: tuple[int, ...] = ()
    title: str = ""
    hidden: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        _check_ascending((0, *self.pages, len(self.text)))
        _check_ascending((0, *(at for found in self.hidden for at in found), len(self.text)))

    def page_at(self, at: int) -> int:
        """The number, from 1, of the page that holds character `at`; 0 if the format has no pages."""
        return bisect_right(self.pages, at)


def _check_ascending(places: tuple[int, ...]) -> None:
    if any(here > there for here, there in pairwise(places)):
        raise ValueError("places that are not ascending within the text")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost; more is refused with `TooLarge`.

    `size` of the file in bytes; `unpacked` bytes of an Office file's parts, none of which may be packed more than
    `ratio` times; `characters` of text. The child process has `memory` bytes of address space, `cpu` seconds of
    computing and `seconds` on the clock. Text formats up to `inline` bytes are parsed without a child process.
    """

    size: int = 200 * MEGABYTE
    unpacked: int = 1_000 * MEGABYTE
    ratio: int = 200
    characters: int = 50 * MEGABYTE
    memory: int = 2_000 * MEGABYTE
    cpu: int = 60
    seconds: float = 120
    inline: int = 4 * MEGABYTE
