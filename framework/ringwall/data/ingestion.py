"""One ingestion, from its first document to its last.

Three stages work at the same time: documents are read and split, passages embedded, batches stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar

from ringwall.data.admit import (
    Admitted,
    Pending,
    Readers,
    admit,
    content_of,
    loaded,
    name_of,
    readers_of,
    stored_name,
    tell_by_name,
)
from ringwall.data.ahead import ahead
from ringwall.data.base import Chunk, DocumentStore, Embeddings, Scalar, StoreOfRecord, Vector
from ringwall.data.frontmatter import body_start
from ringwall.data.manifest import Entry, Manifest
from ringwall.data.outcome import Ingested, Outcome, Refused, Relabelled, Removed, Unchanged
from ringwall.data.receiving import check_may_embed
from ringwall.data.splitting import ByKind
from ringwall.data.vectors import check_vector
from ringwall.errors import FlowDenied, InvalidInput
from ringwall.principal import ACL, TENANT_MARK, Grants
from ringwall.schema import canonical, digest

if TYPE_CHECKING:
    from langchain_core.documents import Document

T = TypeVar("T")

_BATCH: Final = 1024
"""Passages stored at a time, at least."""

_EMBEDDED: Final = 128
"""Passages embedded at a time, at most."""

_MOST_DOCUMENTS: Final = 1000
"""Documents stored at a time, at most: there may be many with few words, or none."""

_READ_AHEAD: Final = 8
"""Files read side by side."""

_PROBE: Final = (
    "# A heading\n\nA sentence, and another one.\n\n" * 40
    + "| a | b |\n| --- | --- |\n"
    + "| cell | 1 |\n" * 80
    + "\n```python\n"
    + "def function(x):\n    return x\n\n\n" * 40
    + "```\n"
)
"""What tells one way of cutting and embedding from another; it says nothing, so any embedder may read it."""


@dataclass(slots=True)
class _Job:
    """One document on its way; `outcome` is there as soon as it is settled."""

    name: str
    outcome: Outcome | None = None
    content: str = ""
    readers: ACL | None = None
    chunks: Sequence[Chunk] | None = None
    passages: int = 0


class Ingestion:
    """What is done to the documents that come, and what became of each."""

    def __init__(
        self,
        store: DocumentStore,
        embeddings: Embeddings | None,
        splitter: ByKind,
        manifest: Manifest,
        readers: Readers,
        tenant: str,
        embedder_holds: Grants,
    ) -> None:
        self._store, self._embeddings, self._split, self._manifest = store, embeddings, splitter, manifest
        self._readers, self._tenant, self._embedder_holds = readers, tenant, embedder_holds
        self._recipe = ""
        self._unlisted: list[str] = []
        self._dimension: int | None = None

    async def run(
        self, documents: Iterator[Document | tuple[str, str] | Pending | Refused]
    ) -> AsyncGenerator[Outcome, None]:
        self._manifest.start()
        await self._doubt()
        self._recipe = await asyncio.to_thread(self._how) if self._manifest.lasts else ""
        with ThreadPoolExecutor(_READ_AHEAD, thread_name_prefix="ringwall-ingest") as pool:
            jobs = self._jobs(documents, pool)
            batches = ahead(_in_thread(lambda: self._gather(jobs)))
            embedded = ahead(_each(batches, self._embed))
            async with contextlib.aclosing(embedded), contextlib.aclosing(batches):
                async for batch in embedded:
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
            held: Counter[str] = Counter()
            async for batch in self._store.scan():
                held.update(chunk.document for chunk in batch)
            self._manifest.doubt(held)

    def _how(self) -> str:
        """What this way of cutting and embedding does to a text: another splitter or embedder does another thing."""
        return f"{digest(canonical(self._split.recipe(_PROBE)))}:{fingerprint(self._embeddings)}"

    # Reading and splitting, in a thread

    def _gather(self, jobs: Iterator[_Job]) -> list[_Job]:
        """The next documents, as many as make a batch; none at the end."""
        batch: list[_Job] = []
        passages = 0
        for job in jobs:
            batch.append(job)
            passages += len(job.chunks or ())
            if passages >= _BATCH or len(batch) >= _MOST_DOCUMENTS:
                break
        return batch

    def _jobs(
        self, documents: Iterator[Document | tuple[str, str] | Pending | Refused], pool: Executor
    ) -> Iterator[_Job]:
        """What is to be done about each document, in order; some that must be read first are read side by side."""
        waiting: deque[_Job | Future[_Job]] = deque()
        for document in documents:
            waiting.append(self._job(document, pool))
            while waiting and (isinstance(waiting[0], _Job) or len(waiting) > _READ_AHEAD):
                yield _ready(waiting.popleft())
        while waiting:
            yield _ready(waiting.popleft())

    def _job(self, document: Document | tuple[str, str] | Pending | Refused, pool: Executor) -> _Job | Future[_Job]:
        came_as = name_of(document)
        try:
            name = self._see(came_as)
            if isinstance(document, Refused):
                if came_as.endswith("/"):
                    self._unlisted.append(f"{name.rstrip('/')}/")
                return _Job(came_as, document)
            known = self._manifest.find(name)
            content = content_of(document)
        except InvalidInput as error:
            return _Job(came_as, document if isinstance(document, Refused) else Refused(came_as, error))
        same = known if known and known.content == content and known.recipe == self._recipe else None
        if isinstance(document, Pending):
            return pool.submit(self._worked_out, document, came_as, name, content, same)
        return self._worked_out(document, came_as, name, content, same)

    def _worked_out(
        self, document: Document | tuple[str, str] | Pending, came_as: str, name: str, content: str, same: Entry | None
    ) -> _Job:
        try:
            if same:
                return self._known(document, came_as, same)
            admitted = admit(loaded(document), came_as, self._readers, self._tenant)
            check_may_embed(self._embeddings, admitted.readers, self._embedder_holds, came_as)
            return _Job(name, None, content, admitted.readers, self._chunks(admitted))
        except (InvalidInput, FlowDenied) as error:
            return _Job(came_as, Refused(came_as, error))

    def _see(self, came_as: str) -> str:
        name = stored_name(came_as, self._tenant)
        if not self._manifest.see(name):
            raise InvalidInput(f"a second document {came_as!r}", expected="one document for each id")
        return name

    def _known(self, document: Document | tuple[str, str] | Pending, came_as: str, known: Entry) -> _Job:
        """A document whose text is in the store already: all there is to do is to give it other readers."""
        if isinstance(document, Pending) and tell_by_name(self._readers):
            from langchain_core.documents import Document as LangChainDocument

            unread = LangChainDocument(id=came_as, page_content="", metadata={"source": came_as})
            if readers_of(unread, came_as, self._readers, self._tenant) == known.readers:
                return _Job(known.name, Unchanged(known.name))
        readers = readers_of(loaded(document), came_as, self._readers, self._tenant)
        if readers == known.readers:
            return _Job(known.name, Unchanged(known.name))
        return _Job(known.name, None, known.content, readers, passages=known.passages)

    def _chunks(self, document: Admitted) -> list[Chunk]:
        body, describe = body_start(document.text), _descriptions(document.metadata)
        return [
            Chunk(
                f"{document.name}#{number}",
                document.name,
                passage.text,
                document.readers,
                start=passage.start + body,
                end=passage.end + body,
                metadata={**passage.metadata, **describe(passage.start + body)},
            )
            for number, passage in enumerate(self._split.of(document.name)(document.text[body:]))
        ]

    # Embedding, in a thread

    def _embed(self, jobs: list[_Job]) -> list[_Job]:
        """Give every passage its vector; equal passages are embedded once.

        Passages of like length go together: most embedders treat a batch as if all were as long as the longest.
        """
        if self._embeddings is None:
            return jobs
        texts = sorted({chunk.text for job in jobs for chunk in job.chunks or ()}, key=lambda text: (len(text), text))
        vectors: dict[str, Vector] = {}
        for first in range(0, len(texts), _EMBEDDED):
            some = texts[first : first + _EMBEDDED]
            vectors.update(zip(some, map(tuple, self._embeddings.embed_documents(some)), strict=True))
        for job in jobs:
            if job.chunks:
                self._give_vectors(job, job.chunks, vectors)
        return jobs

    def _give_vectors(self, job: _Job, chunks: Sequence[Chunk], vectors: dict[str, Vector]) -> None:
        try:
            for chunk in chunks:
                self._dimension = check_vector(vectors[chunk.text], self._dimension, of=f"chunk {chunk.id!r}")
        except InvalidInput as error:
            job.chunks, job.outcome = None, Refused(job.name, error)
        else:
            job.chunks = [replace(chunk, vector=vectors[chunk.text]) for chunk in chunks]

    # Storing

    async def _store_all(self, jobs: list[_Job]) -> list[_Job]:
        """Store a batch: said to the manifest before, and after the store has answered."""
        new = [job for job in jobs if job.chunks is not None]
        relabelled = [job for job in jobs if job.outcome is None and job.chunks is None]
        open_jobs = [*new, *relabelled]
        if open_jobs:
            await asyncio.to_thread(self._manifest.begin, [job.name for job in open_jobs])
        await self._replace(new)
        await self._relabel(relabelled)
        entries = [
            Entry(job.name, job.content, self._recipe, job.readers, job.passages)
            for job in open_jobs
            if job.readers is not None and not isinstance(job.outcome, Refused)
        ]
        if entries:
            await asyncio.to_thread(self._manifest.finish, entries)
        return jobs

    async def _replace(self, jobs: list[_Job]) -> None:
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

    async def _relabel(self, jobs: list[_Job]) -> None:
        by_readers: dict[ACL, list[_Job]] = {}
        for job in jobs:
            assert job.readers is not None
            by_readers.setdefault(job.readers, []).append(job)
        for readers, same in by_readers.items():
            await self._store.set_readers([job.name for job in same], readers)
            for job in same:
                job.outcome = Relabelled(job.name, readers)


def fingerprint(embeddings: Embeddings | None) -> str:
    """What tells one embedder from another: what it makes of a text as a passage and as a question."""
    if embeddings is None:
        return digest("")
    vectors = [*embeddings.embed_documents([_PROBE]), embeddings.embed_query(_PROBE)]
    return digest(canonical([[round(float(x), 2) for x in vector] for vector in vectors]))


def _descriptions(metadata: Mapping[str, Scalar]) -> Callable[[int], Mapping[str, Scalar]]:
    """The metadata of a passage that begins at a place: the document's, and the number of its page, from 1.

    Readers of files say where pages begin in `pages`: a JSON list of character offsets.
    """
    try:
        begins = json.loads(str(metadata.get("pages", "")))
    except ValueError:
        begins = None
    if not isinstance(begins, list) or not all(isinstance(begin, int) for begin in begins):
        return lambda place: metadata
    offsets, rest = begins, {k: v for k, v in metadata.items() if k != "pages"}
    return lambda place: {**rest, "page": bisect_right(offsets, place)}


def _ready(job: _Job | Future[_Job]) -> _Job:
    return job if isinstance(job, _Job) else job.result()


async def _in_thread(make: Callable[[], list[T]]) -> AsyncIterator[list[T]]:
    """What `make` makes, each in a thread, until it makes nothing."""
    while made := await asyncio.to_thread(make):
        yield made


async def _each(items: AsyncIterator[T], work: Callable[[T], T]) -> AsyncIterator[T]:
    """`work` done on each, in a thread."""
    async for item in items:
        yield await asyncio.to_thread(work, item)
