"""A library's store and its embedder, which may become others while the library is open: always both at once.

One small file says which they are. Whoever has the library open looks at it before whatever it does, so that who
replaces it gives everybody the new store and the new embedder in one step; what is under way ends where it began.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import threading
from array import array
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Self

from ringwall.data.base import Chunk, Embeddings, Match, Query, StoreOfRecord
from ringwall.data.lock import try_take, waited_for
from ringwall.data.receiving import receiver_of
from ringwall.errors import ConfigurationError, InvalidInput, StoreError
from ringwall.principal import ACL, Grants, Principal

FIRST_STORE: Final = "documents.db"
_SETTLED: Final = "embeddings"
_PLANNED: Final = "embeddings.next"
_WRITING: Final = "writing.lock"
_STORE: Final = re.compile(r"documents(?:\.(\d+))?\.db")
_REMEMBERED: Final = 4096
"""Vectors known to be of the present embedder: many more than questions and passages are under way."""


class Settled(NamedTuple):
    """What the small file says: which embedder, which store, and what tells this embedder from the one before."""

    embedder: str
    store: str = FIRST_STORE
    before: str = ""
    now: str = ""

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """What holds in the folder; None if there is no library."""
        return cls._read(folder / _SETTLED)

    @classmethod
    def planned(cls, folder: Path) -> Self | None:
        """What is to hold when its store is full; None if nothing is planned."""
        return cls._read(folder / _PLANNED)

    @classmethod
    def _read(cls, file: Path) -> Self | None:
        try:
            words = file.read_text(encoding="utf-8").split()
        except FileNotFoundError:
            return None
        if not 1 <= len(words) <= 4 or not _STORE.fullmatch(cls(*words).store):
            raise StoreError(f"{file.name!r} of the library is damaged", expected="an embedder and a store")
        return cls(*words)

    @property
    def number(self) -> int:
        """How many stores there were before this one."""
        named = _STORE.fullmatch(self.store)
        return int(named[1] or 0) if named else 0

    def settle(self, folder: Path) -> None:
        """Let this hold in the folder."""
        self._write(folder / _SETTLED)

    def plan(self, folder: Path) -> None:
        """Write down that this is to hold."""
        self._write(folder / _PLANNED)

    def _write(self, file: Path) -> None:
        new = file.with_name(f"{file.name}.new")
        with new.open("w", encoding="utf-8") as written:
            written.write(" ".join(self).strip())
            written.flush()
            os.fsync(written.fileno())
        _rename(new, file)


def let_the_plan_hold(folder: Path) -> None:
    """What is planned holds from now on, for everybody, in one step."""
    _rename(folder / _PLANNED, folder / _SETTLED)


def new_store(folder: Path) -> str:
    """A name that no store here has, nor ever had: whoever removes one of that name may still be at it."""
    last = max(settled.number for settled in (Settled.read(folder), Settled.planned(folder)) if settled)
    return f"documents.{last + 1}.db"


def sweep(folder: Path) -> None:
    """Remove the stores that neither hold nor are planned, and that no process has open."""
    there = sorted(folder.glob("documents*.db"))  # first: what is planned later has no files yet
    planned, settled = Settled.planned(folder), Settled.read(folder)  # in this order: the one becomes the other
    for path in there:
        if settled and path.name not in (settled.store, planned.store if planned else ""):
            with suppress(StoreError, OSError):  # of one who may only read: another will
                _remove(path)


def _remove(store: Path) -> None:
    if lock := _use(store, shared=False):
        with lock:
            for file in store.parent.glob(f"{store.name}*"):
                shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)


class Pair(NamedTuple):
    """A store, and the embedder that its vectors are of."""

    store: StoreOfRecord
    embeddings: Embeddings | None


Opens = Callable[[Settled], Pair]


@dataclass(eq=False)
class _Generation:
    """A pair, open in this process. `made` None: the first one here, of which every vector is taken to be."""

    stamp: object
    pair: Pair
    use: IO[bytes]
    made: OrderedDict[bytes, None] | None
    users: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def embedded(self, texts: list[str]) -> list[list[float]]:
        return self._noted(self._embeddings.embed_documents(texts))

    def embedded_query(self, text: str) -> list[float]:
        return self._noted([self._embeddings.embed_query(text)])[0]

    async def own_query(self, query: Query) -> Query:
        """The query with a vector of this embedder."""
        if query.vector is None or self._is_own(query.vector):
            return query
        if not query.text:
            raise InvalidInput(
                "a vector without a text, while the library's embedder was changed",
                hint="embed it again with the library's `embeddings`",
            )
        return replace(query, vector=tuple(await asyncio.to_thread(self.embedded_query, query.text)))

    async def own_chunks(self, chunks: Sequence[Chunk]) -> Sequence[Chunk]:
        """The chunks with vectors of this embedder."""
        strange = {chunk.text for chunk in chunks if not self._is_own(chunk.vector)}
        if not strange:
            return chunks
        texts = list(strange)
        vectors = dict(zip(texts, map(tuple, await asyncio.to_thread(self.embedded, texts)), strict=True))
        return [replace(c, vector=vectors[c.text]) if c.text in strange else c for c in chunks]

    @property
    def _embeddings(self) -> Embeddings:
        if self.pair.embeddings is None:
            raise ConfigurationError("this library has no embedder", hint="give it one with `ringwall data reembed`")
        return self.pair.embeddings

    def _noted(self, vectors: list[list[float]]) -> list[list[float]]:
        if self.made is not None:
            with self._lock:
                self.made.update((_key(vector), None) for vector in vectors)
                while len(self.made) > _REMEMBERED:
                    self.made.popitem(last=False)
        return vectors

    def _is_own(self, vector: Iterable[float] | None) -> bool:
        return self.made is None or (vector is not None and _key(vector) in self.made)


class Generations:
    """The pair that holds in `folder`, now and whenever it is asked again; `opens` opens one.

    A question is embedded before it is searched for, and the embedder may be changed between the two. So once it
    has been changed in the life of this process, only vectors that the present one is known to have made are used
    as they are: others are made anew from their text. Raises `ConfigurationError` where there is no library, and
    when texts would go to somebody else than to whom they went when it was opened: nobody was asked about that.
    """

    def __init__(self, folder: Path, opens: Opens) -> None:
        self._folder, self._opens = folder, opens
        self._switching, self._counting = threading.Lock(), threading.Lock()
        self._retired: list[_Generation] = []
        self._generation = self._open(None)
        self._receiver = _receiver(self._generation.pair)

    def now(self) -> _Generation:
        """The generation that holds. May take as long as loading an embedder takes."""
        if self._is_stale():
            self._switch()
        return self._generation

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[_Generation]:
        """The generation that holds; it stays open until it is left."""
        if self._is_stale():
            try:
                await asyncio.to_thread(self._switch)
            finally:
                await self._clear_away()
        with self._counting:
            generation = self._generation
            generation.users += 1
        try:
            yield generation
        finally:
            with self._counting:
                generation.users -= 1
            await self._clear_away()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[_Generation]:
        """The same, for a change: it goes where all will look for it."""
        async with self._lock(shared=True), self.reading() as generation:
            yield generation

    @asynccontextmanager
    async def nobody_writing(self) -> AsyncIterator[None]:
        """While no process writes through a library in this folder."""
        async with self._lock(shared=False):
            yield

    async def close(self) -> None:
        """Close what is open."""
        self._retired.append(self._generation)
        await self._clear_away()

    def _lock(self, *, shared: bool) -> AbstractAsyncContextManager[None]:
        return waited_for(self._folder / _WRITING, what="the library", shared=shared)

    def _is_stale(self) -> bool:
        return _stamp(self._folder) != self._generation.stamp

    def _switch(self) -> None:
        with self._switching:
            if not self._is_stale():
                return
            new = self._open(OrderedDict())
            if _receiver(new.pair) != self._receiver:
                self._retired.append(new)
                raise ConfigurationError(
                    "the library has got an embedder that sends texts to somebody else than the one before",
                    hint="open the library anew, so that it is asked who may receive them",
                )
            with self._counting:
                self._retired.append(self._generation)
                self._generation = new

    def _open(self, made: OrderedDict[bytes, None] | None) -> _Generation:
        while True:
            stamp, settled = _stamp(self._folder), Settled.read(self._folder)
            if settled is None:
                raise ConfigurationError(f"no library in {str(self._folder)!r}", hint="make one with `ringwall ingest`")
            use = _use(self._folder / settled.store, shared=True)
            if use is not None and _stamp(self._folder) == stamp:
                break  # and from now on nobody removes it
            if use is not None:
                use.close()
        try:
            return _Generation(stamp, self._opens(settled), use, made)
        except BaseException:
            use.close()
            raise

    async def _clear_away(self) -> None:
        """Close what nobody uses any more, and remove what no process does."""
        with self._counting:
            over = [generation for generation in self._retired if not generation.users]
            self._retired = [generation for generation in self._retired if generation.users]
        for generation in over:
            await generation.pair.store.close()
            generation.use.close()
            await asyncio.to_thread(sweep, self._folder)


class LatestStore(StoreOfRecord):
    """The store that holds, whichever that is."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        async with self._generations.writing() as now:
            await now.pair.store.upsert(await now.own_chunks(chunks))

    async def replace(self, documents: Sequence[str], chunks: Sequence[Chunk]) -> None:
        async with self._generations.writing() as now:
            await now.pair.store.replace(documents, await now.own_chunks(chunks))

    async def delete(self, documents: Sequence[str]) -> None:
        async with self._generations.writing() as now:
            await now.pair.store.delete(documents)

    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        async with self._generations.writing() as now:
            await now.pair.store.set_readers(documents, readers)

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        async with self._generations.reading() as now:
            return await now.pair.store.search(await now.own_query(query), readable, k)

    async def get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        async with self._generations.reading() as now:
            return await now.pair.store.get(ids, readable)

    async def scan(self) -> AsyncIterator[Sequence[Chunk]]:
        async with self._generations.reading() as now:
            async for batch in now.pair.store.scan():
                yield batch

    async def revision(self) -> str:
        async with self._generations.reading() as now:
            return await now.pair.store.revision()

    async def verify(self) -> list[str]:
        async with self._generations.reading() as now:
            return await now.pair.store.verify()

    async def compact(self) -> None:
        async with self._generations.writing() as now:
            await now.pair.store.compact()

    async def close(self) -> None:
        await self._generations.close()


class LatestEmbeddings:
    """The embedder that holds, whichever that is. Who receives texts, and how many tokens they are, it says itself."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations

    @property
    def principal(self) -> Principal | None:
        """Who receives the texts."""
        return _receiver(self._generations.now().pair)

    def __getattr__(self, name: str) -> Any:
        if name == "tokens":
            return getattr(self._generations.now().pair.embeddings, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Embeddings | None]]:
        """In another process it is the embedder that holds now; once another does, what that made is made anew."""
        return _as_it_is, (self._generations.now().pair.embeddings,)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vector of each text, in order."""
        return self._generations.now().embedded(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return self._generations.now().embedded_query(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """The same, as LangChain's vector stores ask for it."""
        return await asyncio.to_thread(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """The same, as LangChain's vector stores ask for it."""
        return await asyncio.to_thread(self.embed_query, text)


def _as_it_is(embeddings: Any) -> Any:
    return embeddings


def _stamp(folder: Path) -> object:
    """Another one whenever the small file was replaced."""
    try:
        state = (folder / _SETTLED).stat()
    except FileNotFoundError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size


def _use(store: Path, *, shared: bool) -> IO[bytes] | None:
    """The lock of a store: who has it open shares it, and who removes it has it alone."""
    return try_take(store.with_name(f"{store.name}.use"), what=f"the library's {store.name!r}", shared=shared)


def _rename(file: Path, to: Path) -> None:
    """Replace a file in one step, and for good."""
    file.replace(to)
    folder = os.open(to.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _receiver(pair: Pair) -> Principal | None:
    return None if pair.embeddings is None else receiver_of(pair.embeddings)


def _key(vector: Iterable[float]) -> bytes:
    """Sixteen bytes for a vector, in the 32 bits that every store keeps."""
    return blake2b(array("f", vector).tobytes(), digest_size=16).digest()
