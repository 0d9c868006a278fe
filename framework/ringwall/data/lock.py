"""One process at a time, or all but one kind."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Final

from ringwall.errors import StoreError

_AGAIN: Final = 0.02
"""Seconds after which who waits looks again. No thread is held meanwhile: others may need it to let go."""


def take(path: Path, *, what: str, hint: str) -> IO[bytes]:
    """Take the lock file `path` for this process, and make its folder; close what is returned to let go of it.

    The system lets go of it when the process ends, however it ends. Raises `StoreError` about `what` if the file
    cannot be used, or is taken.
    """
    file = try_take(path, what=what)
    if file is None:
        raise StoreError(f"{what} is in use", hint=hint)
    return file


def try_take(path: Path, *, what: str, shared: bool = False) -> IO[bytes] | None:
    """As `take`, but None if it is taken. What is `shared` any number may take, and nobody for itself meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Who may only read here can share: the file is there, from whoever made what it is about.
        file = path.open("rb" if shared and path.exists() else "ab")
    except OSError as error:
        raise StoreError(f"{what} cannot be used: {error.strerror}") from error
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError as error:
        file.close()
        raise StoreError(f"{what} cannot be used: {error.strerror}") from error
    return file


@asynccontextmanager
async def waited_for(path: Path, *, what: str, shared: bool = False) -> AsyncIterator[None]:
    """Hold the lock file `path`, as soon as it can be taken."""
    while (file := try_take(path, what=what, shared=shared)) is None:  # noqa: ASYNC110 (other processes set no event)
        await asyncio.sleep(_AGAIN)
    with file:
        yield
