"""What a vector must be before a store keeps it or looks for it, and what it is compared as."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from ringwall.data.base import Chunk, Vector
from ringwall.errors import InvalidInput

_LARGEST: Final = 3.4028234e38
"""The largest 32-bit float: what lies beyond it, and NaN, no index can hold."""


def check_vector(vector: Vector, dimension: int | None, *, of: str) -> int:
    """Return the dimension of `vector`; `dimension` None: any will do. `of` names what the vector belongs to.

    Raises `InvalidInput` if it is empty, of another dimension, or holds what is not finite in 32 bits.
    """
    if not vector or (dimension is not None and len(vector) != dimension):
        raise InvalidInput(
            f"the vector of {of} has {len(vector)} dimensions",
            expected=f"{dimension or 'at least one'}",
            hint="embed questions and documents with one and the same model",
        )
    # The length is the quickest to tell, and at least as large as each number in it; NaN is never less.
    if not math.hypot(*vector) <= _LARGEST and not all(-_LARGEST <= number <= _LARGEST for number in vector):
        raise InvalidInput(
            f"the vector of {of} holds NaN, infinity or a number too large",
            expected="finite 32-bit numbers",
            hint="many embedders answer NaN to an empty text: leave empty texts out",
        )
    return len(vector)


def check_vectors(chunks: Iterable[Chunk], dimension: int | None) -> int | None:
    """Check the vectors there are against `dimension`, or the first one's; return the dimension."""
    for chunk in chunks:
        if chunk.vector is not None:
            dimension = check_vector(chunk.vector, dimension, of=f"chunk {chunk.id!r}")
    return dimension


def unit(vector: Vector) -> Vector:
    """The vector at length 1; one of only zeros stays as it is, and is like nothing."""
    length = math.hypot(*vector)
    return tuple(x / length for x in vector) if length else vector
