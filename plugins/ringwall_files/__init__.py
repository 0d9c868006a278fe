"""Files as documents: text, Markdown, source code, HTML, PDF, Word, PowerPoint, Excel, CSV, JSON and mail."""

from ringwall_files.faults import ParserDied, TooLarge, Unreadable
from ringwall_files.formats import parse
from ringwall_files.parsed import Limits, Parsed
from ringwall_files.parser import Parser
from ringwall_files.reading import Files, find_files, read_files

__all__ = [
    "Files",
    "Limits",
    "Parsed",
    "Parser",
    "ParserDied",
    "TooLarge",
    "Unreadable",
    "find_files",
    "parse",
    "read_files",
]
