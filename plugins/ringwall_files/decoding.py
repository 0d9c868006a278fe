"""From bytes to text: UTF-8, or what a byte order mark says; nothing is guessed."""

from __future__ import annotations

import codecs
from typing import BinaryIO, Final

from ringwall_files.faults import Unreadable

_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins like UTF-16's mark, so it is looked for first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decoded(file: BinaryIO) -> str:
    """Return the text of a file; raise `Unreadable`, naming the byte, for one that is no text."""
    return as_text(file.read())


def as_text(data: bytes, encoding: str = "utf-8") -> str:
    """Decode `data` as its byte order mark says, or else as `encoding`."""
    mark, encoding = next((found for found in _MARKS if data.startswith(found[0])), (b"", encoding))
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = error.start + len(mark)
        raise Unreadable(
            f"is not {encoding.upper()}: byte {data[at]:#04x} at position {at}",
            expected="text in UTF-8, or in UTF-16 with a byte order mark",
            hint="convert it, for instance with `iconv -f latin1 -t utf-8`",
        ) from error
    nul = text.find("\0")
    if nul >= 0:
        raise Unreadable(f"is not text: it holds a NUL, character {nul}", expected="a text file")
    return text.replace("\r\n", "\n").replace("\r", "\n")
