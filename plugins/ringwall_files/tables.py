"""Tables as text: CSV and TSV."""

from __future__ import annotations

import csv
import io
from typing import BinaryIO, Final

from ringwall_files.decoding import decoded
from ringwall_files.faults import Unreadable
from ringwall_files.parsed import Limits, Parsed
from ringwall_files.writing import Writer

_DELIMITERS: Final = ",;\t|"


def read(file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
    """Return the rows as a Markdown table. The delimiter is the one that the first line has most of."""
    text = decoded(file)
    first_line = text[: text.find("\n")]
    delimiter = "\t" if suffix == ".tsv" else max(_DELIMITERS, key=first_line.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    writer = Writer(limits)
    try:
        writer.table([[(cell, False)] for cell in row] for row in rows)
    except csv.Error as error:
        raise Unreadable(
            f"is not a table that can be read: {error} at line {rows.line_num}", expected="quotes that close"
        ) from error
    return writer.parsed()
