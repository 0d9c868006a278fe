"""JSON as a type, and its canonical text."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic_core import PydanticSerializationError, to_json

JSON = str | int | float | bool | None | Sequence["JSON"] | Mapping[str, "JSON"]
"""What may cross a process border: the journal, a tool call and a model's schema are made of it."""

_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)

JsonSchema = Mapping[str, JSON]
"""A JSON schema (draft 2020-12) of an object."""


def canonical(value: JSON) -> str:
    """The JSON text of `value` with sorted keys and no spare white space: equal values, equal text."""
    return _CANONICAL.encode(value)


def dumps(value: object) -> str:
    """The JSON text of `value`, quickly: for what is written much more often than it is read."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError:  # a lone surrogate: JSON can escape it, UTF-8 cannot hold it
        return json.dumps(value, separators=(",", ":"))


def digest(text: str) -> str:
    """SHA-256 of a text (UTF-8), in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
