"""Other processes that do part of an ingestion: what there must be of them, and nothing of how they are run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import TypeVar

from ringwall.errors import WorkerDied

T = TypeVar("T")
U = TypeVar("U")


class Workers(ABC):
    """Processes that work on many things at a time, here or on other machines. `ringwall_ray` has some.

    The caller relies on this:

    - batches come back in the order they were given, each with one result for each of its items.
    - a worker that dies is replaced, and what it had begun is done again, each item by itself; an item that
      then lets its worker die once more has a `WorkerDied` in its place. Nothing is left out or done twice over.
    - only a few batches more than there are workers are taken ahead of the one that is asked for.
    - what `work` raises is raised in its place, as it was; leaving early stops what was begun.
    """

    @abstractmethod
    def each(
        self, work: Callable[[Sequence[T]], Sequence[U]], batches: AsyncIterator[Sequence[T]]
    ) -> AsyncGenerator[tuple[Sequence[T], Sequence[U | WorkerDied]], None]:
        """Each batch, and what `work` made of it. `work` is sent to a worker once, the items as they come.

        Raises `ConfigurationError` if `work` or an item cannot be sent, or no worker starts.
        """

    async def close(self) -> None:
        """End what was started; called once, by whoever made it."""
