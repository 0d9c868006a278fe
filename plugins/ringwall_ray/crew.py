"""A crew of actors that do one kind of work; who dies is replaced."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

import ray
from ray import cloudpickle
from ray.exceptions import ObjectLostError, OutOfMemoryError, RayActorError, RayError, RayTaskError

from ringwall.errors import ConfigurationError, WorkerDied

T = TypeVar("T")
U = TypeVar("U")

_START: Final = 180.0
"""Seconds until an actor must have started: it may have to load an embedder."""

_IN_HAND: Final = 2
"""Batches that an actor has: one it works on, and the next."""

_DEAD: Final = (RayActorError, ObjectLostError, OutOfMemoryError)
"""What Ray says when an actor, or what it made, is gone."""


class _Actor:
    """Does what it was sent, on what it is given."""

    def __init__(self, work: bytes) -> None:
        self._work: Callable[[Any], Any] = cloudpickle.loads(work)

    def is_ready(self) -> bool:
        return True

    def do(self, batch: bytes) -> Any:
        return self._work(cloudpickle.loads(batch))


class _Place:
    """Where an actor works, and then the one that came after it."""

    def __init__(self, work: Any, *, processors: int = 1) -> None:
        actors: Any = ray.remote(num_cpus=processors, max_restarts=0)(_Actor)
        self._hire = partial(actors.remote, work)
        self._actor = self._hire()

    async def ready(self) -> None:
        await self._actor.is_ready.remote()

    async def do(self, packed: bytes) -> Any:
        """What the actor makes of a batch. Raises one of `_DEAD` if it died, and what the work raised."""
        actor = self._actor
        try:
            return await actor.do.remote(packed)
        except _DEAD:
            if self._actor is actor:
                self._actor = self._hire()
            raise
        except RayTaskError as error:
            raise error.cause from None

    def end(self) -> None:
        ray.kill(self._actor)


class Crew(Generic[T, U]):
    """`count` actors that do `work`. Call `start` first, and `end` last."""

    def __init__(self, work: Callable[[Sequence[T]], Sequence[U]], count: int) -> None:
        self._work = ray.put(_packed(work))
        self._places = [_Place(self._work) for _ in range(count)]
        self._free: asyncio.Queue[_Place] = asyncio.Queue()
        self._apart: _Place | None = None
        self._one_by_one = asyncio.Lock()

    async def start(self) -> None:
        """Wait until every actor is there. Raises `ConfigurationError` if one does not start."""
        try:
            async with asyncio.timeout(_START):
                await asyncio.gather(*(place.ready() for place in self._places))
        except (RayError, TimeoutError) as error:
            raise ConfigurationError(
                f"a worker on Ray does not start: {str(error) or 'it has no processor free'}",
                expected="the same packages where the worker runs, and a processor for each worker",
            ) from error
        for place in self._places * _IN_HAND:
            self._free.put_nowait(place)

    async def do(self, batch: Sequence[T]) -> Sequence[U | WorkerDied]:
        """What becomes of a batch; of each item by itself, if the actor that had the batch died."""
        packed = _packed(batch)
        place = await self._free.get()
        try:
            made: Sequence[U] = await place.do(packed)
        except _DEAD:
            return [await self._alone(item) for item in batch]
        finally:
            self._free.put_nowait(place)
        return made

    async def _alone(self, item: T) -> U | WorkerDied:
        """What becomes of an item that may have let an actor die: done apart, so that no other dies along with it."""
        async with self._one_by_one:
            if self._apart is None:
                self._apart = _Place(self._work, processors=0)
                self._places.append(self._apart)
            try:
                (made,) = await self._apart.do(_packed([item]))
            except _DEAD:
                return WorkerDied()
        done: U = made
        return done

    def end(self) -> None:
        """End the actors, whatever they are doing."""
        for place in self._places:
            place.end()


def _packed(thing: object) -> bytes:
    try:
        packed: bytes = cloudpickle.dumps(thing)  # type: ignore[no-untyped-call]
    except (TypeError, AttributeError, ValueError) as error:  # what pickle raises, besides its own
        raise ConfigurationError(
            f"it cannot be sent to a worker: {error}",
            expected="an embedder, a splitter, rules and documents that can be pickled",
            hint="let it say in `__reduce__` how it is made anew, as `ringwall_minilm.MiniLmEmbeddings` does",
        ) from error
    return packed
