"""The books of the KV memory: which sequence holds which tokens, and what is free.

llama.cpp keeps one pool of cells for all sequences (a unified cache): a cell that several sequences share is there
once. It tells nobody how many are in use, so they are counted here; whoever changes one side changes the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.int64]
"""One number for each token of a prompt: the token, and in the upper half who may read it (0: everybody)."""

Domain = tuple[str, str]
"""What else shaped the cells: the adapter and the control vector."""

_PUBLIC: Final = 0
_MOST_SECRECIES: Final = 4096


class Secrecies:
    """A number for each set of readers: equal numbers, equal sets. One that was forgotten gets a new number."""

    def __init__(self) -> None:
        self._numbers: dict[frozenset[frozenset[str]], int] = {}
        self._last = _PUBLIC

    def number(self, secrecy: frozenset[frozenset[str]]) -> int:
        """0 for what everybody may read."""
        if not secrecy:
            return _PUBLIC
        known = self._numbers.pop(secrecy, None)
        if known is None:
            self._last += 1
            known = self._last
            if len(self._numbers) >= _MOST_SECRECIES:
                del self._numbers[next(iter(self._numbers))]
        self._numbers[secrecy] = known  # the last to be forgotten
        return known


def keyed(tokens: Sequence[int], secrecy: int) -> Keys:
    """The keys of tokens that one set of readers may read."""
    return np.array(tokens, np.int64) | (secrecy << 32)


def common(one: Keys, other: Keys) -> int:
    """The length of the prefix that both share."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length


@dataclass(eq=False, slots=True)
class Held:
    """A sequence: the tokens that it holds and their cells, position by position."""

    id: int
    domain: Domain
    keys: Keys
    cells: npt.NDArray[np.int64]
    is_busy: bool = True
    used: int = field(default=0)
    """When it was last of use: a larger number is later."""

    def __len__(self) -> int:
        return len(self.keys)


class Cells:
    """So many cells, shared by at most so many sequences. Used from one thread."""

    def __init__(self, size: int, sequences: int) -> None:
        self.size = size
        self._uses = np.zeros(size, np.int64)
        self._free = list(range(size))
        self._ids = list(range(sequences))
        self._held: dict[int, Held] = {}
        self._clock = 0

    @property
    def free(self) -> int:
        return len(self._free)

    @property
    def kept(self) -> list[Held]:
        """The sequences that nobody is writing on, the least recently used first."""
        return sorted((held for held in self._held.values() if not held.is_busy), key=lambda held: held.used)

    def nearest(self, keys: Keys, domain: Domain) -> tuple[Held | None, int]:
        """The sequence that begins most like `keys`, and how many tokens of it are the same."""
        best, length = None, 0
        for held in self._held.values():
            if held.domain == domain and (shared := common(held.keys, keys)) > length:
                best, length = held, shared
        return best, length

    def open(self, domain: Domain, like: Held | None = None, length: int = 0) -> Held | None:
        """A new sequence with the first `length` tokens of another; None if there are too many already."""
        if not self._ids:
            return None
        keys = np.empty(0, np.int64) if like is None else like.keys[:length]
        cells = np.empty(0, np.int64) if like is None else like.cells[:length]
        self._uses[cells] += 1
        held = Held(self._ids.pop(), domain, keys, cells)
        self._held[held.id] = held
        self.touch(held)
        if like is not None:
            self.touch(like)
        return held

    def grow(self, held: Held, keys: Keys) -> None:
        """Add tokens at the end. There must be so many free cells."""
        taken = np.array([self._free.pop() for _ in range(len(keys))], np.int64)
        self._uses[taken] = 1
        held.keys, held.cells = np.concatenate([held.keys, keys]), np.concatenate([held.cells, taken])

    def cut(self, held: Held, length: int) -> None:
        """Take the tokens from `length` on away."""
        self._release(held.cells[length:])
        held.keys, held.cells = held.keys[:length], held.cells[:length]

    def drop(self, held: Held) -> None:
        """Forget a sequence."""
        self._release(held.cells)
        del self._held[held.id]
        self._ids.append(held.id)

    def touch(self, held: Held) -> None:
        """Note that it was of use."""
        self._clock += 1
        held.used = self._clock

    def within(self, held: Held) -> list[Held]:
        """The kept sequences that are a beginning of this one: of no more use than this."""
        others: Iterable[Held] = self.kept
        return [o for o in others if o is not held and o.domain == held.domain and common(o.keys, held.keys) == len(o)]

    def _release(self, cells: npt.NDArray[np.int64]) -> None:
        self._uses[cells] -= 1
        self._free.extend(cells[self._uses[cells] == 0].tolist())
