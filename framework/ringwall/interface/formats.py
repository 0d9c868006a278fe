"""The formats that a reading's schema may ask for: how a text of that kind looks, and which of them a text holds.

They bound what a fooled reader can say. An e-mail address is checked for its shape only, as `format: email` of JSON
Schema; `iban` by the shape that ISO 13616 gives, without its check digits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

_HOST: Final = r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+"

_FORMATS: Final[Mapping[str, re.Pattern[str]]] = {
    name: re.compile(pattern)
    for name, pattern in {
        "date": r"(?<![\w-])\d{4}-\d\d-\d\d(?![\w-])",
        "email": rf"(?<![\w.+-])[A-Za-z0-9_.+-]+@{_HOST}",
        "iban": r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)",
        "uri": r"(?<!\w)(?:https?://|www\.)[^\s<>\"'()\[\]{}|\\^`]+",
    }.items()
}

FORMATS: Final = frozenset(_FORMATS)
"""The names of the formats."""

ADDRESSES: Final = frozenset(("email", "uri"))
"""The formats of what somebody could be reached by, or made to follow."""

_CLOSING: Final = ".,;:!?"


def has_format(text: str, name: str) -> bool:
    """Whether all of a text is one of the kind; one that nobody knows holds for every text, as in JSON Schema."""
    pattern = _FORMATS.get(name)
    return pattern is None or pattern.fullmatch(text) is not None


def found(text: str, name: str) -> frozenset[str]:
    """All of the kind that a text holds, each once however it is spaced and in whichever case. Raises `KeyError`."""
    return frozenset(_plain(match[0]) for match in _FORMATS[name].finditer(text))


def is_only(value: str, text: str, name: str) -> bool:
    """Whether a text holds the value, and no other of its kind."""
    return found(text, name) == {_plain(value)}


def _plain(value: str) -> str:
    return value.rstrip(_CLOSING).replace(" ", "").casefold()


__all__ = ["ADDRESSES", "FORMATS", "found", "has_format", "is_only"]
