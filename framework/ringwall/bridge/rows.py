"""What the bridge remembers of the record: which rows there are, and whose grants open which classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from ringwall.bridge.outside import Row
from ringwall.data.base import Chunk
from ringwall.principal import ACL, Grant, Grants


class _Entry(NamedTuple):
    chunk: str
    document: str
    readers: str


class Rows:
    """One entry for each chunk that the vector store has."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._documents: dict[str, set[str]] = {}
        self._counts: Counter[str] = Counter()
        self._opens: dict[Grant, set[str]] = {}
        self._grants: dict[str, ACL] = {}

    def put(self, row: Row, chunk: Chunk) -> None:
        """Take in a row, in the place of one with the same id."""
        self.remove([row.id])
        entry = self._entries[row.id] = _Entry(chunk.id, chunk.document, row.readers or "")
        self._documents.setdefault(entry.document, set()).add(row.id)
        self._counts[entry.readers] += 1
        if entry.readers not in self._grants:
            self._grants[entry.readers] = chunk.readers
            for grant in chunk.readers:
                self._opens.setdefault(grant, set()).add(entry.readers)

    def remove(self, ids: Iterable[str]) -> None:
        for id in ids:
            entry = self._entries.pop(id, None)
            if entry is None:
                continue
            self._documents[entry.document].discard(id)
            if not self._documents[entry.document]:
                del self._documents[entry.document]
            self._counts[entry.readers] -= 1
            if not self._counts[entry.readers]:
                self._forget(entry.readers)

    def chunks(self, ids: Iterable[str]) -> list[str]:
        """The ids of the chunks that these rows stand for; unknown rows are left out."""
        return [self._entries[id].chunk for id in self.known(ids)]

    def known(self, ids: Iterable[str]) -> list[str]:
        return [id for id in ids if id in self._entries]

    def of(self, documents: Iterable[str]) -> list[str]:
        """The rows of these documents."""
        return [id for document in set(documents) for id in self._documents.get(document, ())]

    def permitted(self, readable: Grants) -> dict[str, int]:
        """The classes that somebody who holds `readable` may read, each with how many rows it has."""
        return {name: self._counts[name] for grant in readable for name in self._opens.get(grant, ())}

    def _forget(self, readers: str) -> None:
        del self._counts[readers]
        for grant in self._grants.pop(readers):
            self._opens[grant].discard(readers)
            if not self._opens[grant]:
                del self._opens[grant]
