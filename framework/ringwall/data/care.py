"""Taking care of a library: check it, copy it, write it out."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace

from ringwall.data.base import Chunk, Embeddings, StoreOfRecord
from ringwall.data.manifest import Manifest
from ringwall.principal import ACL
from ringwall.schema import JSON, canonical


@dataclass(frozen=True, slots=True)
class Checked:
    """What a store holds, and what is wrong with it: `findings` is empty if nothing is."""

    documents: int
    chunks: int
    findings: tuple[str, ...] = ()


async def verify(store: StoreOfRecord, manifest: Manifest | None = None) -> Checked:
    """Read all that a store holds and check it.

    Every chunk has readers and a range, either all have vectors or none has, all of one dimension; no passage of
    a document is missing; with a `manifest`, the store holds just what it says, with the readers it says. What the
    store itself finds comes first. Raises `StoreError` where it is too damaged to be read.
    """
    seen = _Seen()
    async for batch in store.scan():
        seen.add(batch)
    findings = [*await store.verify(), *seen.findings(), *(() if manifest is None else seen.differences(manifest))]
    return Checked(len(seen.passages), seen.passages.total(), tuple(findings))


async def copy(source: StoreOfRecord, target: StoreOfRecord, *, embeddings: Embeddings | None = None) -> int:
    """Put all that `source` holds into `target` too; return the number of chunks.

    With `embeddings` each passage gets a new vector on the way: so an embedder is changed while the old store
    answers. What is written to `source` meanwhile may be in the copy or not. Raises `StoreError`.
    """
    copied = 0
    async for batch in source.scan():
        chunks = batch if embeddings is None else await asyncio.to_thread(_embedded, batch, embeddings)
        await target.upsert(chunks)
        copied += len(batch)
    return copied


async def retire(
    store: StoreOfRecord, is_over: Callable[[Chunk], bool], *, manifest: Manifest | None = None
) -> tuple[str, ...]:
    """Delete every document of which one passage `is_over`, as its metadata tells; return their ids.

    A document whose source still has it comes back with the next ingestion. Raises `StoreError`.
    """
    over: dict[str, None] = {}
    async for batch in store.scan():
        over.update((chunk.document, None) for chunk in batch if is_over(chunk))
    if over:
        if manifest is not None:
            manifest.begin(over)
        await store.delete(list(over))
        if manifest is not None:
            manifest.forget(over)
    return tuple(over)


async def exported(store: StoreOfRecord) -> AsyncIterator[str]:
    """All that a store holds, a line of JSON for each chunk, readers and vector included."""
    async for batch in store.scan():
        for chunk in batch:
            yield canonical(_to_json(chunk))


def imported(line: str) -> Chunk:
    """The chunk that a line of `exported` tells of. Raises `KeyError` or `ValueError` for another line."""
    row = json.loads(line)
    vector = None if row["vector"] is None else tuple(row["vector"])
    start, end = row["range"]
    return Chunk(row["id"], row["document"], row["text"], ACL(row["readers"]), start, end, vector, row["metadata"])


class _Seen:
    """What a scan came across."""

    def __init__(self) -> None:
        self.passages: Counter[str] = Counter()
        self._readers: dict[str, set[frozenset[str]]] = {}
        self._dimensions: Counter[int] = Counter()
        self._odd: list[str] = []

    def add(self, batch: Sequence[Chunk]) -> None:
        for chunk in batch:
            self.passages[chunk.document] += 1
            self._readers.setdefault(chunk.document, set()).add(chunk.readers)
            self._dimensions[len(chunk.vector) if chunk.vector is not None else 0] += 1
            if not chunk.readers:
                self._odd.append(f"{chunk.id!r} has no readers")
            if not 0 <= chunk.start <= chunk.end:
                self._odd.append(f"{chunk.id!r} has the range {chunk.start} to {chunk.end}")

    def findings(self) -> list[str]:
        found = list(self._odd)
        if len(self._dimensions) > 1:
            kinds = ", ".join(f"{n} of {d or 'none'}" for d, n in sorted(self._dimensions.items()))
            found.append(f"vectors of several dimensions: {kinds}")
        return found

    def differences(self, manifest: Manifest) -> list[str]:
        found: list[str] = []
        known: set[str] = set()
        for entry in manifest.entries():
            known.add(entry.name)
            if self.passages[entry.name] != entry.passages:
                found.append(f"{entry.name!r} has {self.passages[entry.name]} passages, not {entry.passages}")
            elif entry.passages and self._readers[entry.name] != {entry.readers}:
                found.append(f"{entry.name!r} has other readers than it was ingested with")
        found += [f"{name!r} was begun and not finished: ingest again" for name in manifest.begun()]
        known.update(manifest.begun())
        return found + [f"{name!r} is in the store and was not ingested" for name in self.passages if name not in known]


def _embedded(chunks: Sequence[Chunk], embeddings: Embeddings) -> list[Chunk]:
    vectors = embeddings.embed_documents([chunk.text for chunk in chunks])
    return [replace(chunk, vector=tuple(vector)) for chunk, vector in zip(chunks, vectors, strict=True)]


def _to_json(chunk: Chunk) -> JSON:
    return {
        "id": chunk.id,
        "document": chunk.document,
        "text": chunk.text,
        "readers": sorted(chunk.readers),
        "range": [chunk.start, chunk.end],
        "vector": None if chunk.vector is None else list(chunk.vector),
        "metadata": dict(chunk.metadata),
    }
