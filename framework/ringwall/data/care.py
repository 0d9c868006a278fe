"""Taking care of a library: check it, copy it, write it out, find what is there twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from ringwall.data.base import Chunk, Embeddings, StoreOfRecord, Vector
from ringwall.data.duplicates import Copies as Copies
from ringwall.data.duplicates import Copy as Copy
from ringwall.data.duplicates import duplicates as duplicates
from ringwall.data.manifest import Manifest
from ringwall.data.preparation import embedded
from ringwall.data.receiving import PUBLIC_ONLY, check_may_embed
from ringwall.data.workers import Workers
from ringwall.errors import WorkerDied
from ringwall.principal import ACL, Grants
from ringwall.schema import JSON, canonical, digest

_SENT: Final = 256
"""Passages that a worker is sent at a time."""


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


async def copy(
    source: StoreOfRecord,
    target: StoreOfRecord,
    *,
    embeddings: Embeddings | None = None,
    embedder_holds: Grants = PUBLIC_ONLY,
    workers: Workers | None = None,
) -> int:
    """Put all that `source` holds into `target` too; return the number of chunks.

    With `embeddings` each passage gets a new vector on the way, from `workers` if there are any. What is written to
    `source` meanwhile may be in the copy or not. Raises `StoreError`, `WorkerDied` for a passage that lets workers
    die, and `FlowDenied` when an embedder elsewhere would be sent what a holder of `embedder_holds` may not read.
    """
    copied = 0
    async with contextlib.aclosing(_embedded(source.scan(), embeddings, embedder_holds, workers)) as batches:
        async for chunks in batches:
            await target.upsert(chunks)
            copied += len(chunks)
    return copied


async def catch_up(
    source: StoreOfRecord,
    target: StoreOfRecord,
    embeddings: Embeddings,
    *,
    embedder_holds: Grants = PUBLIC_ONLY,
    told: Callable[[int], None] = lambda passages: None,
) -> int:
    """Bring `target` nearer to what `source` holds, with vectors of `embeddings`; return how much was to be done.

    What is the same there already is not done again: whoever was stopped goes on. At 0, and if nothing was written
    meanwhile, both hold the same. `told` is called with numbers of passages as they are done with. Some 0.4 KB are
    kept of each passage meanwhile. Raises `StoreError`, and `FlowDenied` as `copy` does.
    """
    held = {chunk.id: (_but_its_vector(chunk), chunk.document) async for batch in target.scan() for chunk in batch}
    done = 0
    async for batch in source.scan():
        new = [chunk for chunk in batch if held.pop(chunk.id, ("", ""))[0] != _but_its_vector(chunk)]
        if new:
            async for chunks in _embedded(_one(new), embeddings, embedder_holds):
                await target.upsert(chunks)
        done += len(new)
        told(len(batch))
    gone = {document for _, document in held.values()}
    if gone:  # whole, since passages cannot be deleted; what is left of them comes the next time
        await target.delete(list(gone))
    return done + len(gone)


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


async def _embedded(
    batches: AsyncIterator[Sequence[Chunk]],
    embeddings: Embeddings | None,
    holds: Grants,
    workers: Workers | None = None,
) -> AsyncGenerator[Sequence[Chunk], None]:
    """The same chunks with new vectors, if there is what makes them."""
    if embeddings is None:
        async for chunks in batches:
            yield chunks
        return
    embed = partial(_vectors, embeddings)
    permitted = _permitted(batches, embeddings, holds)
    if workers is None:
        async for chunks in permitted:
            yield _with_vectors(chunks, await asyncio.to_thread(embed, [chunk.text for chunk in chunks]))
        return
    sent: deque[Sequence[Chunk]] = deque()
    async with contextlib.aclosing(workers.each(embed, _texts(permitted, sent))) as done:
        async for _, vectors in done:
            yield _with_vectors(sent.popleft(), vectors)


async def _permitted(
    batches: AsyncIterator[Sequence[Chunk]], embeddings: Embeddings, holds: Grants
) -> AsyncIterator[Sequence[Chunk]]:
    """The same chunks, each looked at before anything of it is sent."""
    async for chunks in batches:
        for chunk in chunks:
            check_may_embed(embeddings, chunk.readers, holds, chunk.document)
        yield chunks


async def _one(chunks: Sequence[Chunk]) -> AsyncIterator[Sequence[Chunk]]:
    yield chunks


async def _texts(batches: AsyncIterator[Sequence[Chunk]], sent: deque[Sequence[Chunk]]) -> AsyncIterator[Sequence[str]]:
    """What is sent of chunks, some at a time; they themselves are kept in `sent` until their vectors come back."""
    async for batch in batches:
        for first in range(0, len(batch), _SENT):
            sent.append(batch[first : first + _SENT])
            yield [chunk.text for chunk in sent[-1]]


def _vectors(embeddings: Embeddings, texts: Sequence[str]) -> list[Vector]:
    vectors = embedded(embeddings, texts)
    return [vectors[text] for text in texts]


def _with_vectors(chunks: Sequence[Chunk], vectors: Sequence[Vector | WorkerDied]) -> list[Chunk]:
    fresh: list[Chunk] = []
    for chunk, vector in zip(chunks, vectors, strict=True):
        if isinstance(vector, WorkerDied):
            raise vector
        fresh.append(replace(chunk, vector=vector))
    return fresh


def _but_its_vector(chunk: Chunk) -> str:
    return digest(canonical(_to_json(replace(chunk, vector=None))))


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
