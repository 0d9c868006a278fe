"""Embeddings as they are written on the wire: a request's body, and the vectors of a reply."""

from __future__ import annotations

import base64
import json
import math
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import BaseModel

from ringwall.schema import JSON

MOST: Final = 64 * 1024 * 1024
"""Bytes that one reply may have: a server that sends more is broken or means harm."""


def body(
    texts: Sequence[str], *, model: str, dimensions: int | None, encoding: str, extra: Mapping[str, JSON]
) -> bytes:
    """The JSON of a request. What `extra` holds is added; a field that it sets to None is left out."""
    fields = {"model": model, "input": list(texts), "encoding_format": encoding, "dimensions": dimensions, **extra}
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


class _Item(BaseModel):
    index: int
    embedding: list[float] | str


class _Usage(BaseModel):
    prompt_tokens: int = 0


class Reply(BaseModel):
    """What a server says of a batch."""

    data: list[_Item]
    usage: _Usage | None = None

    @property
    def tokens(self) -> int:
        return self.usage.prompt_tokens if self.usage else 0

    def vectors(self, count: int, dimension: int | None) -> list[list[float]]:
        """The vectors of `count` texts in their order, of unit length; `dimension` None: all of one, whichever.

        Raises ValueError for any other number or order of them, and for what is no vector.
        """
        items = sorted(self.data, key=lambda item: item.index)
        if [item.index for item in items] != list(range(count)):
            raise ValueError("not one vector for each text")
        vectors = [_vector(item.embedding) for item in items]
        expected = dimension or len(vectors[0])
        if not all(len(vector) == expected and all(map(math.isfinite, vector)) for vector in vectors) or not expected:
            raise ValueError("vectors of another size, or with numbers that are none")
        return [_unit(vector) for vector in vectors]


def _unit(vector: list[float]) -> list[float]:
    """Not every server does it; the zero vector is like nothing, and stays so."""
    length = math.hypot(*vector) or 1.0
    return [number / length for number in vector]


def _vector(written: list[float] | str) -> list[float]:
    """A vector written as numbers, or as the base64 of little-endian 32-bit ones, whichever was asked for."""
    if not isinstance(written, str):
        return written
    numbers = array("f")
    numbers.frombytes(base64.b64decode(written, validate=True))
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()
