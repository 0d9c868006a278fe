"""A file is tried in a process of its own: on some that look whole, llama.cpp ends the process that loads them.

`python -m ringwall_llama.trial FILE` loads it and computes one token; it exits with 0 if that went well.
"""

from __future__ import annotations

import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

from ringwall.errors import BadModelFile

_PATIENCE: Final = 600.0
"""Seconds: a large model is read from a slow disk."""


def check_loads(path: Path) -> None:
    """Raise `BadModelFile` unless the file can be loaded and computed with; a file that did is not tried again."""
    stat = path.stat()
    _tried(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _tried(path: Path, size: int, changed: int) -> None:
    command = [sys.executable, "-I", "-c", _PROGRAM, *sys.path, "--", str(path)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise _bad(path, f"was not loaded within {_PATIENCE:.0f} s") from None
    if done.returncode < 0:
        raise _bad(path, f"ended the process that tried it (signal {-done.returncode})")
    if done.returncode:
        raise _bad(path, "cannot be loaded by llama.cpp")


def _bad(path: Path, what: str) -> BadModelFile:
    return BadModelFile(
        f"{path} {what}", expected="a GGUF file that llama.cpp can compute with", hint="copy or download it again"
    )


_PROGRAM: Final = (
    "import sys; end = sys.argv.index('--'); sys.path[:0] = sys.argv[1:end]; "
    "from ringwall_llama.trial import main; main(sys.argv[end + 1])"
)


def main(path: str) -> None:
    """Load the file and compute a token, in the way in which it will be used."""
    from ringwall_llama.engine import Room, new_context
    from ringwall_llama.loaded import Loaded
    from ringwall_llama.sampling import first_logits

    try:
        model = Loaded(Path(path))
    except BadModelFile:
        sys.exit(1)
    context = new_context(model, Room(window=256, cells=256, slots=1, threads=1))
    sys.exit(0 if context and first_logits(context, model) else 1)
