"""A look at a GGUF file before llama.cpp sees it: on some broken files ggml ends the whole process.

The format: magic, version, counts, metadata, one record for each tensor, then the tensors' data.
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Final, NamedTuple, NoReturn, TypeVar

import numpy as np
import numpy.typing as npt

from ringwall.errors import BadModelFile

T = TypeVar("T")

_MAGIC: Final = b"GGUF"
_VERSIONS: Final = (2, 3)
_MAX_COUNT: Final = 1_000_000
"""More tensors, keys or array elements than any model has: a broken count must not keep us busy."""

_FIXED: Final = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""The types of metadata that have one size, by their number."""

_FLOATS: Final = (6, 12)
_SHORT: Final = 1024
"""Elements of an array that are worth keeping: a number for each layer, not for each word."""

_STRING: Final = 8
_ARRAY: Final = 9

_TYPES: Final = {
    (1, 4): (0,),
    (1, 2): (1, 30),  # f32, f16, bf16
    (32, 18): (2, 20),
    (32, 20): (3,),
    (32, 22): (6,),
    (32, 24): (7,),
    (32, 34): (8,),  # q4 to q8
    (256, 84): (10,),
    (256, 110): (11, 21),
    (256, 144): (12,),
    (256, 176): (13,),
    (256, 210): (14,),
    (256, 66): (16, 35),
    (256, 74): (17,),
    (256, 98): (18,),
    (256, 50): (19,),
    (256, 82): (22,),
    (256, 136): (23,),
    (256, 56): (29,),
    (256, 54): (34,),
    (32, 17): (39,),
    (64, 36): (40,),
    (128, 18): (41,),
    (64, 18): (42,),  # fp4, and one or two bits
}
"""The tensor types that weights may have, by the elements in a block and the bytes it takes."""

_FLOAT: Final = 0
_ADDED: Final = ("token_types.weight",)
"""Besides norms and biases, which have one dimension, what is added to floats as it is: so it must be floats."""

_BLOCKS: Final = {kind: block for block, kinds in _TYPES.items() for kind in kinds}


Value = str | int | float | bool | tuple[int, ...]
"""A piece of metadata; of arrays only those of whole numbers are kept."""


class Tensor(NamedTuple):
    """A tensor: its `shape`, and where it lies in its file (`offset` and `length` in bytes from the header's end)."""

    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int
    length: int


class Gguf(NamedTuple):
    """What a file's header says."""

    metadata: Mapping[str, Value]
    tensors: Sequence[Tensor]


def check_gguf(path: Path) -> frozenset[str]:
    """Check that the file is a GGUF, whole, and of tensor types that can be computed with; return its tensors' names.

    Reads the header only, not the weights. Raises `BadModelFile`.
    """
    return frozenset(tensor.name for tensor in read_gguf(path).tensors)


def read_gguf(path: Path) -> Gguf:
    """The header of a file. Raises `BadModelFile` as `check_gguf` does."""

    def read(header: _Header) -> Gguf:
        _, tensors = header.check()
        return Gguf(header.metadata, tensors)

    return _open(path, read)


def read_vectors(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    """The tensors of a small GGUF file, each as one vector of 32-bit floats. Raises `BadModelFile`, for others too."""
    return _open(path, lambda header: header.vectors())


def _open(path: Path, read: Callable[[_Header], T]) -> T:
    if not path.is_file():
        raise BadModelFile(f"no model file at {path}", expected="a GGUF file", hint="check the path")
    size = path.stat().st_size
    if size < 24:
        raise BadModelFile(f"{path} is {size} bytes long", expected="a GGUF file", hint="copy it again")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return read(_Header(path, data))


class _Header:
    """A cursor over the header."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self._path, self._data, self._at = path, data, 0
        self.metadata: dict[str, Value] = {}

    def vectors(self) -> dict[str, npt.NDArray[np.float32]]:
        start, tensors = self.check()
        if any(tensor.kind != _FLOAT for tensor in tensors):
            self._fail("holds something else than 32-bit floats")
        places = ((t.name, start + t.offset, t.length) for t in tensors)
        return {name: np.frombuffer(self._data[at : at + size], "<f4") for name, at, size in places}

    def check(self) -> tuple[int, list[Tensor]]:
        """Where the tensors' data begins, and what there is."""
        if self._take(4) != _MAGIC:
            self._fail("does not begin with `GGUF`")
        if (version := self._number("<I")) not in _VERSIONS:
            self._fail(f"has GGUF version {version}")
        tensors, keys = self._count("tensors"), self._count("keys")
        alignment = self._metadata(keys)
        found = [self._tensor() for _ in range(tensors)]
        return self._check_extents(found, alignment), found

    def _metadata(self, keys: int) -> int:
        """Walk the metadata; return the alignment of the tensors in bytes."""
        alignment = 32
        for _ in range(keys):
            key = self._string()
            kind = self._number("<I")
            if key == b"general.alignment" and kind == 4:
                alignment = self._number("<I")
            elif key == b"tokenizer.ggml.tokens" and kind == _ARRAY:
                self._check_unique(self._strings())
            elif (value := self._value(kind)) is not None:
                self.metadata[key.decode("utf-8", "replace")] = value
        if alignment < 8 or alignment & (alignment - 1):
            self._fail(f"aligns tensors at {alignment} bytes")
        return alignment

    def _value(self, kind: int) -> Value | None:
        if kind in _FIXED:
            value: Value = self._number(f"<{_FIXED[kind]}")
            return value
        if kind == _STRING:
            return self._string().decode("utf-8", "replace")
        if kind != _ARRAY:
            self._fail(f"has metadata of the unknown type {kind}")
        return self._array()

    def _array(self) -> tuple[int, ...] | None:
        """The elements of a short array of whole numbers; others are skipped."""
        kind, count = self._number("<I"), self._count("array elements")
        if kind == _STRING:
            for _ in range(count):
                self._string()
            return None
        if kind not in _FIXED:
            self._fail(f"has a metadata array of the type {kind}")
        form = f"<{count}{_FIXED[kind]}"
        data = self._take(struct.calcsize(form))
        return tuple(map(int, struct.unpack(form, data))) if count <= _SHORT and kind not in _FLOATS else None

    def _strings(self) -> list[bytes]:
        kind, count = self._number("<I"), self._count("array elements")
        if kind != _STRING:
            self._fail("has a vocabulary that is no list of texts")
        return [self._string() for _ in range(count)]

    def _check_unique(self, tokens: list[bytes]) -> None:
        if len(set(tokens)) < len(tokens):
            self._fail("has a vocabulary with a token that occurs twice")

    def _tensor(self) -> Tensor:
        name = self._string().decode("utf-8", "replace")
        if not 1 <= (rank := self._number("<I")) <= 4:
            self._fail(f"has a tensor {name!r} of {rank} dimensions")
        shape = [self._number("<Q") for _ in range(rank)]
        kind, offset = self._number("<I"), self._number("<Q")
        if kind not in _BLOCKS:
            self._fail(f"has a tensor {name!r} of the type {kind}, which cannot be computed with")
        if kind != _FLOAT and (rank == 1 or name in _ADDED):
            self._fail(f"has a tensor {name!r} of the type {kind}, which cannot be added to floats of 32 bits")
        elements, length = _BLOCKS[kind]
        if not all(shape) or shape[0] % elements:
            self._fail(f"has a tensor {name!r} of the shape {shape}, which its type cannot have")
        return Tensor(name, kind, tuple(shape), offset, prod(shape) // elements * length)

    def _check_extents(self, tensors: list[Tensor], alignment: int) -> int:
        """Tensors follow each other without a gap, and the file holds the last of them whole; where the first is."""
        start = -(-self._at // alignment) * alignment
        expected = end = 0
        for number, tensor in enumerate(tensors):
            if tensor.offset != expected:
                self._fail(f"has its tensor {number} at {tensor.offset} instead of {expected}")
            end = tensor.offset + tensor.length
            expected = -(-end // alignment) * alignment
        if not tensors:
            self._fail("holds no tensors")
        if start + end > len(self._data):
            self._fail(f"is cut short: {len(self._data)} bytes of at least {start + end}")
        return start

    def _count(self, what: str) -> int:
        count = self._number("<Q")
        if count > _MAX_COUNT:
            self._fail(f"claims to hold {count} {what}")
        return count

    def _number(self, form: str) -> int:
        number: int = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return number

    def _string(self) -> bytes:
        return self._take(self._number("<Q"))

    def _take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            self._fail("is cut short in its header")
        piece = self._data[self._at : end]
        self._at = end
        return piece

    def _fail(self, what: str) -> NoReturn:
        raise BadModelFile(
            f"{self._path} {what}", expected="a whole GGUF file of version 2 or 3", hint="copy or download it again"
        )
