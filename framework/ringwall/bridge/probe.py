"""Whether a LangChain store keeps what the bridge relies on, tried out with made-up rows in the store itself."""

from __future__ import annotations

import contextlib
import math
import random
import uuid
from collections.abc import Iterable
from typing import Final

from ringwall.bridge.outside import Found, Outside, Row
from ringwall.data.base import Vector
from ringwall.data.vectors import unit
from ringwall.errors import ConfigurationError, StoreError

_HIDDEN: Final = 256
"""Nearer rows that the made-up reader may not see: more than stores fetch to filter afterwards."""

_OPEN: Final = 12
_ASKED: Final = 5
_SPREAD: Final = 0.2


_TRIALS: Final = 3
"""An approximate index may once not find a row although the store keeps its promises; another store never does."""


class _NotFoundError(ConfigurationError):
    """A row that was written was not found; nothing was found that must not be, which is never tried again."""


async def probe(outside: Outside) -> None:
    """Raise `ConfigurationError` that says which promise the store breaks; leave none of the made-up rows behind."""
    for left in reversed(range(_TRIALS)):
        try:
            await _try(outside)
        except _NotFoundError:
            if not left:
                raise
        else:
            return


async def _try(outside: Outside) -> None:
    trial = _Trial(outside)
    try:
        await trial.filters()
        await trial.replaces()
        await trial.deletes()
    finally:
        with contextlib.suppress(StoreError):
            await outside.delete(trial.ids)


class _Trial:
    """Many hidden rows about the question, few open ones on the other side, and between the two a row of no class."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        # Spread, since the graphs of approximate indexes fall to pieces among equal vectors.
        chance = random.Random(_HIDDEN)
        self._question: Vector = (1.0, *[0.0] * (outside.dimension - 1))
        opposite = tuple(-x for x in self._question)
        self._open, self._hidden, self._moved, self._unknown = (f"probe-{uuid.uuid4().hex}" for _ in range(4))
        far = sorted((_about(opposite, chance) for _ in range(_OPEN)), key=lambda vector: vector[0])
        self._far = [_row(self._open, vector) for vector in far]
        self._bare = _row(None, self._question)
        near = [_row(self._hidden, _about(self._question, chance)) for _ in range(_HIDDEN)]
        self._rows = [*self._far, *near, self._bare]

    @property
    def ids(self) -> list[str]:
        return [row.id for row in self._rows]

    async def filters(self) -> None:
        await self._outside.put(self._rows)
        found = await self._near(self._open)
        strangers = _ids(found) - _ids(self._far)
        if strangers - {self._bare.id}:
            raise self._refused(
                "a filter for one class returned rows of another", "rows of the permitted classes alone"
            )
        if strangers:
            raise self._refused("a filter let a row without a class pass", "rows that name a permitted class alone")
        if len(found) < _ASKED:
            raise self._refused(
                f"of {_ASKED} permitted rows it found {len(found)} among {_HIDDEN} hidden ones that are nearer",
                "the filter inside the search, not after it, and writes that the next search sees",
            )
        if await self._near(self._unknown):
            raise self._refused("a filter for a class that no row has found something", "nothing")
        if await self._near_nothing():
            raise self._refused("a filter for no class at all found something", "nothing, or an error")

    async def replaces(self) -> None:
        """Write two rows anew as another class, the farther of them where the question is."""
        moved, stayed = self._far[0], self._far[-1]
        await self._outside.put(
            [Row(moved.id, self._moved, self._question), Row(stayed.id, self._moved, stayed.vector)]
        )
        found = [row.id for row in await self._near(self._moved)]
        still = _ids(await self._near(self._open)) & {moved.id, stayed.id}
        if found != [moved.id, stayed.id] or still:
            refused = self._refused(
                "a row that was written again is found as it was before",
                "writing a known id replaces the row, its vector and its metadata",
            )
            if still:
                raise refused
            raise _NotFoundError(refused.what, expected=refused.expected, hint=refused.hint)

    async def deletes(self) -> None:
        with contextlib.suppress(StoreError):
            await self._outside.delete(self.ids)
        if any([await self._near(name) for name in (self._open, self._hidden, self._moved)]):
            raise self._refused(
                f"rows that were deleted are found (their class begins with {self._open[:6]!r})",
                "`delete` by ids takes rows away before the next search",
            )

    async def _near(self, name: str) -> list[Found]:
        return await self._outside.ask(self._question, [name], _ASKED)

    async def _near_nothing(self) -> list[Found]:
        """What the store makes of a filter without classes; the bridge never sends one but here."""
        try:
            return await self._outside.ask(self._question, [], _ASKED)
        except (StoreError, ConfigurationError):
            return []

    def _refused(self, what: str, expected: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._outside.name} cannot be bridged: {what}",
            expected=expected,
            hint="give the bridge the filter of that store, or settings under which it keeps this, or another store",
        )


def _about(centre: Vector, chance: random.Random) -> Vector:
    spread = _SPREAD / math.sqrt(len(centre))
    return unit(tuple(x + chance.gauss(0.0, spread) for x in centre))


def _row(readers: str | None, vector: Vector) -> Row:
    return Row(str(uuid.uuid4()), readers, vector)


def _ids(rows: Iterable[Row | Found]) -> set[str]:
    return {row.id for row in rows}
