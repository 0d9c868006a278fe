"""What the process that asks and the one that parses say to each other: lengths and JSON, never pickles.

A parser that a file has taken over can answer nonsense here, but no code.
"""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from typing import Any, Final

from ringwall_files.faults import TooLarge, Unreadable
from ringwall_files.parsed import Parsed

LONGEST_QUESTION: Final = 100_000
OUT_OF_MEMORY: Final = 77
"""The exit code of a parser that had no memory left to say so."""

_LENGTH: Final = struct.Struct("!Q")
_FAULTS: Final = {fault.__name__: fault for fault in (Unreadable, TooLarge)}


def send(line: socket.socket, message: Mapping[str, Any]) -> None:
    """Send one message."""
    data = json.dumps(message, ensure_ascii=False).encode()
    line.sendall(_LENGTH.pack(len(data)))
    line.sendall(data)


def receive(line: socket.socket, most: int, deadline: float | None = None) -> dict[str, Any]:
    """Receive one message.

    Raises `EOFError` when the line ends, `TimeoutError` after `deadline`, `ValueError` for nonsense.
    """
    (length,) = _LENGTH.unpack(_exactly(line, _LENGTH.size, deadline))
    if length > most:
        raise ValueError(f"a message of {length} bytes")
    message = json.loads(_exactly(line, length, deadline))
    if not isinstance(message, dict):
        raise ValueError("a message without names")
    return message


def _exactly(line: socket.socket, length: int, deadline: float | None) -> bytearray:
    data = bytearray()
    while len(data) < length:
        if deadline is not None:
            line.settimeout(max(deadline - time.monotonic(), 0.001))
        piece = line.recv(min(length - len(data), 1 << 20))
        if not piece:
            raise EOFError
        data += piece
    return data


def told(result: Parsed | Unreadable | TooLarge) -> dict[str, Any]:
    """What a parser answers."""
    if isinstance(result, Parsed):
        return {"text": result.text, "pages": result.pages, "title": result.title, "hidden": result.hidden}
    return {"fault": type(result).__name__, "what": result.what, "expected": result.expected, "hint": result.hint}


def understood(message: Mapping[str, Any]) -> Parsed:
    """What it meant: the result, or its error raised. Raises `ValueError` or `TypeError` for nonsense."""
    if "fault" in message:
        fault = _FAULTS.get(message["fault"], Unreadable)
        raise fault(str(message["what"]), expected=str(message["expected"]), hint=str(message["hint"]))
    return Parsed(
        str(message["text"]),
        tuple(int(page) for page in message["pages"]),
        str(message["title"]),
        tuple((int(start), int(end)) for start, end in message["hidden"]),
    )
