"""Readers written at the top of a file.

    ---
    readers: [role:staff, user:ana]
    ---

The notation is a small part of YAML, and anything else is refused: a line read in another way than its author
meant it would decide who may read the document.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from ringwall.errors import InvalidInput
from ringwall.principal import ACL, PUBLIC

if TYPE_CHECKING:
    from langchain_core.documents import Document

_FENCE: Final = re.compile(r"---[ \t]*(?:\n|\Z)")
_BLOCK: Final = re.compile(r"---[ \t]*\n(?P<lines>.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_FIELD: Final = re.compile(r"(?P<name>[A-Za-z][\w-]*):(?:[ \t]+(?P<value>.*))?")
_READERS: Final = re.compile(r"\[(?P<grants>[^\[\]]*)\][ \t]*")
_MENTION: Final = re.compile(r"^\W*readers\W*:", re.IGNORECASE | re.MULTILINE)
_HEAD: Final = 2000
_GRANT: Final = re.compile(rf"{PUBLIC}|[\w.-]+:[\w.@/:-]*[\w/]")


def front_matter_readers(document: Document) -> ACL | None:
    """Return the readers that the document's own front matter names; None if it names none.

    Raises `InvalidInput` for front matter that has no end, holds anything but `name: value` lines, names
    `readers` twice, or writes them in another way than `[role:staff, user:ana]`.
    """
    if not _FENCE.match(document.page_content):
        return None
    written = [value for name, value in _fields(document.page_content) if name == "readers"]
    if not written:
        return None
    if len(written) > 1:
        raise _odd("it names its readers twice")
    return ACL(_grants(written[0]))


def mentions_readers(text: str) -> bool:
    """Whether front matter at the top of `text` seems to say who may read it, well written or not."""
    block = _BLOCK.match(text)
    head = block["lines"] if block else text[:_HEAD] if _FENCE.match(text) else ""
    return _MENTION.search(head) is not None


def body_start(text: str) -> int:
    """Where the text begins after its front matter; 0 if it has none."""
    block = _BLOCK.match(text)
    return block.end() if block and all(map(_FIELD.fullmatch, block["lines"].splitlines())) else 0


def _fields(text: str) -> list[tuple[str, str]]:
    block = _BLOCK.match(text)
    if block is None:
        raise _odd("it has no end")
    return [_field(line) for line in block["lines"].splitlines()]


def _field(line: str) -> tuple[str, str]:
    field = _FIELD.fullmatch(line)
    if field is None:
        raise _odd(f"the line {line!r}")
    return field["name"].lower(), (field["value"] or "").strip()


def _grants(value: str) -> list[str]:
    listed = _READERS.fullmatch(value)
    grants = [grant.strip() for grant in listed["grants"].split(",")] if listed else [value]
    for grant in grants:
        if not listed or not _GRANT.fullmatch(grant):
            raise _odd(f"the reader {grant!r}")
    return grants


def _odd(what: str) -> InvalidInput:
    return InvalidInput(
        f"front matter that cannot be read: {what}",
        expected="`readers: [role:staff, user:ana]` between two lines of `---`",
    )
