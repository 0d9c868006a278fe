"""What a store holds more than once, or nearly so, and who may read which copy.

Near-duplicates are found by sketches: minima of hashed shingles, one for each of 64 bins (Li, Owen and Zhang, "One
Permutation Hashing", NIPS 2012; an empty bin takes the next one's, Shrivastava and Li, ICML 2014), compared in bands
(Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3). What shares a band is read once more and
compared exactly: a pair at the threshold is missed once in a thousand times, and none below it is reported.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias
from zlib import crc32

from ringwall.data.alike import THRESHOLD, check_threshold, likeness, may_be_alike, shingles
from ringwall.data.base import Chunk, StoreOfRecord
from ringwall.principal import ACL

Unit = Literal["passages", "documents"]

Sketch: TypeAlias = "array[int]"
Pair = tuple[int, int]

_BINS: Final = 64
_EMPTY: Final = 2**32 - 1
_RECALL: Final = 0.999
_COMPARED: Final = 32


@dataclass(frozen=True, slots=True)
class Copy:
    """A passage or a document that is there more than once; a document may have passages with several readers."""

    id: str
    readers: frozenset[ACL]


@dataclass(frozen=True, slots=True)
class Copies:
    """Some of which each says nearly what another of them says, at least to the share `likeness`."""

    copies: tuple[Copy, ...]
    likeness: float

    @property
    def have_other_readers(self) -> bool:
        """Whether who may not read one of them may read much the same in another."""
        return len({copy.readers for copy in self.copies}) > 1


async def duplicates(
    store: StoreOfRecord, *, threshold: float = THRESHOLD, of: Unit = "passages"
) -> tuple[Copies, ...]:
    """The passages, or whole documents, that are there more than once: first those with other readers, then by number.

    The store is read twice. Some 1.2 KB are kept of each passage meanwhile, and the shingles of those that may be
    copies. For the deployer, as `scan` is. Raises `InvalidInput` for a threshold that is none, and `StoreError`.
    """
    check_threshold(threshold)
    sketches: dict[str, Sketch] = {}
    async for batch in store.scan():
        await asyncio.to_thread(_sketch, batch, of, sketches)
    names = list(sketches)
    buckets = await asyncio.to_thread(_buckets, list(sketches.values()), threshold)
    read = _Read(of, {names[n] for bucket in buckets for n in bucket})
    async for batch in store.scan():
        await asyncio.to_thread(read.add, batch)
    pairs = ((names[a], names[b]) for bucket in buckets for a, b in _pairs(bucket))
    return await asyncio.to_thread(read.groups, pairs, threshold)


def _name(chunk: Chunk, of: Unit) -> str:
    return chunk.id if of == "passages" else chunk.document


def _sketch(chunks: Sequence[Chunk], of: Unit, sketches: dict[str, Sketch]) -> None:
    """Add the chunks to the sketches: the smallest hash of each bin."""
    for chunk in chunks:
        sketch = sketches.setdefault(_name(chunk, of), array("I", [_EMPTY]) * _BINS)
        for shingle in shingles(chunk.text):
            hashed = crc32(shingle.encode("utf-8", "surrogatepass"))
            place = hashed % _BINS
            if hashed < sketch[place]:
                sketch[place] = hashed


def _buckets(sketches: Sequence[Sketch], threshold: float) -> list[list[int]]:
    """Those that share a sketch, or a band of it. Of equal sketches the first stands for all in the bands."""
    same: dict[bytes, list[int]] = defaultdict(list)
    for n, sketch in enumerate(sketches):
        _fill(sketch)
        same[sketch.tobytes()].append(n)
    buckets = [bucket for bucket in same.values() if len(bucket) > 1]
    rows = _rows(threshold)
    for start in range(0, _BINS - rows + 1, rows):
        shared: dict[bytes, list[int]] = defaultdict(list)
        for n, *_ in same.values():
            shared[sketches[n][start : start + rows].tobytes()].append(n)
        buckets += [bucket for bucket in shared.values() if len(bucket) > 1]
    return buckets


def _pairs(bucket: Sequence[int]) -> Iterator[Pair]:
    """Each with those before it, up to so many: where more share a band all are versions of one text."""
    for place, n in enumerate(bucket):
        yield from ((other, n) for other in bucket[max(0, place - _COMPARED) : place])


def _fill(sketch: Sketch) -> None:
    """Give each empty bin what stands in the next one that is not."""
    last = next((value for value in sketch if value != _EMPTY), _EMPTY)
    for place in reversed(range(_BINS)):
        if sketch[place] == _EMPTY:
            sketch[place] = last
        last = sketch[place]


def _rows(threshold: float) -> int:
    """The longest bands of which two texts at the threshold share one nearly always."""

    def recall(rows: int) -> float:
        return 1 - (1 - threshold**rows) ** (_BINS // rows)

    return max((rows for rows in range(1, _BINS + 1) if recall(rows) >= _RECALL), default=1)


class _Read:
    """What may be copies, read once more."""

    def __init__(self, of: Unit, wanted: set[str]) -> None:
        self._of, self._wanted = of, wanted
        self._said: dict[str, set[int]] = defaultdict(set)
        self._readers: dict[str, set[ACL]] = defaultdict(set)

    def add(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            name = _name(chunk, self._of)
            if name in self._wanted:
                self._said[name].update(map(hash, shingles(chunk.text)))  # 64 bits of each
                self._readers[name].add(chunk.readers)

    def groups(self, pairs: Iterable[tuple[str, str]], threshold: float) -> tuple[Copies, ...]:
        """What hangs together by pairs that are alike."""
        contents = self._contents()
        together = _Together()
        for a, b in pairs:
            if a in contents and b in contents:
                self._join(contents[a], contents[b], threshold, together)
        members: dict[frozenset[int], list[str]] = defaultdict(list)
        for name, content in contents.items():
            members[together.root(content)].append(name)
        found = [self._copies(names, together.least(root)) for root, names in members.items() if len(names) > 1]
        return tuple(sorted(found, key=lambda c: (not c.have_other_readers, -len(c.copies), c.copies[0].id)))

    def _contents(self) -> Mapping[str, frozenset[int]]:
        """What each says; those that say the same share one object."""
        known: dict[frozenset[int], frozenset[int]] = {}
        frozen = ((name, frozenset(said)) for name, said in self._said.items())
        return {name: known.setdefault(said, said) for name, said in frozen}

    def _join(self, a: frozenset[int], b: frozenset[int], threshold: float, together: _Together) -> None:
        if together.root(a) == together.root(b) or not may_be_alike(a, b, threshold):
            return
        alike = likeness(a, b)
        if alike >= threshold:
            together.join(a, b, alike)

    def _copies(self, names: Iterable[str], least: float) -> Copies:
        return Copies(tuple(Copy(name, frozenset(self._readers[name])) for name in sorted(names)), least)


class _Together:
    """Which contents hang together, and by how little at least (union and find)."""

    def __init__(self) -> None:
        self._parent: dict[frozenset[int], frozenset[int]] = {}
        self._least: dict[frozenset[int], float] = {}

    def root(self, content: frozenset[int]) -> frozenset[int]:
        """The one that stands for all that hang together with this."""
        while (parent := self._parent.get(content, content)) is not content:
            self._parent[content] = self._parent.get(parent, parent)
            content = parent
        return content

    def join(self, a: frozenset[int], b: frozenset[int], alike: float) -> None:
        a, b = self.root(a), self.root(b)
        self._parent[b] = a  # the earlier one stays, so that ways to it stay short
        self._least[a] = min(alike, self.least(a), self.least(b))

    def least(self, root: frozenset[int]) -> float:
        """The smallest likeness that holds them together; 1 if all say the same."""
        return self._least.get(root, 1.0)
