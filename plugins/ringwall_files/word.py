"""Word: all text of a document in reading order, with what Word does not show marked as hidden."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Final

from docx import Document
from docx.document import Document as WordDocument
from docx.oxml.ns import qn
from docx.oxml.parser import parse_xml

from ringwall_files.archive import check_archive
from ringwall_files.parsed import Limits, Parsed
from ringwall_files.writing import Cell, Span, Writer

Element = Any
"""An element of lxml, which ships no types."""

Traits = Mapping[str, bool]
"""What formatting says of `vanish`, `white`, `tiny` and `shaded`; what it does not say holds as before."""

_HEADING: Final = re.compile(r"heading (\d)|title", re.IGNORECASE)
_OFF: Final = ("0", "false", "off")
_NO_COLOR: Final = ("", "auto", "none", "white", "FFFFFF")
_TINIEST: Final = 3
"""Half points."""

_ASIDE: Final = ("header", "footer", "footnotes", "endnotes", "comments")
"""The kinds of further parts with text; they follow the body."""

_FALLBACK: Final = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_LEFT_OUT: Final = frozenset((*map(qn, ("w:del", "w:moveFrom", "w:pPr", "w:rPr", "w:trPr", "w:tcPr")), _FALLBACK))
_MARKS: Final = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_TEXTS: Final = (qn("w:t"), qn("m:t"))
_VAL: Final = qn("w:val")


def read(file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
    """Return body, headers, footers, notes and comments; deleted text is left out."""
    check_archive(file, limits)
    document = Document(file)
    writer = Writer(limits)
    body = _Body(writer, document.styles.element)
    body.blocks(document.element.body)
    for part in _parts_aside(document):
        body.blocks(part)
    return writer.parsed(title=document.core_properties.title)


def _parts_aside(document: WordDocument) -> Iterator[Element]:
    relations = [found for found in document.part.rels.values() if not found.is_external]
    for kind in _ASIDE:
        for relation in relations:
            if relation.reltype.endswith(f"/{kind}"):
                yield parse_xml(relation.target_part.blob)


class _Body:
    def __init__(self, writer: Writer, styles: Element) -> None:
        self._writer = writer
        self._styles = {style.get(qn("w:styleId")): style for style in styles.iter(qn("w:style"))}

    def blocks(self, parent: Element) -> None:
        """Write paragraphs and tables, whatever wraps them."""
        for child in parent:
            if child.tag == qn("w:p"):
                self._paragraph(child)
            elif child.tag == qn("w:tbl") and not self._is_layout(child):
                self._writer.table(map(self._row, child.iter(qn("w:tr"))))
            elif child.tag not in _LEFT_OUT:
                self.blocks(child)

    def _paragraph(self, paragraph: Element) -> None:
        boxes: list[Element] = []
        spans = list(self._spans(paragraph, self._traits_of(paragraph), boxes))
        level = self._level(paragraph)
        if level:
            self._writer.heading(level, spans)
        else:
            self._writer.paragraph(spans, prefix="- " if self._is_item(paragraph) else "")
        for box in boxes:
            self.blocks(box)

    def _is_item(self, paragraph: Element) -> bool:
        styles = self._line(paragraph.find(f"{qn('w:pPr')}/{qn('w:pStyle')}"))
        return any(thing.find(f"{qn('w:pPr')}/{qn('w:numPr')}") is not None for thing in (paragraph, *styles))

    def _is_layout(self, table: Element) -> bool:
        """Whether a table only places things: another table or headings stand in it."""
        return any(inner is not table for inner in table.iter(qn("w:tbl"))) or any(
            map(self._level, table.iter(qn("w:p")))
        )

    def _row(self, row: Element) -> list[Cell]:
        hidden = {"vanish": True} if row.find(f"{qn('w:trPr')}/{qn('w:hidden')}") is not None else {}
        return [list(self._cell(cell, {**_traits(cell.find(qn("w:tcPr"))), **hidden})) for cell in row.iter(qn("w:tc"))]

    def _cell(self, parent: Element, traits: Traits) -> Iterator[Span]:
        for child in parent:
            if child.tag == qn("w:p"):
                yield from self._spans(child, {**traits, **self._traits_of(child)}, None)
                yield " ", False
            elif child.tag not in _LEFT_OUT:
                yield from self._cell(child, traits)

    def _spans(self, parent: Element, traits: Traits, boxes: list[Element] | None) -> Iterator[Span]:
        """The text of a paragraph. Text boxes anchored in it are put into `boxes`, or else stand where they are."""
        for child in parent:
            if child.tag in _TEXTS:
                yield child.text or "", _hidden(traits)
            elif child.tag in _MARKS:
                yield _MARKS[child.tag], False
            elif child.tag == qn("w:txbxContent"):
                if boxes is None:
                    yield from self._cell(child, traits)
                else:
                    boxes.append(child)
            elif child.tag == qn("w:r"):
                yield from self._spans(child, {**traits, **self._traits_of(child)}, boxes)
            elif child.tag not in _LEFT_OUT:
                yield from self._spans(child, traits, boxes)

    def _traits_of(self, thing: Element) -> dict[str, bool]:
        """What a paragraph or a run says itself, or through its style."""
        is_run = thing.tag == qn("w:r")
        properties = thing.find(qn("w:rPr" if is_run else "w:pPr"))
        style = None if properties is None else properties.find(qn("w:rStyle" if is_run else "w:pStyle"))
        found: dict[str, bool] = {}
        for base in self._line(style):
            found |= {**_traits(base.find(qn("w:pPr"))), **_traits(base.find(qn("w:rPr")))}
        return found | _traits(properties)

    def _line(self, named: Element | None) -> list[Element]:
        """The named style after those that it is based on."""
        line: list[Element] = []
        while named is not None and (style := self._styles.get(named.get(_VAL))) is not None and style not in line:
            line.insert(0, style)
            named = style.find(qn("w:basedOn"))
        return line

    def _level(self, paragraph: Element) -> int:
        """The level of a heading; 0 for a paragraph."""
        properties = paragraph.find(qn("w:pPr"))
        if properties is None:
            return 0
        for style in reversed(self._line(properties.find(qn("w:pStyle")))):
            named = style.find(qn("w:name"))
            found = None if named is None else _HEADING.fullmatch(named.get(_VAL, ""))
            if found:
                return int(found[1] or 1)
        outline = properties.find(qn("w:outlineLvl"))
        level = -1 if outline is None else int(outline.get(_VAL, "9"))
        return level + 1 if level < 9 else 0


def _traits(properties: Iterable[Element] | None) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for child in properties if properties is not None else ():
        value = child.get(_VAL, "")
        if child.tag == qn("w:vanish"):
            found["vanish"] = value.lower() not in _OFF
        elif child.tag == qn("w:color"):
            found["white"] = value.upper() == "FFFFFF"
        elif child.tag == qn("w:sz"):
            found["tiny"] = float(value) <= _TINIEST
        elif child.tag in (qn("w:shd"), qn("w:highlight")):
            found["shaded"] = child.get(qn("w:fill"), value) not in _NO_COLOR
    return found


def _hidden(traits: Traits) -> bool:
    white = traits.get("white", False) and not traits.get("shaded", False)
    return white or traits.get("vanish", False) or traits.get("tiny", False)
