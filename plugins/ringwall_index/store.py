"""A search index beside a store of record: made of it, kept up to date with it, with the readers inside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from ringwall.data import lock
from ringwall.data.base import Chunk, Match, Query, Sections, StoreOfRecord
from ringwall.data.feedback import PASSAGES, asked, expanded
from ringwall.data.fuse import DENSE_WEIGHT
from ringwall.data.lexical import words
from ringwall.errors import InvalidInput, RingwallError, StoreError
from ringwall.principal import ACL, Grants
from ringwall_index import files
from ringwall_index.index import ChunkIndex

P = ParamSpec("P")
T = TypeVar("T")

_SPARE: Final = 8
"""Matches fetched beyond `k`: some may lose their readers while a search is on its way."""

_LITTLE: Final = 4096
"""Chunks in changed sections that a search waits for; meanwhile, with more, the store answers."""

_WORTH_KEEPING: Final = 0.001
"""The share of rows that must have changed for the index to be kept when it is closed: fewer are quickly read again."""

_RESTING: Final = 4
"""Compacting may take up a fifth of the time: it rests this many times as long as it took."""

_log: Final = logging.getLogger("ringwall.index")


class Indexed(StoreOfRecord):
    """`store`, searched through an index of words, vectors and metadata that knows who may read what.

    Everything is kept by `store`; the index is made of it. Before each search it looks whether the store has changed,
    by whichever process, and takes in what has: of a store that has sections only those, else all of it. While there
    is much to take in, `store` searches itself. Every chunk that a search returns was read from `store` as the reader.

    With a `folder` the index is kept there, private to its owner, and opened again from there: several processes may
    share one. What is wrong with it is logged, and it is built anew.

    Scores are BM25 and cosine of the readable chunks, fused as in `MemoryStore`; the nearest vectors are found
    approximately once there are some thousands. Work runs in threads.
    """

    def __init__(
        self, store: StoreOfRecord, folder: str | Path | None = None, *, dense_weight: float = DENSE_WEIGHT
    ) -> None:
        self._store, self._dense_weight = store, dense_weight
        self._folder = None if folder is None else Path(folder)
        self._writing = asyncio.Lock()
        self._index: ChunkIndex | None = None
        self._latest = ""
        """The version of what was in the folder when we last looked."""
        self._is_told = False
        """Whether the index is told what is written through this object: the store has no sections to find it by."""
        self._catching_up: asyncio.Task[None] | None = None
        self._compacting: asyncio.Task[None] | None = None
        self._rested = 0.0

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        """As in `DocumentStore`. Raises `InvalidInput` for a query vector of another dimension."""
        index = await self._ready() if k > 0 else None
        if index is None:
            return await self._store.search(query, readable, k)
        question = await asyncio.to_thread(index.question, query, readable, k)
        terms = asked(words(query.text))
        ranked = await asyncio.to_thread(index.ranked, question, terms, k + _SPARE, self._dense_weight)
        if len(ranked) > k and terms:
            terms = await self._expanded(terms, ranked, readable)
            ranked = await asyncio.to_thread(index.ranked, question, terms, k + _SPARE, self._dense_weight)
        scores = dict(ranked)
        chunks = await self._store.get(list(scores), readable)
        return [Match(chunk, scores[chunk.id]) for chunk in chunks if query.admits(chunk.metadata)][:k]

    async def get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        return await self._store.get(ids, readable)

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        async with self._changing() as index:
            await self._store.upsert(chunks)
            if index is not None:
                await asyncio.to_thread(index.put, chunks)

    async def delete(self, documents: Sequence[str]) -> None:
        async with self._changing() as index:
            await self._store.delete(documents)
            if index is not None:
                await asyncio.to_thread(index.remove, documents)

    async def replace(self, documents: Sequence[str], chunks: Sequence[Chunk]) -> None:
        async with self._changing() as index:
            await self._store.replace(documents, chunks)
            if index is not None:
                await asyncio.to_thread(index.remove, documents)
                await asyncio.to_thread(index.put, chunks)

    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        async with self._changing() as index:
            await self._store.set_readers(documents, readers)
            if index is not None:
                await asyncio.to_thread(index.relabel, documents, readers)

    def scan(self) -> AsyncIterator[Sequence[Chunk]]:
        return self._store.scan()

    async def revision(self) -> str:
        return await self._store.revision()

    async def sections(self) -> Sections | None:
        return await self._store.sections()

    async def verify(self) -> list[str]:
        return await self._store.verify()

    async def build(self) -> None:
        """Bring the index up to date now, however much there is to do; make it if there is none.

        Does nothing while another process makes the one in the folder.
        """
        async with self._writing:
            await self._catch_up()

    async def compact(self) -> None:
        """Leave nothing of what was deleted in the files of the store, nor in those of the index.

        Raises `StoreError` while another process makes the index in the folder: then it is to be done again.
        """
        await self._store.compact()
        async with self._writing:
            await self._catch_up()
            with self._alone() as is_alone:
                if self._index is None or not is_alone:
                    raise StoreError("the index is being made by another process", hint="compact it again")
                self._index = await self._kept(await asyncio.to_thread(self._index.compacted))

    async def close(self) -> None:
        """Keep the index if enough has changed in it, forget it and close the store."""
        for task in (self._catching_up, self._compacting):
            await _stopped(task)
        index, self._index = self._index, None
        if index is not None and index.changed > _WORTH_KEEPING * len(index):
            with self._alone() as is_alone:
                if is_alone and self._is_latest():  # what somebody compacted meanwhile must not come back
                    await self._kept(index)
        await self._store.close()

    # ---- keeping up

    async def _ready(self) -> ChunkIndex | None:
        """The index, if it can be brought up to date in no time; else None, and it is seen to."""
        index = self._index
        if index is not None and index.revision == await self._store.revision():
            return index
        if _runs(self._catching_up):
            return None
        async with self._writing:
            index = self._index = self._index or await self._opened()
            if index is not None and await self._follow(index, at_most=_LITTLE):
                self._compact_if_due(index)
                return index
        if not _runs(self._catching_up):
            self._catching_up = asyncio.create_task(_logged(self.build))
        return None

    async def _catch_up(self) -> None:
        index = self._index or await self._opened()
        if index is None or not await self._follow(index):
            self._index = None
            with self._alone() as is_alone:
                index = await self._kept(await self._built()) if is_alone else None
        self._index = index
        if index is not None:
            self._compact_if_due(index)

    async def _follow(self, index: ChunkIndex, *, at_most: int | None = None) -> bool:
        """Take in what has changed in the store; False if that is more than `at_most`, or the index is of no use."""
        revision = await self._store.revision()
        if index.revision == revision:
            return True
        sections = await self._sections()
        if sections is None or index.versions is None:
            return False
        changed = [name for name, version in sections.versions.items() if index.versions.get(name) != version]
        if at_most is not None and sum(sections.sizes[name] for name in changed) > at_most:
            return False
        try:
            await _take(index, sections, changed)
        except InvalidInput:  # whatever was there had vectors of another dimension
            return False
        index.revision = revision
        return len(index) > 0  # when nothing is left, vectors of any dimension may come

    async def _built(self) -> ChunkIndex:
        index, revision = ChunkIndex(), await self._store.revision()
        sections = await self._sections()
        if sections is not None:
            await _take(index, sections, list(sections.versions))
        else:
            async for batch in self._store.scan():
                await asyncio.to_thread(index.put, batch)
        index.revision = revision
        return await asyncio.to_thread(index.compacted)

    async def _sections(self) -> Sections | None:
        sections = await self._store.sections()
        self._is_told = sections is None
        return sections

    @contextlib.asynccontextmanager
    async def _changing(self) -> AsyncIterator[ChunkIndex | None]:
        """Change the store; and the index with it, unless the store's sections will tell what has changed.

        If either fails, or something else changed the store, the index goes.
        """
        if not self._is_told:
            yield None
            return
        async with self._writing:
            index, revision = self._index, await self._store.revision()
            index = index if index is not None and index.revision == revision else None
            self._index = None
            yield index
            if index is not None:
                index.revision = await self._store.revision()
            self._index = index

    # ---- compacting

    def _compact_if_due(self, index: ChunkIndex) -> None:
        if index.wants_compacting and not _runs(self._compacting) and time.monotonic() >= self._rested:
            self._compacting = asyncio.create_task(_logged(partial(self._compact, index)))

    async def _compact(self, index: ChunkIndex) -> None:
        """Put a compacted index in the place of `index`, or one that another process has kept meanwhile."""
        started = time.monotonic()
        with self._alone() as is_alone:
            if is_alone:
                better = await self._opened()
                if better is None:
                    async with self._writing:
                        as_it_is = await asyncio.to_thread(index.frozen)
                    better = await self._kept(await asyncio.to_thread(as_it_is.compacted))
                await self._follow(better)  # most of what changed meanwhile: while this is read, searches go on
                async with self._writing:
                    if self._index is index and await self._follow(better):
                        self._index = better
        self._rested = time.monotonic() + _RESTING * (time.monotonic() - started)

    # ---- the folder

    async def _opened(self) -> ChunkIndex | None:
        """What was kept in the folder since we last looked, if anything."""
        while self._folder is not None and not self._is_latest():
            self._latest = files.version(self._folder)
            try:
                index = await asyncio.to_thread(ChunkIndex.open, self._folder)
            except StoreError as error:
                if self._is_latest():  # else it was replaced while we read
                    _log.warning("the index is built anew: %s", error)
            else:
                self._is_told = index.versions is None
                return index
        return None

    async def _kept(self, index: ChunkIndex) -> ChunkIndex:
        """The same index, kept in the folder and read from there: others who do so share the memory with us."""
        if self._folder is None:
            return index
        try:
            await _whole(index.save, self._folder)
            self._latest = files.version(self._folder)
            return await asyncio.to_thread(ChunkIndex.open, self._folder, verify=False)
        except StoreError as error:
            _log.warning("the index was not kept: %s", error)
            return index

    def _is_latest(self) -> bool:
        """Whether nobody has kept an index in the folder since we last looked."""
        return self._folder is not None and self._latest == files.version(self._folder)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[bool]:
        """Whether we, of all that use the folder, may make the index."""
        if self._folder is None:
            yield True
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds what not everybody may read
            held = lock.take(self._folder / "lock", what="the index", hint="another process makes it")
        except (OSError, StoreError):
            yield not os.access(self._folder, os.W_OK)  # where nobody can write, each has its own
            return
        with held:
            yield True

    async def _expanded(
        self, terms: dict[str, float], ranked: Sequence[tuple[str, float]], readable: Grants
    ) -> dict[str, float]:
        """The question with what the best passages say; see `ringwall.data.feedback`."""
        scores = dict(ranked[:PASSAGES])
        best = await self._store.get(list(scores), readable)
        return expanded(terms, [(Counter(words(chunk.text)), scores[chunk.id]) for chunk in best])


async def _take(index: ChunkIndex, sections: Sections, changed: Sequence[int]) -> None:
    """Read the changed sections, and drop what is in none any longer."""
    read = sections.read(changed, index.known)
    standing = [await _whole(index.take, section) async for section in read]
    gone = (index.versions or {}).keys() - sections.versions.keys()
    await _whole(index.leave, {*changed, *gone}, standing)
    index.versions = dict(sections.versions)


async def _whole(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Do `work` in a thread, and be cancelled only when it is done: nobody else is to write at the same time."""
    done = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        await asyncio.wait([done])
        raise


async def _logged(work: Callable[[], Awaitable[None]]) -> None:
    """What fails in the background is tried again at the next search."""
    try:
        await work()
    except RingwallError as error:
        _log.warning("the index could not be brought up to date: %s", error)


def _runs(task: asyncio.Task[None] | None) -> bool:
    return task is not None and not task.done()


async def _stopped(task: asyncio.Task[None] | None) -> None:
    if task is None or task.done():
        return
    loop = task.get_loop()
    if loop is asyncio.get_running_loop():
        task.cancel()
        await asyncio.wait([task])
    elif not loop.is_closed():
        loop.call_soon_threadsafe(task.cancel)
