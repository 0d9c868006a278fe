"""One ingestion, from its first document to its last.

Three stages work at the same time: documents are read and split, passages embedded, batches stored. What is known of
a document, and in which order all comes, is settled here; `Preparation` does the rest, in this process or elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, TypeVar

from ringwall.data.admit import content_of, name_of, stored_name
from ringwall.data.ahead import ahead
from ringwall.data.base import DocumentStore, StoreOfRecord
from ringwall.data.manifest import Entry, Manifest
from ringwall.data.narrowing import Narrowing
from ringwall.data.outcome import Ingested, Outcome, Refused, Relabelled, Removed
from ringwall.data.preparation import READ_AHEAD, Job, Order, Preparation
from ringwall.data.vectors import check_vectors
from ringwall.data.workers import Workers
from ringwall.errors import InvalidInput, WorkerDied
from ringwall.principal import ACL, TENANT_MARK

if TYPE_CHECKING:
    from langchain_core.documents import Document

    from ringwall.data.admit import Pending

T = TypeVar("T")

_BATCH: Final = 1024
"""Passages stored at a time, at least."""

_MOST_DOCUMENTS: Final = 1000
"""Documents stored at a time, at most: there may be many with few words, or none."""

_LOAD: Final = 100_000
"""Characters that a worker is sent at a time, at least: some 50 ms of work for a fast embedder."""


class Ingestion:
    """What is done to the documents that come, and what became of each."""

    def __init__(
        self, store: DocumentStore, manifest: Manifest, preparation: Preparation, workers: Workers | None
    ) -> None:
        self._store, self._manifest, self._preparation, self._workers = store, manifest, preparation, workers
        self._narrowing = Narrowing(store, manifest)
        self._tenant = preparation.tenant
        self._recipe = ""
        self._unlisted: list[str] = []
        self._dimension: int | None = None

    async def run(
        self, documents: Iterator[Document | tuple[str, str] | Pending | Refused]
    ) -> AsyncGenerator[Outcome, None]:
        self._manifest.start()
        await self._doubt()
        self._recipe = await asyncio.to_thread(self._preparation.fingerprint) if self._manifest.lasts else ""
        orders = map(self._order, documents)
        prepared = self._here(orders) if self._workers is None else self._elsewhere(orders, self._workers)
        async with contextlib.aclosing(ahead(prepared, room=1)) as batches:
            async for batch in batches:
                for job in await self._store_all(batch):
                    assert job.outcome is not None
                    yield job.outcome

    async def remove_unseen(self, prefix: str) -> AsyncGenerator[Outcome, None]:
        known = await asyncio.to_thread(lambda: list(self._manifest.unseen(prefix)))
        gone = [name for name in known if self._is_gone(name)]
        for first in range(0, len(gone), _MOST_DOCUMENTS):
            names = gone[first : first + _MOST_DOCUMENTS]
            self._manifest.begin(names)
            await self._store.delete(names)
            self._manifest.forget(names)
            for name in names:
                yield Removed(name)

    def _is_gone(self, name: str) -> bool:
        """Whether an unseen document is missing: not another tenant's, nor below a folder nobody could look into."""
        return (bool(self._tenant) or TENANT_MARK not in name) and not name.startswith(tuple(self._unlisted))

    async def agree(self) -> None:
        """Remember at which revision of the store the manifest was right about it."""
        if self._manifest.lasts and isinstance(self._store, StoreOfRecord):
            self._manifest.revision = await self._store.revision()

    async def _doubt(self) -> None:
        """Where something else changed the store since, look whether it still holds what the manifest says."""
        if not self._manifest.lasts or not isinstance(self._store, StoreOfRecord):
            return
        if self._manifest.revision != await self._store.revision():
            async for batch in self._store.scan():
                self._manifest.hold(Counter(chunk.document for chunk in batch))
            self._manifest.doubt()

    # What is wanted, in a thread: only here is it known what came before

    def _order(self, document: Document | tuple[str, str] | Pending | Refused) -> Order | Job:
        """What is to be done about a document, or what became of it if nothing is."""
        came_as = name_of(document)
        try:
            name = self._see(came_as)
            if isinstance(document, Refused):
                if came_as.endswith("/"):
                    self._unlisted.append(f"{name.rstrip('/')}/")
                return Job(came_as, document)
            known = self._manifest.find(name)
            content = content_of(document)
            same = known if known and known.content == content and known.recipe == self._recipe else None
            order = Order(document, came_as, name, content, same)
            return self._preparation.unread(order) or order
        except InvalidInput as error:
            return Job(came_as, document if isinstance(document, Refused) else Refused(came_as, error))

    def _see(self, came_as: str) -> str:
        name = stored_name(came_as, self._tenant)
        if not self._manifest.see(name):
            raise InvalidInput(f"a second document {came_as!r}", expected="one document for each id")
        return name

    # Reading, splitting and embedding

    async def _here(self, orders: Iterator[Order | Job]) -> AsyncGenerator[list[Job], None]:
        """In threads: batches are read while the one before is embedded.

        Each stage has a thread of its own, since memory that one thread gave back is not used by the others.
        """
        with ThreadPoolExecutor(READ_AHEAD) as fetching, _one_thread() as reading, _one_thread() as embedding:
            jobs = self._preparation.read_all(orders, fetching)
            async with contextlib.aclosing(ahead(_made_in(reading, lambda: _gather(jobs)))) as batches:
                async for batch in batches:
                    await self._narrowing.at_once(batch)
                    try:
                        embedded = await _run_in(embedding, lambda: self._preparation.embed(batch))  # noqa: B023 (run at once)
                    except Exception:
                        await self._narrowing.of(batch)
                        raise
                    yield embedded

    async def _elsewhere(self, orders: Iterator[Order | Job], workers: Workers) -> AsyncGenerator[list[Job], None]:
        """By workers, each with some documents at a time."""
        batch: list[Job] = []
        with _one_thread() as reading:
            loads = _made_in(reading, lambda: _load(orders))
            async with contextlib.aclosing(workers.each(self._preparation, loads)) as done:
                async for asked, made in done:
                    batch += map(self._made, asked, made)
                    if len(batch) >= _MOST_DOCUMENTS or sum(len(job.chunks or ()) for job in batch) >= _BATCH:
                        yield batch
                        batch = []
        if batch:
            yield batch

    def _made(self, order: Order | Job, made: Job | WorkerDied) -> Job:
        """What a worker made of an order; a document that lets workers die is refused."""
        if isinstance(made, Job):
            return made
        readers = self._preparation.told_by_name(order) if isinstance(order, Order) else None
        return Job(order.name, Refused(order.name, made), readers=readers)

    # Storing

    async def _store_all(self, jobs: list[Job]) -> list[Job]:
        """Store a batch: said to the manifest before, and after the store has answered."""
        await asyncio.to_thread(self._check_vectors, jobs)
        new = [job for job in jobs if job.chunks is not None]
        relabelled = [job for job in jobs if job.outcome is None and job.chunks is None]
        open_jobs = [*new, *relabelled]
        if open_jobs:
            await asyncio.to_thread(self._manifest.begin, [job.name for job in open_jobs])
        await self._replace(new)
        await self._relabel(relabelled)
        await self._narrowing.of([job for job in jobs if isinstance(job.outcome, Refused)])
        entries = [
            Entry(job.name, job.content, self._recipe, job.readers, job.passages)
            for job in open_jobs
            if job.readers is not None and not isinstance(job.outcome, Refused)
        ]
        if entries:
            await asyncio.to_thread(self._manifest.finish, entries)
        return jobs

    def _check_vectors(self, jobs: list[Job]) -> None:
        """Refuse documents with a vector that no store can keep, or of another dimension than those before."""
        for job in jobs:
            try:
                self._dimension = check_vectors(job.chunks or (), self._dimension)
            except InvalidInput as error:
                job.chunks, job.outcome = None, Refused(job.name, error)

    async def _replace(self, jobs: list[Job]) -> None:
        chunks = [chunk for job in jobs for chunk in job.chunks or ()]
        try:
            if jobs:
                await self._store.replace([job.name for job in jobs], chunks)
        except InvalidInput as error:
            if len(jobs) == 1:
                jobs[0].outcome = Refused(jobs[0].name, error)
                return
            for job in jobs:  # one of them is to blame: the others must not suffer for it
                await self._replace([job])
            return
        for job in jobs:
            job.passages = len(job.chunks or ())
            job.outcome = Ingested(job.name, job.passages)

    async def _relabel(self, jobs: list[Job]) -> None:
        by_readers: dict[ACL, list[Job]] = {}
        for job in jobs:
            assert job.readers is not None
            by_readers.setdefault(job.readers, []).append(job)
        for readers, same in by_readers.items():
            await self._store.set_readers([job.name for job in same], readers)
            for job in same:
                job.outcome = Relabelled(job.name, readers)


def _gather(jobs: Iterator[Job]) -> list[Job]:
    """The next jobs, as many as make a batch; none at the end."""
    batch: list[Job] = []
    passages = 0
    for job in jobs:
        batch.append(job)
        passages += len(job.chunks or ())
        if passages >= _BATCH or len(batch) >= _MOST_DOCUMENTS:
            break
    return batch


def _load(orders: Iterator[Order | Job]) -> list[Order | Job]:
    """The next orders, as many as a worker is sent at a time; none at the end."""
    load: list[Order | Job] = []
    characters = 0
    for order in orders:
        load.append(order)
        characters += order.size if isinstance(order, Order) else 0
        if characters >= _LOAD or len(load) >= _MOST_DOCUMENTS:
            break
    return load


def _one_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="ringwall-ingest")


async def _run_in(thread: Executor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, work)


async def _made_in(thread: Executor, make: Callable[[], list[T]]) -> AsyncGenerator[list[T], None]:
    """What `make` makes, until it makes nothing."""
    while made := await _run_in(thread, make):
        yield made
