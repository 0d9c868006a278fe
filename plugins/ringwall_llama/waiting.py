"""Who waits for the engine: at most so many, and nobody behind all of another's requests."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Waiting(Generic[T]):
    """A queue that takes from each asker in turn; what one asker asks for stays in order."""

    def __init__(self) -> None:
        self._by_asker: OrderedDict[str, deque[T]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return (item for items in self._by_asker.values() for item in items)

    def put(self, item: T, asker: str) -> None:
        self._by_asker.setdefault(asker, deque()).append(item)
        self._length += 1

    def first(self) -> T | None:
        """The next in turn, who stays where it is."""
        return next(iter(self._by_asker.values()))[0] if self._by_asker else None

    def take(self) -> T:
        """Take the next in turn out; its asker's other requests go behind everybody's."""
        asker, items = next(iter(self._by_asker.items()))
        item = items.popleft()
        self._length -= 1
        if items:
            self._by_asker.move_to_end(asker)
        else:
            del self._by_asker[asker]
        return item

    def remove(self, gone: Callable[[T], bool]) -> list[T]:
        """Take out all that are `gone`."""
        removed = [item for item in self if gone(item)]
        if removed:
            for asker, items in list(self._by_asker.items()):
                kept = deque(item for item in items if not gone(item))
                if kept:
                    self._by_asker[asker] = kept
                else:
                    del self._by_asker[asker]
            self._length -= len(removed)
        return removed
