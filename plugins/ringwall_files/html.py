"""HTML: all its text, navigation included, with what a browser would not show marked as hidden."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum
from typing import BinaryIO, Final

from selectolax.lexbor import LexborHTMLParser, LexborNode

from ringwall_files.decoding import as_text
from ringwall_files.look import Look, look_within
from ringwall_files.parsed import Limits, Parsed
from ringwall_files.writing import Writer

_DROPPED: Final = frozenset(("script", "style", "template", "title", "-comment"))
_HEADINGS: Final = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_BLOCKS: Final = re.compile(
    "address|article|aside|blockquote|body|caption|center|dd|details|dialog|div|dl|dt|fieldset|figcaption|figure|"
    "footer|form|header|hr|html|legend|li|main|menu|nav|ol|option|p|pre|search|section|select|summary|table|tbody|"
    "td|text|tfoot|th|thead|tr|ul|h[1-6]"
)
_DENSE: Final = frozenset(("li", "tr", "option", "dd", "dt", "ul", "ol", "tbody", "thead", "tfoot"))
"""Blocks that stand on a line of their own, without a blank one around."""

_CHARSET: Final = re.compile(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([\w.:-]+)", re.IGNORECASE)
_LATIN: Final = frozenset(("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii", "iso8859-1"))
_CHARSETS: Final = re.compile(
    r"iso-?8859-\d+|windows-(?:125\d|874|31j)|koi8-[ru]|macintosh|shift_?jis|euc-(?:jp|kr)|gb(?:2312|k|18030)|big5"
)
_PRE: Final = ("pre", "textarea")
_SPACES: Final = re.compile(r"\s+")
_LAYOUT: Final = "table, h1, h2, h3, h4, h5, h6"
"""A table in which these stand only places things."""


def read(file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
    """Return the text of a page; a byte order mark or the page itself names its encoding, else it is UTF-8."""
    return page(as_text(data := file.read(), _charset(data)), limits)


def page(html: str, limits: Limits) -> Parsed:
    """Return the text of a page."""
    tree = LexborHTMLParser(html)
    title = tree.css_first("head > title")
    return _Page(Writer(limits)).read(tree.root, title.text() if title else "")


def _charset(data: bytes) -> str:
    found = _CHARSET.search(data, 0, 1024)
    name = found[1].decode("ascii", "replace").lower() if found else ""
    if name in _LATIN:
        return "cp1252"  # as browsers read it
    return name if _CHARSETS.fullmatch(name) else "utf-8"


class _Table(Enum):
    """What a table is for, and whether its head is yet to come."""

    LAYOUT = 1
    HEAD = 2
    ROWS = 3


class _Page:
    """Goes through a tree in reading order, however deep it is."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._prefix = ""  # of a heading or an item, until its first word
        self._tables: list[_Table] = []
        self._cells = -1  # so far in this row; negative outside of rows
        self._pre = 0
        self._space = False

    def read(self, root: LexborNode | None, title: str) -> Parsed:
        for node, look, entered in _walk(root):
            tag = node.tag or ""
            if tag == "-text":
                self._text(node.text_content or "", hidden=look.hidden)
            elif entered:
                self._enter(tag, node)
            else:
                self._leave(tag)
        return self._writer.parsed(title=title)

    def _text(self, text: str, *, hidden: bool) -> None:
        if self._cells >= 0:
            text = text.replace("|", "\\|")
        if not self._pre or self._cells >= 0:
            text = self._collapsed(text)
        if text.strip():
            self._writer.put(self._prefix)
            self._prefix = ""
        self._writer.put(text, hidden=hidden)

    def _collapsed(self, text: str) -> str:
        """White space made one space, which waits for the word after it."""
        text = (" " if self._space else "") + _SPACES.sub(" ", text)
        self._space = text.endswith(" ")
        return text.strip() if self._writer.at_space else text.rstrip()

    def _enter(self, tag: str, node: LexborNode) -> None:
        if tag == "table":
            self._tables.append(_Table.HEAD if all(found == node for found in node.css(_LAYOUT)) else _Table.LAYOUT)
        if tag == "tr" and self._tables and self._tables[-1] is not _Table.LAYOUT:
            self._break(tag)
            self._writer.put("|")
            self._cells = 0
        elif self._cells >= 0 and tag in ("td", "th"):
            self._writer.put(" ")
            self._space = False
        elif tag == "br" or _BLOCKS.fullmatch(tag):
            if not self._prefix:
                self._break(tag)
            self._prefix = _HEADINGS.get(tag, "- " if tag == "li" else self._prefix)
        self._pre += tag in _PRE

    def _leave(self, tag: str) -> None:
        self._pre -= tag in _PRE
        if self._cells >= 0 and tag in ("td", "th"):
            self._writer.put(" |")
            self._cells += 1
        elif self._cells >= 0 and tag == "tr":
            self._end_row()
        elif _BLOCKS.fullmatch(tag):
            self._break(tag)
            self._prefix = "" if tag in _HEADINGS or tag == "li" else self._prefix
        if tag == "table":
            self._tables.pop()

    def _end_row(self) -> None:
        cells, self._cells = self._cells, -1
        self._writer.line_end()
        if self._tables[-1] is _Table.HEAD:
            self._writer.put("| --- " * cells + "|\n")
            self._tables[-1] = _Table.ROWS

    def _break(self, tag: str) -> None:
        """End a line before and after a block; within a row, a space does."""
        self._space = self._cells >= 0
        if self._cells >= 0:
            return
        if tag == "br":
            self._writer.put("\n")
        elif tag in _DENSE:
            self._writer.line_end()
        else:
            self._writer.gap()


def _walk(root: LexborNode | None) -> Iterator[tuple[LexborNode, Look, bool]]:
    """Each node, with its look, when it is entered and when it is left; a text has no end."""
    stack = [(root, Look(), True)] if root is not None else []
    while stack:
        node, look, entered = stack.pop()
        yield node, look, entered
        if entered and node.tag != "-text":
            stack.append((node, look, False))
            stack += reversed([(child, _look(look, child), True) for child in _children(node)])


def _look(around: Look, node: LexborNode) -> Look:
    return around if node.tag == "-text" else look_within(around, node.tag or "", node.attributes)


def _children(node: LexborNode) -> Iterator[LexborNode]:
    child = node.first_child
    while child is not None:
        if child.tag not in _DROPPED:
            yield child
        child = child.next
