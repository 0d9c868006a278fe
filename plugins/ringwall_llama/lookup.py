"""Guesses at what comes next, from what came before: prompt lookup decoding.

An answer from passages repeats parts of them. What followed the last words when they stood there before is put into the
batch as a guess, and kept as far as the model would have said the same (speculative decoding, Leviathan et al.,
ICML 2023; with the prompt as the drafting model, Saxena, 2023). What is said is the same with and without.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

_LONGEST, _SHORTEST = 6, 4
"""Tokens that must be the same before a guess is made."""

_SIZES: Final = (0, 2, 4, 7, 11, 15)
_MEMORY: Final = 0.9
_RIGHT_BEFORE, _WRONG_BEFORE = 2.0, 0.5
"""What is supposed to have been seen before anything was: four in five guesses right, and soon unlearnt."""

_DEFAULT_ROW: Final = 0.5
"""What a further row costs beside the first, until it was measured."""

_SEEN_ENOUGH: Final = 3


class Lookup:
    """The tokens of one request so far, by what they follow."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}
        self._newest: dict[tuple[int, ...], int] = {}
        self._right, self._wrong = _RIGHT_BEFORE, _WRONG_BEFORE
        self.extend(tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Take in what came next."""
        for token in tokens:
            self._tokens.append(token)
            end = len(self._tokens)
            for size in range(_SHORTEST, min(_LONGEST, end) + 1):
                words = tuple(self._tokens[end - size :])
                if words in self._newest:
                    self._after[words] = self._newest[words]
                self._newest[words] = end

    def guess(self, step: Step, rows: int, most: int) -> list[int]:
        """The tokens that may come next, as many as are worth their `step` beside `rows` other rows."""
        end = len(self._tokens)
        for size in range(min(_LONGEST, end), _SHORTEST - 1, -1):
            at = self._after.get(tuple(self._tokens[end - size :]))
            if at is not None:
                return self._tokens[at : at + min(self._worth(step, rows), most)]
        return []

    def learn(self, guessed: int, right: int) -> None:
        """Note how many of the tokens guessed were right."""
        if guessed:
            self._right = _MEMORY * self._right + right
            self._wrong = _MEMORY * self._wrong + (right < guessed)

    def _worth(self, step: Step, rows: int) -> int:
        """How many guesses give most tokens for the time, to this request and those beside it, who wait for them."""
        return max(_SIZES, key=lambda size: (rows - 1 + self._expected(size)) / step.cost(rows + size))

    def _expected(self, size: int) -> float:
        """Tokens gained by a step with so many guesses, each right with the same probability if those before are."""
        hope = min(self._right / (self._right + self._wrong), 0.98)
        return (1 - hope ** (size + 1)) / (1 - hope)


class Step:
    """What a step with so many rows costs beside one with a single row, as it was seen to.

    Between the sizes that were seen, and beyond them, costs lie on a line. The machine may be busy with other things:
    of what was seen of a size the quickest counts, and is slowly forgotten.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}
        self._times: dict[int, int] = {}

    def took(self, rows: int, seconds: float) -> None:
        """Note a step."""
        known = self._seconds.get(rows, seconds)
        self._seconds[rows] = min(seconds, known * 1.01)
        self._times[rows] = self._times.get(rows, 0) + 1

    def cost(self, rows: int) -> float:
        """In steps of one row."""
        seen = [(size, s) for size, s in sorted(self._seconds.items()) if self._times[size] >= _SEEN_ENOUGH]
        if len(seen) < 2 or seen[0][0] != 1:
            return 1.0 + _DEFAULT_ROW * (rows - 1)
        (_, first), (last, slowest) = seen[0], seen[-1]
        for (low, fast), (high, slow) in pairwise(seen):
            if rows <= high:
                return max(1.0, (fast + (slow - fast) * (rows - low) / (high - low)) / first)
        return max(1.0, (slowest + (slowest - first) / (last - 1) * (rows - last)) / first)
