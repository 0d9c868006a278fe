"""The arithmetic: FAISS's kernels behind a few typed functions, one thread each unless somebody asks for more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import faiss as _faiss
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Slots = npt.NDArray[np.int64]
Classes = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]

faiss: Final[Any] = _faiss
"""The library itself: its stubs leave out most of what is called here."""

pointer = faiss.swig_ptr

_BATCH: Final = 65_536


def unit(vectors: Floats) -> Floats:
    """The rows at length one, in a new array; a row of zeros stays one.

    Each row is first divided by its largest number, so that no square overflows or vanishes.
    """
    out = np.empty(vectors.shape, np.float32)
    for start in range(0, len(vectors), _BATCH):
        batch = vectors[start : start + _BATCH]
        largest = np.abs(batch).max(axis=1, keepdims=True)
        scaled = batch / np.where(largest > 0, largest, 1)
        lengths = np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, None]
        np.divide(scaled, np.where(lengths > 0, lengths, 1), out=out[start : start + _BATCH])
    return out


def squared(vector: Floats) -> float:
    """The square of its length; NaN or infinity, without a warning, if that is none."""
    length: float = faiss.fvec_norm_L2sqr(pointer(vector), len(vector))
    return length


def products(query: Floats, rows: Floats, out: Floats) -> None:
    """Write the inner product of `query` and each of the rows."""
    faiss.fvec_inner_products_ny(pointer(out), pointer(query), pointer(rows), rows.shape[1], len(rows))


def products_at(query: Floats, rows: Floats, at: Slots) -> Floats:
    """The inner products of `query` and the rows at these places, none of which is copied."""
    out = np.empty(len(at), np.float32)
    if len(at):
        faiss.fvec_inner_products_by_idx(
            pointer(out), pointer(query), pointer(rows), pointer(at), rows.shape[1], 1, len(at)
        )
    return out


def stay_on_one_thread() -> None:
    """Have FAISS work in the calling thread alone, from here on."""
    faiss.omp_set_num_threads(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Have FAISS work in the calling thread alone, for a while."""
    before = faiss.omp_get_max_threads()
    stay_on_one_thread()
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


def best(scores: Floats, k: int) -> Slots:
    """Where the `k` largest are, largest first."""
    if k < len(scores):
        top: Slots = scores.argpartition(len(scores) - k)[len(scores) - k :]
        return top[scores[top].argsort()[::-1]]
    return scores.argsort()[::-1]
