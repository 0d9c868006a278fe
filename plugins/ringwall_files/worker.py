"""The process that parses: one file after the other, each within its limits, until nobody asks any more.

Started by `Parser` as `python -m ringwall_files.worker DESCRIPTOR`. It is handed open files, never names.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import sys
import time
from typing import Any, NoReturn

from ringwall.errors import ConfigurationError
from ringwall_files import wire
from ringwall_files.faults import TooLarge, Unreadable
from ringwall_files.formats import parse_open
from ringwall_files.parsed import Limits


def main() -> int:
    """Answer until the line ends; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    _limit(resource.RLIMIT_CORE, 0)
    with socket.socket(fileno=int(sys.argv[1])) as line:
        try:
            _serve(line)
        except (EOFError, ConnectionError):
            return 0
        except MemoryError:
            return wire.OUT_OF_MEMORY


def _serve(line: socket.socket) -> NoReturn:
    wire.send(line, {"ready": True})
    while True:
        _, descriptors, _, _ = socket.recv_fds(line, 1, 1)
        if not descriptors:
            raise EOFError
        wire.send(line, _answer(descriptors[0], wire.receive(line, wire.LONGEST_QUESTION)))


def _answer(descriptor: int, question: dict[str, Any]) -> dict[str, Any]:
    limits = Limits(**question["limits"])
    _limit(resource.RLIMIT_AS, limits.memory)
    _limit(resource.RLIMIT_CPU, int(time.process_time()) + 1 + limits.cpu)
    with os.fdopen(descriptor, "rb") as file:
        try:
            return wire.told(parse_open(file, question["suffix"], limits))
        except (Unreadable, TooLarge) as fault:
            return wire.told(fault)
        except ConfigurationError as error:
            return {"missing": error.what, "hint": error.hint}


def _limit(kind: int, most: int) -> None:
    """Set a soft limit, as far as the hard one and the system let us."""
    _, hard = resource.getrlimit(kind)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))


if __name__ == "__main__":
    sys.exit(main())
