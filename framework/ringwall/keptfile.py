"""A small JSON file that several processes read and change: whole or not at all, one after the other."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from ringwall.errors import ConfigurationError

T = TypeVar("T")


class KeptFile(Generic[T]):
    """A value in the file `path`, which need not be there yet: then it is `empty`.

    What another process changed is seen at the next `read`. Raises `ConfigurationError` when the file cannot be used.
    """

    def __init__(self, path: str | Path, kind: TypeAdapter[T], empty: T) -> None:
        self._path, self._kind, self._empty = Path(path).absolute(), kind, empty
        self._seen: tuple[tuple[int, int, int], T] | None = None

    def read(self) -> T:
        """The value as it is now; parsed anew only if the file is another."""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                state = found.st_ino, found.st_mtime_ns, found.st_size
                seen = self._seen
                if seen is None or seen[0] != state:
                    self._seen = seen = state, self._kind.validate_json(file.read())
        except FileNotFoundError:
            return self._empty
        except OSError as error:
            raise self._unusable(str(error.strerror)) from error
        except ValidationError as error:
            first = error.errors()[0]
            raise self._unusable(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        return seen[1]

    def change(self, make: Callable[[T], T]) -> T:
        """Put what `make` makes of the value in its place, and return it; meanwhile nobody else changes it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.with_name(f"{self._path.name}.lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                value = make(self.read())
                self._write(value)
                return value
        except OSError as error:
            raise self._unusable(str(error.strerror)) from error

    def _write(self, value: T) -> None:
        """Write the file anew; whoever reads it sees the old or the new one."""
        new = self._path.with_name(f"{self._path.name}.new")
        with new.open("wb") as file:
            file.write(self._kind.dump_json(value, indent=1))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def _unusable(self, why: str) -> ConfigurationError:
        return ConfigurationError(f"{self._path} cannot be used: {why}", hint="restore it, or name another file")


__all__ = ["KeptFile"]
