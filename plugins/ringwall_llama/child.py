"""Work done in a process of its own: where llama.cpp may end the process, or where nothing else may run beside it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from importlib import import_module
from typing import Final

from ringwall.errors import BadModelFile, ConfigurationError

_log: Final = logging.getLogger("ringwall.llama")

PATIENCE: Final = 1800.0
"""Seconds: a large model is read from a slow disk, and computed with on few processors."""

UNWRITABLE: Final = 3
"""The exit status of a child that had no room for what it made."""

_LOOK: Final = 1.0

_PROGRAM: Final = (
    "import sys; end = sys.argv.index('--'); sys.path[:0] = sys.argv[1:end]; "
    "from ringwall_llama.child import run; run(*sys.argv[end + 1:])"
)


def in_child(module: str, *arguments: object, text: str = "") -> str:
    """What `ringwall_llama.<module>.main(*arguments)` prints, `text` being its standard input.

    Raises `BadModelFile` about the first path among the arguments when it ends in any other way than well, and
    `ConfigurationError` when the disk is full. The child ends with whoever waits for it.
    """
    words = [module, str(os.getpid()), *map(str, arguments)]
    command = [sys.executable, "-I", "-c", _PROGRAM, *sys.path, "--", *words]
    path = next((word for word in words if word.endswith(".gguf")), words[-1])
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise _bad(path, f"took longer than {PATIENCE:.0f} s") from None
    if done.returncode:
        _log.debug("%s", done.stderr)
    if done.returncode == UNWRITABLE:
        raise ConfigurationError(f"the disk has no room for what is made of {path}", hint="make room on it")
    if done.returncode < 0:
        raise _bad(path, f"ended the process that tried it (signal {-done.returncode})")
    if done.returncode:
        raise _bad(path, "cannot be used by llama.cpp")
    return done.stdout


def run(module: str, parent: str, *arguments: str) -> None:
    """What the child does."""
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    import_module(f"ringwall_llama.{module}").main(*arguments)


def _end_with(parent: int) -> None:
    """End when the parent did: what is computed for nobody would go on for minutes."""
    while os.getppid() == parent:
        time.sleep(_LOOK)
    os._exit(1)


def _bad(path: str, what: str) -> BadModelFile:
    return BadModelFile(
        f"{path} {what}", expected="a GGUF file that llama.cpp can compute with", hint="copy or download it again"
    )
