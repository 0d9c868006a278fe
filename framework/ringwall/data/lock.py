"""One process at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from ringwall.errors import StoreError


def take(path: Path, *, what: str, hint: str) -> IO[bytes]:
    """Take the lock file `path` for this process, and make its folder; close what is returned to let go of it.

    The system lets go of it when the process ends, however it ends. Raises `StoreError` about `what` if the file
    cannot be used, or is taken.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise StoreError(f"{what} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StoreError(f"{what} is in use", hint=hint) from error
    return file
