"""PowerPoint: the text of each slide, its title as a heading, then the speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from pptx import Presentation
from pptx.oxml.ns import qn
from pptx.slide import Slide

from ringwall_files.archive import check_archive
from ringwall_files.parsed import Limits, Parsed
from ringwall_files.writing import Span, Writer

Element = Any
"""An element of lxml, which ships no types."""

Size = tuple[int, int]

_FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_OFF: Final = ("0", "false")
_TINIEST: Final = 150
"""Hundredths of a point."""


def read(file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
    """Return all slides. Hidden slides, hidden shapes, tiny text and shapes beside the slide are hidden."""
    check_archive(file, limits)
    presentation = Presentation(file)
    size = (presentation.slide_width or 0, presentation.slide_height or 0)
    writer = Writer(limits)
    for slide in presentation.slides:
        writer.page()
        _Slide(writer, slide, size).read()
    return writer.parsed(title=presentation.core_properties.title)


class _Slide:
    def __init__(self, writer: Writer, slide: Slide, size: Size) -> None:
        self._writer, self._slide, self._size = writer, slide, size
        title = slide.shapes.title
        self._title = None if title is None else title.element

    def read(self) -> None:
        hidden = self._slide.element.get("show") in _OFF
        if self._title is not None:
            spans = [span for p in self._title.iter(qn("a:p")) for span in (*_spans(p, hidden=hidden), (" ", False))]
            self._writer.heading(2, spans)
        self._shapes(self._slide.element.cSld.spTree, hidden=hidden)
        if self._slide.has_notes_slide:
            notes = self._slide.notes_slide.notes_text_frame
            text = notes.text.replace("\v", "\n") if notes is not None else ""
            if text.strip():
                self._writer.paragraph([(text, hidden)], prefix="Notes: ")

    def _shapes(self, parent: Element, *, hidden: bool) -> None:
        for shape in parent:
            within = hidden or _is_hidden(shape) or self._is_beside(shape)
            if shape is self._title or shape.tag == _FALLBACK:
                continue
            if shape.tag == qn("p:sp"):
                for paragraph in shape.iter(qn("a:p")):
                    self._writer.paragraph(_spans(paragraph, hidden=within))
            elif shape.tag == qn("p:graphicFrame"):
                for table in shape.iter(qn("a:tbl")):
                    self._writer.table(_row(row, hidden=within) for row in table.iter(qn("a:tr")))
            else:  # a group, or what wraps shapes for other versions
                self._shapes(shape, hidden=within)

    def _is_beside(self, shape: Element) -> bool:
        """Whether a shape stands where the slide is not; one without a place has its layout's."""
        frame = shape.find(f"{qn('p:spPr')}/{qn('a:xfrm')}")
        place, size = (None, None) if frame is None else (frame.find(qn("a:off")), frame.find(qn("a:ext")))
        if place is None or size is None or shape.getparent().tag != qn("p:spTree"):
            return False
        left, top = int(place.get("x")), int(place.get("y"))
        right, bottom = left + int(size.get("cx")), top + int(size.get("cy"))
        return right <= 0 or bottom <= 0 or left >= self._size[0] or top >= self._size[1]


def _is_hidden(shape: Element) -> bool:
    return any(own.get("hidden") in ("1", "true") for own in shape.iterfind(f"*/{qn('p:cNvPr')}"))


def _row(row: Element, *, hidden: bool) -> list[list[Span]]:
    return [
        [span for p in cell.iter(qn("a:p")) for span in (*_spans(p, hidden=hidden), (" ", False))]
        for cell in row.iter(qn("a:tc"))
    ]


def _spans(paragraph: Element, *, hidden: bool) -> Iterator[Span]:
    for piece in paragraph:
        if piece.tag == qn("a:br"):
            yield "\n", False
        text = piece.find(qn("a:t"))
        if text is not None:
            size = piece.find(qn("a:rPr"))
            tiny = size is not None and int(size.get("sz", "1800")) <= _TINIEST
            yield text.text or "", hidden or tiny
