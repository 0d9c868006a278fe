"""Short codes: half a byte for every few dimensions, scanned some ten times faster than the vectors they stand for.

The rows of one list lie together, in blocks of 32. A scan scores the rows of the lists it is given, leaves out those
that the bitmap does not name, and returns the best with approximate scores.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from ringwall_index.kernels import Bytes, Floats, Slots, faiss, pointer

_BITS: Final = 4
_BATCH: Final = 65_536
_RESERVOIR: Final = 11
"""FAISS's search for one query that collects candidates in a reservoir: the fastest of its kinds here."""


@dataclass(frozen=True)
class Coder:
    """Turns vectors into codes: rotates them, then picks the nearest of 16 values for every few dimensions."""

    rotation: Floats
    quantizer: Any

    @classmethod
    def trained(cls, sample: Floats) -> Coder:
        """Learn from a sample of what will be coded."""
        rotation = _rotation(sample)
        quantizer = faiss.ProductQuantizer(len(rotation), _parts(sample.shape[1]), _BITS)
        quantizer.train(sample @ rotation.T)
        return cls(rotation, quantizer)

    def decoded(self, vectors: Floats) -> Floats:
        """What is left of the vectors once they were coded."""
        rotated = np.ascontiguousarray(vectors @ self.rotation.T)
        approximate: Floats = self.quantizer.decode(self.quantizer.compute_codes(rotated)) @ self.rotation
        return approximate


class _OfThread(threading.local):
    """What one thread sets anew for each search, made once: making it takes longer than a short scan."""

    def __init__(self) -> None:
        self.parameters = faiss.SearchParametersIVF()


_OF_THREAD: Final = _OfThread()


class Selector:
    """The rows a scan may return. It follows later changes of the bitmap."""

    def __init__(self, bitmap: Bytes) -> None:
        self._bitmap = bitmap
        self.handle = faiss.IDSelectorBitmap(len(bitmap), pointer(bitmap))

    def slots(self) -> Slots:
        """These rows."""
        return np.flatnonzero(np.unpackbits(self._bitmap, bitorder="little"))


class Lists:
    """Coded rows in lists. Reading is safe from many threads; nothing is written after `build`."""

    def __init__(self, index: Any) -> None:
        self.index = index
        index.implem = _RESERVOIR
        self.count: int = index.nlist

    @classmethod
    def build(
        cls, coder: Coder, vectors: Floats, lists: Slots, slots: Slots, centres: Floats | None, count: int
    ) -> Lists:
        """Code the vectors at `slots`, each in the list beside it, as what it differs by from its list's centre."""
        dimension = len(coder.rotation)
        flat = faiss.IndexFlatL2(dimension)
        if centres is not None:
            flat.add(np.ascontiguousarray(centres @ coder.rotation.T))
        plain = faiss.IndexIVFPQ(flat, dimension, count, coder.quantizer.M, _BITS, faiss.METRIC_INNER_PRODUCT)
        plain.by_residual = centres is not None
        plain.pq, plain.is_trained = coder.quantizer, True
        for batch in _batches(len(slots)):
            rows = np.ascontiguousarray(vectors[slots[batch]] @ coder.rotation.T)
            ids, into = np.ascontiguousarray(slots[batch]), np.ascontiguousarray(lists[batch])
            plain.add_core(len(rows), pointer(rows), pointer(ids), pointer(into))
        return cls(faiss.IndexIVFPQFastScan(plain))

    def scan(self, query: Floats, lists: Slots, biases: Floats, within: Selector, wanted: int) -> tuple[Slots, Floats]:
        """The best `wanted` rows of these lists that are `within`, best first, with approximate scores.

        `query` is rotated, `biases` its products with the lists' centres.
        """
        scores, slots = np.empty(wanted, np.float32), np.empty(wanted, np.int64)
        parameters = _OF_THREAD.parameters
        parameters.sel, parameters.nprobe = within.handle, len(lists)
        self.index.search_preassigned_c(
            1,
            pointer(query),
            wanted,
            pointer(lists),
            pointer(biases),
            pointer(scores),
            pointer(slots),
            False,
            parameters,
        )
        if slots[-1] < 0:
            found = int((slots >= 0).sum())
            return slots[:found], scores[:found]
        return slots, scores

    def save(self, path: Path) -> None:
        faiss.write_index(self.index, str(path))

    @classmethod
    def open(cls, path: Path) -> Lists:
        return cls(faiss.read_index(str(path)))


def _parts(dimension: int) -> int:
    """How many parts a vector is coded in: about 64 for common embeddings, and an even number."""
    width = 2 if dimension <= 400 else 4
    return -(-dimension // (2 * width)) * 2


def _rotation(sample: Floats) -> Floats:
    """Rows that turn a vector so that every part carries about as much of the variance as the others.

    The principal axes are dealt out one by one, each to the part that has the least so far: what optimised product
    quantisation arrives at for normal data, without its iterations.
    """
    dimension, parts = sample.shape[1], _parts(sample.shape[1])
    values, axes = np.linalg.eigh(np.cov(sample.T.astype(np.float64)))
    width = -(-dimension // parts)
    logs, places = np.zeros(parts), np.zeros(parts, int)
    rotation = np.zeros((parts * width, dimension), np.float32)
    for axis in np.argsort(-values):
        part = int(np.where(places < width, logs, np.inf).argmin())
        rotation[part * width + places[part]] = axes[:, axis]
        logs[part] += np.log(max(values[axis], 1e-12)) + 30.0
        places[part] += 1
    return rotation


def _batches(count: int) -> Iterator[slice]:
    for start in range(0, count, _BATCH):
        yield slice(start, min(start + _BATCH, count))
