"""Passages of so many tokens at most, cut where a document's structure says: headings, tables, fences, syntax."""

from ringwall_splitting.kinds import by_tokens
from ringwall_splitting.splitter import TokenSplitter

__all__ = ["TokenSplitter", "by_tokens"]
