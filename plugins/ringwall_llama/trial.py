"""A file is tried in a process of its own: on some that look whole, llama.cpp ends the process that loads them."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

from ringwall.errors import BadModelFile
from ringwall_llama.child import in_child


def check_loads(path: Path) -> None:
    """Raise `BadModelFile` unless the file can be loaded and computed with; a file that did is not tried again."""
    stat = path.stat()
    _tried(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _tried(path: Path, size: int, changed: int) -> None:
    in_child("trial", path)


def main(path: str) -> None:
    """Load the file and compute a token, in the way in which it will be used; exits with 1 if that did not go well.

    A file that llama.cpp itself refuses will be refused again, with its reason: that ends nothing.
    """
    from ringwall_llama.context import Room, new_context
    from ringwall_llama.loaded import Loaded
    from ringwall_llama.sampling import first_logits

    try:
        model = Loaded(Path(path))
    except BadModelFile:
        return
    context = new_context(model, Room(window=256, cells=256, slots=1, threads=1))
    sys.exit(0 if context and first_logits(context, model) else 1)
