"""Why a file was not read: three kinds, each the caller's move."""

from __future__ import annotations

from ringwall.errors import InvalidInput


class Unreadable(InvalidInput):
    """A file that is damaged, encrypted, gone, not permitted, or not what its name says."""


class TooLarge(InvalidInput):
    """A file that takes more bytes, memory, time or text than `Limits` allow."""


class ParserDied(InvalidInput):
    """A file on which the parser's process crashed; the process that asked is unharmed."""
