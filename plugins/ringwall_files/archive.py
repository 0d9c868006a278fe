"""Checks an Office file, which is a zip archive of XML, before a parser unpacks it.

Zip bombs show in the central directory, and Python's `zipfile` never unpacks more of a part than it says there.
Entity bombs need a document type, which no Office file has.
"""

from __future__ import annotations

import zipfile
import zlib
from typing import IO, BinaryIO, Final
from xml.parsers import expat

from ringwall_files.faults import TooLarge, Unreadable
from ringwall_files.parsed import MEGABYTE, Limits

_SMALL: Final = MEGABYTE
"""A part of fewer bytes may be packed however well."""

_PIECE: Final = 4096


def check_archive(file: BinaryIO, limits: Limits) -> None:
    """Raise for an archive that is damaged, encrypted, unpacks to too much, or holds a document type."""
    try:
        with zipfile.ZipFile(file) as archive:
            _check_sizes(archive, limits)
            for part in archive.infolist():
                if part.filename.lower().endswith((".xml", ".rels", ".vml")):
                    with archive.open(part) as xml:
                        _check_prolog(xml, part.filename)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise Unreadable(f"is damaged: {error}", expected="a whole Office file") from error
    file.seek(0)


def _check_sizes(archive: zipfile.ZipFile, limits: Limits) -> None:
    parts = archive.infolist()
    total = sum(part.file_size for part in parts)
    if total > limits.unpacked:
        raise TooLarge(
            f"unpacks to {total / MEGABYTE:,.1f} MB", expected=f"at most {limits.unpacked / MEGABYTE:,.1f} MB"
        )
    for part in parts:
        if part.flag_bits & 1:
            raise Unreadable("is encrypted", expected="an Office file without a password")
        if part.file_size > max(_SMALL, part.compress_size * limits.ratio):
            raise TooLarge(
                f"has a part packed {part.file_size // max(part.compress_size, 1)} times, as zip bombs do: "
                f"{part.filename!r}",
                expected=f"at most {limits.ratio} times",
            )


class _Begun(Exception):
    """The prolog is over."""


def _check_prolog(xml: IO[bytes], name: str) -> None:
    """Read up to the first element, and raise if a document type came before it."""
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = _begin
    try:
        while piece := xml.read(_PIECE):
            parser.Parse(piece)
    except _Begun:
        return
    except expat.ExpatError as error:
        raise Unreadable(f"is damaged: {name!r} is not XML: {error}", expected="a whole Office file") from error


def _refuse_doctype(*_: object) -> None:
    raise Unreadable("holds a document type, as entity bombs do", expected="an Office file, which has none")


def _begin(*_: object) -> None:
    raise _Begun
