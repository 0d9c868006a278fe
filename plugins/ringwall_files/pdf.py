"""PDF: the text of each page, with what nobody sees on it marked as hidden."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from ctypes import addressof, byref, c_float, c_int, c_uint
from itertools import groupby
from typing import Any, BinaryIO, Final

from pypdfium2 import PdfDocument, PdfiumError, PdfPage, PdfTextPage
from pypdfium2 import raw as pdfium

from ringwall_files.faults import Unreadable
from ringwall_files.parsed import Limits, Parsed
from ringwall_files.writing import Span, Writer

_TAIL: Final = 2048
_TINIEST: Final = 1.5
_PALEST: Final = 250
_UNPAINTED: Final = (3, 7)
"""Render modes that paint nothing: `invisible`, as under scans, and `clip`."""

_PAINTED: Final = (pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_IMAGE, pdfium.FPDF_PAGEOBJ_SHADING)
_BOX_SEGMENTS: Final = 5
_MOST_COVERS: Final = 1000

Box = tuple[float, float, float, float]


def read(file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
    """Return the text of all pages. Hidden is what is unpainted, tiny, off the page, white on white or painted over."""
    _check_end(file)
    try:
        document = PdfDocument(file)
    except PdfiumError as error:
        raise _unreadable(error) from error
    with document:
        writer = Writer(limits)
        for number in range(len(document)):
            writer.page()
            for text, hidden in _page(document, number):
                writer.put(text, hidden=hidden)
        return writer.parsed(title=document.get_metadata_value("Title"))


def _check_end(file: BinaryIO) -> None:
    """A whole PDF ends with `%%EOF`; what a parser makes of half a one is half a text."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - _TAIL, 0))
    if b"%%EOF" not in file.read():
        raise Unreadable("is truncated: it has no end", expected="a whole PDF", hint="copy it again")
    file.seek(0)


def _unreadable(error: PdfiumError) -> Unreadable:
    if error.err_code == pdfium.FPDF_ERR_PASSWORD:
        return Unreadable("is encrypted", expected="a PDF that opens without a password", hint="decrypt it")
    if error.err_code == pdfium.FPDF_ERR_SECURITY:
        return Unreadable("is encrypted in a way nobody here knows", expected="a PDF without encryption")
    return Unreadable("is damaged: no PDF reader could open it", expected="a whole PDF")


def _page(document: PdfDocument, number: int) -> Iterator[Span]:
    """The text of one page, in pieces that are seen or hidden as a whole."""
    try:
        page = document[number]
        text_page = page.get_textpage()
    except PdfiumError as error:
        raise Unreadable(f"is damaged: page {number + 1} cannot be read", expected="a whole PDF") from error
    try:
        for hidden, characters in groupby(_characters(page, text_page), key=lambda found: found[1]):
            yield _text("".join(character for character, _ in characters)), hidden
    finally:
        text_page.close()
        page.close()


def _characters(page: PdfPage, text_page: PdfTextPage) -> Iterator[tuple[str, bool]]:
    hidden_texts = _hidden_texts(page)
    hidden = False
    for index in range(text_page.count_chars()):
        if hidden_texts:
            text_object = pdfium.FPDFText_GetTextObject(text_page, index)
            if text_object:  # spaces and line ends that the parser adds have none
                hidden = _address(text_object) in hidden_texts
        yield chr(pdfium.FPDFText_GetUnicode(text_page, index)), hidden


def _text(raw: str) -> str:
    r"""Surrogates paired; the halves of a word joined, between which pdfium puts \x02 or \ufffe for its hyphen."""
    paired = raw.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return paired.replace("\r\n", "\n").replace("\x02", "").replace("\ufffe", "").replace("\0", "")


def _hidden_texts(page: PdfPage) -> set[int]:
    """The addresses of the page's text objects that nobody sees."""
    things = list(page.get_objects())
    return _unseen_texts(things, page.get_cropbox()) | _covered_texts(things)


def _unseen_texts(things: Iterable[Any], paper: Box) -> set[int]:
    grounds: list[tuple[Box, bool]] = []
    found = set()
    for thing in things:
        if thing.type == pdfium.FPDF_PAGEOBJ_TEXT:
            if _unseen(thing, paper, grounds):
                found.add(_address(thing.raw))
        elif thing.level == 0 and thing.type in _PAINTED:
            grounds += _ground(thing)
    return found


def _covered_texts(things: Sequence[Any]) -> set[int]:
    """Texts over which a whole rectangle was painted later, as by those who black out names."""
    covers: list[Box] = []
    found = set()
    for thing in reversed(things):
        if thing.level:  # within a form, whose coordinates are its own
            continue
        if thing.type == pdfium.FPDF_PAGEOBJ_PATH and len(covers) < _MOST_COVERS and _is_cover(thing):
            covers.append(_box(thing))
        elif thing.type == pdfium.FPDF_PAGEOBJ_TEXT and covers and _within(_box(thing), covers):
            found.add(_address(thing.raw))
    return found


def _is_cover(path: Any) -> bool:
    is_box = pdfium.FPDFPath_CountSegments(path) <= _BOX_SEGMENTS
    return is_box and _is_filled(path) and not pdfium.FPDFPageObj_HasTransparency(path)


def _within(box: Box, covers: Iterable[Box]) -> bool:
    edge = (box[3] - box[1]) / 4
    return any(
        box[0] >= left - edge and box[2] <= right + edge and box[1] >= bottom - edge and box[3] <= top + edge
        for left, bottom, right, top in covers
    )


def _address(raw: Any) -> int:
    return addressof(raw.contents)


def _unseen(text: Any, paper: Box, grounds: list[tuple[Box, bool]]) -> bool:
    if pdfium.FPDFTextObj_GetTextRenderMode(text) in _UNPAINTED or _height(text) < _TINIEST:
        return True
    pale, opaque = _fill(text)
    if not opaque:
        return True
    if text.level:  # within a form, whose coordinates are its own
        return pale
    box = _box(text)
    return _outside(box, paper) or (pale and _ground_at(box, grounds))


def _height(text: Any) -> float:
    size = c_float()
    pdfium.FPDFTextObj_GetFontSize(text, byref(size))
    matrix = text.get_matrix()
    return abs(size.value) * math.hypot(matrix.c, matrix.d)


def _fill(thing: Any) -> tuple[bool, bool]:
    """Whether a thing is filled with white, or nearly; and whether it can be seen through not at all."""
    red, green, blue, alpha = (c_uint() for _ in range(4))
    if not pdfium.FPDFPageObj_GetFillColor(thing, byref(red), byref(green), byref(blue), byref(alpha)):
        return False, True
    return min(red.value, green.value, blue.value) >= _PALEST, alpha.value > 0


def _ground(thing: Any) -> Iterator[tuple[Box, bool]]:
    """Where a thing covers the page, and whether it leaves it white there."""
    if thing.type != pdfium.FPDF_PAGEOBJ_PATH:
        yield _box(thing), False
    elif _is_filled(thing):
        pale, opaque = _fill(thing)
        if opaque:
            yield _box(thing), pale


def _is_filled(path: Any) -> bool:
    mode, stroke = c_int(), c_int()
    return bool(pdfium.FPDFPath_GetDrawMode(path, byref(mode), byref(stroke))) and mode.value != 0


def _ground_at(box: Box, grounds: list[tuple[Box, bool]]) -> bool:
    """Whether the page is white where a text stands: what was painted there last decides."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return next(
        (white for (left, bottom, right, top), white in reversed(grounds) if left <= x <= right and bottom <= y <= top),
        True,
    )


def _box(thing: Any) -> Box:
    box: Box = thing.get_bounds()
    return box


def _outside(box: Box, paper: Box) -> bool:
    return box[2] < paper[0] or box[0] > paper[2] or box[3] < paper[1] or box[1] > paper[3]
