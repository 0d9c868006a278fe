"""Opens what is a file and nothing else, and checks that it begins as its name says."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, Final

from ringwall_files.faults import TooLarge, Unreadable
from ringwall_files.parsed import MEGABYTE

_KINDS: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a link",
}
_PDF: Final = b"%PDF-"
_ZIP: Final = b"PK\x03\x04"
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HEAD: Final = 1024
"""A PDF may begin anywhere in this many bytes."""


def measured(path: Path, most: int) -> int:
    """Return a regular file's size without opening it; raise for anything else, and above `most` bytes."""
    try:
        return _checked(path.lstat(), most)
    except OSError as error:
        raise _not_readable(error) from error


def opened(path: Path, most: int) -> BufferedReader:
    """Open a regular file of at most `most` bytes. A link, a pipe or a device is never opened."""
    measured(path, most)
    try:
        # What stands there may have been replaced since: no link is followed, no pipe waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise _not_readable(error) from error
    file = os.fdopen(descriptor, "rb")
    try:
        _checked(os.fstat(descriptor), most)
    except BaseException:
        file.close()
        raise
    return file


def check_beginning(file: BinaryIO, suffix: str) -> None:
    """Raise `Unreadable` if a file's first bytes are another format's than its suffix says."""
    head = file.read(_HEAD)
    file.seek(0)
    if suffix == ".pdf":
        _expect(_PDF in head, head, "a PDF")
    elif suffix in (".docx", ".pptx", ".xlsx"):
        _expect(head.startswith(_ZIP), head, f"an Office file ({suffix})")
    else:
        _expect(not head.startswith((_PDF, _ZIP, _OLE)), head, f"text ({suffix})")


def _expect(right: bool, head: bytes, expected: str) -> None:  # noqa: FBT001
    if not right:
        raise Unreadable(f"is {_looks_like(head)}, not what its name says", expected=expected)


def _looks_like(head: bytes) -> str:
    if not head:
        return "empty"
    if head.startswith(_OLE):
        return "an encrypted or an old Office file"
    if head.startswith(_ZIP):
        return "a zip archive"
    return "a PDF" if head.startswith(_PDF) else "something else"


def _checked(status: os.stat_result, most: int) -> int:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise Unreadable(f"is {_KINDS.get(kind, 'no file')}", expected="a regular file")
    if status.st_size > most:
        raise TooLarge(
            f"has {status.st_size / MEGABYTE:,.1f} MB",
            expected=f"at most {most / MEGABYTE:,.1f} MB",
            hint="split it, or raise `Limits.size`",
        )
    return status.st_size


def _not_readable(error: OSError) -> Unreadable:
    return Unreadable(f"cannot be read: {error.strerror}", expected="a file that is there and may be read")
