"""JSON and JSON lines: one line for each value, with the path to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO, Final

from ringwall_files.decoding import decoded
from ringwall_files.faults import Unreadable
from ringwall_files.parsed import Limits, Parsed
from ringwall_files.writing import Writer

_DEEPEST: Final = 100


class _Object(tuple[tuple[str, Any], ...]):
    """An object's members as they were written: of two with one name, both."""

    __slots__ = ()


# Numbers stay as they were written: no rounding, and no limit on their digits.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=str)


def read(file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
    """Return lines such as `menu[0].name: trout`; records of JSON lines are paragraphs."""
    text = decoded(file)
    writer = Writer(limits)
    if suffix == ".json":
        _record(writer, text, 1)
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                _record(writer, line, number)
                writer.gap()
    return writer.parsed()


def _record(writer: Writer, text: str, line: int) -> None:
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        place = f"line {line + error.lineno - 1}, column {error.colno}"
        raise Unreadable(f"is not JSON: {error.msg} at {place}", expected="JSON") from error
    except RecursionError as error:
        raise _too_deep() from error
    for path, leaf in _leaves(value, "", 0):
        writer.put(f"{path}: {leaf}\n" if path else f"{leaf}\n")


def _leaves(value: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    if depth > _DEEPEST:
        raise _too_deep()
    match value:
        case _Object():
            for name, member in value:
                yield from _leaves(member, f"{path}.{name}" if path else name, depth + 1)
        case list():
            for number, member in enumerate(value):
                yield from _leaves(member, f"{path}[{number}]", depth + 1)
        case str():
            yield path, value
        case _:
            yield path, json.dumps(value)


def _too_deep() -> Unreadable:
    return Unreadable("is nested too deeply", expected=f"JSON nested at most {_DEEPEST} levels deep")
