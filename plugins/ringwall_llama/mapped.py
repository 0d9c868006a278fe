"""The file that a model's weights are mapped from: whether it is still the one that was loaded."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ringwall.errors import BadModelFile
from ringwall.model.registry import sha256_of


class _Seen(NamedTuple):
    """What tells that a file was written or exchanged, without reading it."""

    device: int
    inode: int
    size: int
    written: int


class MappedFile:
    """A model's file as it was when it was loaded. With `sha256` it must be that one: it is read once, at `check`."""

    def __init__(self, path: Path, sha256: str = "") -> None:
        self._path, self._sha256 = path, sha256
        self._loaded = self._seen()

    def check(self) -> None:
        """Raises `BadModelFile` if the file is gone, was changed since it was loaded, or is another than it should."""
        if self._seen() != self._loaded:
            raise BadModelFile(
                f"{self._path.name} was changed since it was loaded",
                hint="see who did, and load the model again",
            )
        if self._sha256 and sha256_of(self._path) != self._sha256:
            raise BadModelFile(f"{self._path.name} is not the file that it should be", hint="install it again")
        self._sha256 = ""  # known to be right for as long as it is not changed

    def _seen(self) -> _Seen:
        try:
            status = self._path.stat()
        except OSError as error:
            raise BadModelFile(
                f"{self._path.name} is gone, or cannot be seen: {error.strerror}", hint="put it back"
            ) from error
        return _Seen(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


__all__ = ["MappedFile"]
