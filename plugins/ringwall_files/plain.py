"""Plain text, Markdown and source code: the text as it stands."""

from __future__ import annotations

import re
from typing import BinaryIO, Final

from ringwall_files.decoding import decoded
from ringwall_files.faults import TooLarge
from ringwall_files.parsed import Limits, Parsed
from ringwall_files.writing import parsed

_TITLE: Final = re.compile(r"^#[ \t]+(.+)", re.MULTILINE)
_COMMENT: Final = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)


def read(file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
    """Return the text; in Markdown, the first heading is its title, and comments are hidden."""
    text = decoded(file)
    if len(text) > limits.characters:
        raise TooLarge("holds too much text", expected=f"at most {limits.characters:,} characters")
    if suffix != ".md":
        return parsed(text)
    title = _TITLE.search(text)
    return parsed(text, title=title[1] if title else "", hidden=(found.span() for found in _COMMENT.finditer(text)))
