"""Work done in a process of its own: where llama.cpp may end the process, or where nothing else may run beside it."""

from __future__ import annotations

import subprocess
import sys
from typing import Final

from ringwall.errors import BadModelFile

PATIENCE: Final = 1800.0
"""Seconds: a large model is read from a slow disk, and computed with on few processors."""

_PROGRAM: Final = (
    "import sys; end = sys.argv.index('--'); sys.path[:0] = sys.argv[1:end]; "
    "from importlib import import_module; import_module(sys.argv[end + 1]).main(*sys.argv[end + 2:])"
)


def in_child(module: str, *arguments: object, text: str = "") -> str:
    """What `ringwall_llama.<module>.main(*arguments)` prints, `text` being its standard input.

    Raises `BadModelFile` about the first path among the arguments when it ends in any other way than well.
    """
    words = [f"ringwall_llama.{module}", *map(str, arguments)]
    command = [sys.executable, "-I", "-c", _PROGRAM, *sys.path, "--", *words]
    path = next((word for word in words if word.endswith(".gguf")), words[-1])
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise _bad(path, f"took longer than {PATIENCE:.0f} s") from None
    if done.returncode < 0:
        raise _bad(path, f"ended the process that tried it (signal {-done.returncode})")
    if done.returncode:
        raise _bad(path, "cannot be loaded by llama.cpp")
    return done.stdout


def _bad(path: str, what: str) -> BadModelFile:
    return BadModelFile(
        f"{path} {what}", expected="a GGUF file that llama.cpp can compute with", hint="copy or download it again"
    )
