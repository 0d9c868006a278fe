"""The directions in which vectors differ most."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Self

import numpy as np
import numpy.typing as npt

from ringwall.data.base import Embeddings
from ringwall.errors import ConfigurationError, InvalidInput
from ringwall_compress.wrapped import Matrix, Wrapped, check_fewer, units

Doubles = npt.NDArray[np.float64]

_AT_ONCE: Final = 1000
_PROBE: Final = "A sentence that tells one embedder from another."
_ALIKE: Final = 0.99
"""Cosine of what an embedder says of the probe now and said when it was fitted: machines round differently."""


class Pca(Wrapped):
    """Each vector along the directions in which those of a sample differ most, at length 1.

    Make one with `fit`, once, and with `load` from then on. Principal components (Pearson, 1901) are found in
    centred vectors; what is projected is neither centred nor whitened, for which the page on smaller vectors has
    the figures. It knows what it has seen: fit it on passages like those to come.
    """

    def __init__(self, embeddings: Embeddings, directions: Matrix, probe: Matrix) -> None:
        """`directions` are columns; `probe` is what the fitted embedder said of a sentence of ours."""
        super().__init__(embeddings)
        self._directions, self._probe = directions, probe

    @classmethod
    def fit(cls, embeddings: Embeddings, passages: Iterable[str], dimensions: int) -> Self:
        """Find the directions in the vectors of these passages; the same ones for the same passages.

        Some thousands are enough. Raises `InvalidInput` for fewer different passages than the embedder has
        dimensions, and `ConfigurationError` for more dimensions than it has.
        """
        probe = _probe(embeddings)
        check_fewer(dimensions, len(probe))
        count, total, products = 0, np.zeros(len(probe)), np.zeros((len(probe), len(probe)))
        for vectors in _vectors(embeddings, sorted(set(passages))):
            count += len(vectors)
            total += vectors.sum(axis=0)
            products += vectors.T @ vectors
        if count < len(probe):
            raise InvalidInput(
                f"{count} different passages to fit on",
                expected=f"at least {len(probe)}, as many as the embedder has dimensions",
            )
        mean = total / count
        _, directions = np.linalg.eigh(products / count - np.outer(mean, mean))
        return cls(embeddings, _pointing(directions[:, ::-1][:, :dimensions]), probe)

    @classmethod
    def load(cls, embeddings: Embeddings, path: str | Path) -> Self:
        """What `save` wrote, for the embedder it was fitted to.

        Raises `ConfigurationError` for a file that holds something else, and for another embedder.
        """
        directions, probe = _read(Path(path))
        now = _probe(embeddings)
        if probe.shape != now.shape or units(now[None])[0] @ units(probe[None])[0] < _ALIKE:
            raise ConfigurationError(
                f"the directions in {str(path)!r} were fitted to another embedder",
                hint="load them for that one, or fit anew",
            )
        return cls(embeddings, directions, probe)

    def save(self, path: str | Path) -> None:
        """Write the directions to a file of numbers (NumPy's `.npz`): no code is in it, and none is run by `load`."""
        with Path(path).open("wb") as file:
            np.savez(file, allow_pickle=False, directions=self._directions, probe=self._probe)

    def _smaller(self, vectors: Matrix) -> Matrix:
        return units(vectors @ self._directions)


def _probe(embeddings: Embeddings) -> Matrix:
    return np.array(embeddings.embed_documents([_PROBE])[0], np.float32)


def _vectors(embeddings: Embeddings, passages: list[str]) -> Iterator[Doubles]:
    for first in range(0, len(passages), _AT_ONCE):
        yield np.array(embeddings.embed_documents(passages[first : first + _AT_ONCE]), np.float64)


def _pointing(directions: Doubles) -> Matrix:
    """The directions with the largest part of each positive: which end an axis has is left to chance otherwise."""
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(directions.shape[1])])
    pointing: Matrix = (directions * signs).astype(np.float32)
    return pointing


def _read(path: Path) -> tuple[Matrix, Matrix]:
    try:
        with path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            directions, probe = held["directions"], held["probe"]
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigurationError(
            f"{str(path)!r} does not hold directions: {error}", expected="what `Pca.save` wrote"
        ) from error
    right = (
        directions.dtype == probe.dtype == np.float32 and directions.ndim == 2 and probe.shape == directions.shape[:1]
    )
    if not right or not np.isfinite(directions).all():
        raise ConfigurationError(f"{str(path)!r} does not hold directions", expected="what `Pca.save` wrote")
    return directions, probe
