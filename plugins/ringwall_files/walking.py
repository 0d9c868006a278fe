"""Finds the files below a folder: lazily, in the order of their names, and never outside of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from ringwall.data import Refused
from ringwall_files.faults import Unreadable
from ringwall_files.formats import FORMATS


class Found(NamedTuple):
    """A file to read: its id, and where it is."""

    name: str
    path: Path


class _Kind(Enum):
    FOLDER = 1
    LINK = 2
    FILE = 3


class Walk:
    """Goes through one folder after the other, and counts in `skipped` the files that no parser reads.

    Of the folders that it is in, and of no others, it holds a list of names.
    """

    def __init__(self) -> None:
        self.skipped = 0

    def below(self, path: str | Path) -> Iterator[Found | Refused]:
        """The file at `path`, or all files below it."""
        root = Path(os.path.realpath(path))
        if _is_folder(root):
            yield from self._all_below(root)
        elif not os.path.lexists(root):
            yield Refused(_printable(str(path)), Unreadable("cannot be read: there is no such file or folder"))
        elif _is_read(root.name):
            yield Found(_printable(Path(path).name), root)
        else:
            self.skipped += 1

    def _all_below(self, root: Path) -> Iterator[Found | Refused]:
        folders = [self._entries(root, "")]
        while folders:
            match next(folders[-1], None):
                case None:
                    folders.pop()
                case str(name):
                    folders.append(self._entries(root, f"{name}/"))
                case item:
                    yield item

    def _entries(self, root: Path, prefix: str) -> Iterator[Found | Refused | str]:
        """The files in a folder, and the names of the folders in it."""
        folder = root / prefix
        try:
            names = sorted(self._names(folder))
        except OSError as error:
            yield Refused(_printable(prefix or "."), Unreadable(f"cannot be listed: {error.strerror}"))
            return
        for name, kind in names:
            if kind is _Kind.FOLDER:
                yield prefix + name
            elif kind is _Kind.LINK:
                yield from self._linked(folder / name, _printable(prefix + name), root)
            else:
                yield Found(_printable(prefix + name), folder / name)

    def _names(self, folder: Path) -> Iterator[tuple[str, _Kind]]:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    yield entry.name, _Kind.LINK
                elif entry.is_dir(follow_symlinks=False):
                    yield entry.name, _Kind.FOLDER
                elif _is_read(entry.name):
                    yield entry.name, _Kind.FILE
                else:
                    self.skipped += 1

    def _linked(self, link: Path, name: str, root: Path) -> Iterator[Refused]:
        """Why a link leads to nothing.

        What it leads to below the root is read where it is, so that its place says who may read it: whoever may
        put a link beside public files does not publish others with it.
        """
        there = Path(os.path.realpath(link))
        is_folder = _is_folder(there)
        if not is_folder and not _is_read(link.name):
            self.skipped += 1
        elif not there.is_relative_to(root):
            yield Refused(name, Unreadable("is a link that leads out of the folder", expected="a file in the folder"))
        elif not is_folder and not (_is_read(there.name) and os.path.lexists(there) and not there.is_symlink()):
            yield Refused(name, Unreadable("is a link to nothing that is read", expected="a file in the folder"))


def _is_read(name: str) -> bool:
    stem, _, suffix = name.rpartition(".")
    return bool(stem) and f".{suffix.lower()}" in FORMATS


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # not permitted to look
        return False


def _printable(name: str) -> str:
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
