"""Vectors as bytes: 32-bit floats as they are, or fewer bits and at the end a byte that says how many.

What is packed fills whole words of 32 bits, so that its length with that byte is no multiple of four: whatever is
one is 32-bit floats. So every vector says itself what it is kept in. Before the packed values stands what each is to
be multiplied by, as a 32-bit float.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from ringwall.data.base import Vector
from ringwall_sql.tables import FLOAT32

Precision = Literal["float32", "float16", "int8", "binary"]
"""In what a store keeps each value of a vector: 4 bytes, 2, 1, or one bit."""

PRECISIONS: Final[tuple[Precision, ...]] = get_args(Precision)

Matrix = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_WORD: Final = 4
_SPARE_BITS: Final = 5
_VALUES_IN_A_WORD: Final = {"float16": 2, "int8": 4, "binary": 32}
_LEVELS: Final = 127


def packed(vector: Vector, precision: Precision) -> bytes:
    """The vector as it is kept."""
    values = np.array(vector, FLOAT32)
    if precision == "float32":
        return values.tobytes()
    spare = -len(values) % _VALUES_IN_A_WORD[precision]
    mark = PRECISIONS.index(precision) << _SPARE_BITS | spare
    return _body(np.pad(values, (0, spare)), precision, len(values)) + bytes([mark])


def unpacked(kept: bytes) -> Vector:
    """What `packed` was given, as exactly as the precision allows."""
    return tuple(matrix([kept])[0].tolist())


def matrix(kept: list[bytes]) -> Matrix:
    """The vectors, a row each; all must be kept in one precision and have one dimension."""
    precision, spare = _mark(kept[0])
    rows = np.frombuffer(b"".join(kept), np.uint8).reshape(len(kept), -1)
    if precision == "float32":
        return rows.view(FLOAT32)
    values = _values(rows[:, :-1], precision)
    return values[:, : values.shape[1] - spare]


def precision_of(kept: bytes) -> Precision | None:
    """What the vector is kept in; None for bytes that are no vector."""
    try:
        return _mark(kept)[0]
    except ValueError:
        return None


def dimension_of(kept: bytes) -> int:
    """How many values the vector has; 0 for bytes that are no vector."""
    try:
        precision, spare = _mark(kept)
    except ValueError:
        return 0
    if precision == "float32":
        return len(kept) // _WORD
    return (len(kept) // _WORD - 1) * _VALUES_IN_A_WORD[precision] - spare


def _mark(kept: bytes) -> tuple[Precision, int]:
    """The precision, and how many values at the end stand for nothing."""
    if len(kept) % _WORD == 0:
        return "float32", 0
    at, spare = kept[-1] >> _SPARE_BITS, kept[-1] & ((1 << _SPARE_BITS) - 1)
    if len(kept) % _WORD != 1 or not 0 < at < len(PRECISIONS) or spare >= _VALUES_IN_A_WORD[PRECISIONS[at]]:
        raise ValueError(f"{len(kept)} bytes that are no vector")
    return PRECISIONS[at], spare


def _body(values: Matrix, precision: Precision, dimension: int) -> bytes:
    sizes = np.abs(values)
    scale = np.float32(sizes.sum(dtype=np.float64) / dimension if precision == "binary" else sizes.max())
    if precision == "int8":
        scale /= np.float32(_LEVELS)
    return scale.astype(FLOAT32).tobytes() + _units(values / (scale or np.float32(1)), precision).tobytes()


def _units(values: Matrix, precision: Precision) -> npt.NDArray[np.generic]:
    if precision == "float16":
        return values.astype("<f2")
    return np.rint(values).astype(np.int8) if precision == "int8" else np.packbits(values < 0)


def _values(rows: Bytes, precision: Precision) -> Matrix:
    scales, rest = rows[:, :_WORD].copy().view(FLOAT32), rows[:, _WORD:].copy()
    if precision == "binary":
        signs: Matrix = 1 - 2 * np.unpackbits(rest, axis=1).astype(np.float32)
        return signs * scales
    values: Matrix = rest.view("<f2" if precision == "float16" else np.int8).astype(np.float32) * scales
    return values
