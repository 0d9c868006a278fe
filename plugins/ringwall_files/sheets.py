"""Excel: the cells of each sheet as a table below its name."""

from __future__ import annotations

import datetime
import re
import warnings
from collections.abc import Sequence
from typing import Any, BinaryIO, Final

import openpyxl
from defusedxml.ElementTree import iterparse

from ringwall_files.archive import check_archive
from ringwall_files.parsed import Limits, Parsed
from ringwall_files.writing import Cell, Writer

_TAG: Final = re.compile(r"\{[^}]*\}")
_ON: Final = ("1", "true")


def read(file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
    """Return all sheets, a formula as the value it had when it was saved. Sheets, rows and columns may be hidden."""
    check_archive(file, limits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is not read: validation rules, conditional formats
        book = openpyxl.load_workbook(file, read_only=True, data_only=True)
        try:
            writer = Writer(limits)
            for sheet in book.worksheets:
                _sheet(writer, book, sheet)
            return writer.parsed(title=book.properties.title or "")
        finally:
            book.close()


def _sheet(writer: Writer, book: Any, sheet: Any) -> None:
    hidden = sheet.sheet_state != "visible"
    writer.page()
    writer.heading(2, [(sheet.title, hidden)])
    with book._archive.open(sheet._worksheet_path) as xml:  # noqa: SLF001  a read-only sheet does not tell
        rows, columns = _hidden_parts(xml)
    sheet.reset_dimensions()  # what the file says of its size may be wrong
    writer.table(
        _row(values, hidden=hidden or number in rows, columns=columns)
        for number, values in enumerate(sheet.iter_rows(values_only=True), 1)
    )


def _row(values: Sequence[object], *, hidden: bool, columns: set[int]) -> list[Cell]:
    cells: list[Cell] = [[(_shown(value), hidden or number in columns)] for number, value in enumerate(values, 1)]
    while cells and not cells[-1][0][0]:
        cells.pop()
    return cells


def _shown(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).upper()
        case float() if value.is_integer():
            return str(int(value))
        case datetime.datetime() if value.time() == datetime.time():
            return value.date().isoformat()
        case datetime.date() | datetime.time():
            return value.isoformat()
    return str(value)


def _hidden_parts(xml: Any) -> tuple[set[int], set[int]]:
    """The numbers of the hidden rows and columns."""
    rows: set[int] = set()
    columns: set[int] = set()
    last = 0
    for _, element in iterparse(xml, forbid_dtd=True):
        tag = _TAG.sub("", element.tag)
        if tag == "row":
            last = int(element.get("r", last + 1))
            if element.get("hidden") in _ON:
                rows.add(last)
        elif tag == "col" and element.get("hidden") in _ON:
            columns.update(range(int(element.get("min")), min(int(element.get("max")), 16_384) + 1))
        if tag in ("row", "col"):
            element.clear()
    return rows, columns
