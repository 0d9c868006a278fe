"""The store: two collections, one of chunks and one of the ACLs they carry."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, TypeVar, cast
from urllib.parse import urlsplit

import chromadb
import numpy as np
import numpy.typing as npt
from chromadb.api import ClientAPI
from chromadb.api.client import Client
from chromadb.config import Settings
from chromadb.errors import ChromaError

from ringwall.data.base import Chunk, Match, Query, Scalar, StoreOfRecord, Vector
from ringwall.data.lock import take
from ringwall.data.vectors import check_vector, check_vectors
from ringwall.errors import ConfigurationError, InvalidInput, StoreError
from ringwall.principal import ACL, Grants
from ringwall.schema import canonical, digest

T = TypeVar("T")
FloatArray = npt.NDArray[np.floating[Any]]

_LOCK_FILE: Final = "ringwall.lock"
_MOST_IN_A_CLAUSE: Final = 30_000
"""Chroma refuses `$in` with more than 32,750 values."""

_COLUMNS: Final = ("ids", "documents", "metadatas", "distances", "embeddings")


class ChromaStore(StoreOfRecord):
    """Keeps chunks in the folder `path`, on a Chroma `server` ("http://host:port"), or in memory without either.

    Finds them by their vectors (cosine).

    Every chunk needs a vector, and so does every query. A search is approximate in what it finds first,
    never in what may be found; one with conditions on metadata looks at every chunk that its reader may read.
    Work runs in threads, off the event loop.

    Several processes may use one server. A folder belongs to one store at a time: two writers would silently lose
    vectors. Raises `StoreError` if the folder cannot be opened, another store has it open, or no server answers;
    `ConfigurationError` for a folder and a server, or a server that is no URL.
    """

    def __init__(
        self, path: str | Path | None = None, *, server: str | None = None, collection: str = "ringwall"
    ) -> None:
        if path is not None and server is not None:
            raise ConfigurationError("a Chroma store in a folder and on a server", expected="one of the two")
        self._writing = threading.Lock()
        self._folder_lock = None if path is None else _taken(Path(path))
        # Chroma shares one memory among all clients of a process: in memory the name must be our own.
        self._in_memory = path is None and server is None
        self._shared = server is not None
        self._name = f"{collection}-{uuid.uuid4().hex}" if self._in_memory else collection
        with contextlib.ExitStack() as undo, _chroma_errors("open the database"):
            if self._folder_lock is not None:
                undo.callback(self._folder_lock.close)
            settings = Settings(anonymized_telemetry=False)
            self._client = cast(Client, _client(path, server, settings))
            self._closed = False
            undo.callback(self._client.close)
            self._chunks = self._collection(self._name)
            self._classes = _AclClasses(self._collection(f"{self._name}-readers"))
            self._revisions = self._collection(f"{self._name}-revision")
            self._batch = self._client.get_max_batch_size()
            self._dimension = self._stored_dimension()
            undo.pop_all()

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        """As in `DocumentStore`; the last of several chunks with one id counts.

        Raises `InvalidInput`, and stores nothing, for a vector that is missing, not finite or of another
        dimension, an empty id, or text that UTF-8 cannot hold.
        """
        await self._run("store chunks", lambda: self._upsert(list({c.id: c for c in chunks}.values())))

    async def search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        """As in `DocumentStore`. Raises `InvalidInput` for a vector missing or of another dimension."""
        return await self._run("search", lambda: self._search(query, readable, k))

    async def get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        return await self._run("read chunks", lambda: self._get(ids, readable))

    async def scan(self) -> AsyncIterator[Sequence[Chunk]]:
        """As in `StoreOfRecord`; rows that something else put into the collection are left out."""
        offset = 0
        while batch := await self._run("read chunks", lambda: self._page(offset)):  # noqa: B023 (run at once)
            yield [row.chunk(acl) for row in batch if (acl := self._classes.readers(row.acl)) is not None]
            offset += len(batch)

    async def revision(self) -> str:
        return await self._run("read its revision", self._revision)

    async def delete(self, documents: Sequence[str]) -> None:
        await self._run("delete documents", lambda: self._delete(documents))

    async def set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        """As in `DocumentStore`. Raises `InvalidInput` for a grant that UTF-8 cannot hold."""
        await self._run("change readers", lambda: self._set_readers(documents, readers))

    async def close(self) -> None:
        """Close the database and let other processes have the folder."""
        await asyncio.to_thread(self._close)

    async def _run(self, what: str, work: Callable[[], T]) -> T:
        def guarded() -> T:
            if self._closed:
                raise StoreError(f"Chroma could not {what}: the store is closed")
            with _chroma_errors(what):
                return work()

        return await asyncio.to_thread(guarded)

    def _upsert(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            _check(chunk)
        with self._changing():
            dimension = check_vectors(chunks, self._dimension)
            classes = self._classes.of(chunk.readers for chunk in chunks)
            for batch in _batches(chunks, self._batch):
                self._chunks.upsert(
                    ids=[chunk.id for chunk in batch],
                    embeddings=np.array([chunk.vector for chunk in batch], dtype=np.float32),
                    documents=[chunk.text for chunk in batch],
                    metadatas=[_row(chunk, classes[chunk.readers]) for chunk in batch],
                )
            self._dimension = dimension

    def _search(self, query: Query, readable: Grants, k: int) -> list[Match]:
        permitted = self._readable(readable)
        if not permitted or k < 1:
            return []
        if query.vector is None:
            raise InvalidInput(
                "a query without a vector", hint="give the retriever the embeddings the store was filled with"
            )
        check_vector(query.vector, self._dimension, of="the query")
        rows = self._filtered(query, permitted) if query.where else self._found(query.vector, permitted, k)
        found = sorted(rows, key=lambda row: (row.distance, row.id))
        # A row whose readers were changed while Chroma was searching comes with its new class: leave it out.
        return [row.match(permitted[row.acl]) for row in found[:k] if row.acl in permitted]

    def _readable(self, readable: Grants) -> dict[str, ACL]:
        if self._shared:
            self._classes.refresh()
        return self._classes.readable(readable)

    def _filtered(self, query: Query, permitted: dict[str, ACL]) -> list[_Row]:
        """All that meets the query's conditions. Chroma keeps metadata here as one text, which it cannot compare."""
        assert query.vector is not None
        return [
            row
            for classes in _batches(list(permitted), _MOST_IN_A_CLAUSE)
            for row in self._all(query.vector, _among("acl", classes))
            if query.admits(row.kept)
        ]

    def _found(self, vector: Vector, permitted: dict[str, ACL], k: int) -> list[_Row]:
        """The nearest `k` of each clause that the permitted classes need: among them the nearest `k` of all."""
        if len(permitted) == len(self._classes):
            # All that is known may be read, and without a clause Chroma is many times faster. Should a row of
            # an unknown class turn up, the answer is thrown away and the clause does its work.
            rows = self._nearest(vector, k, None)
            if all(row.acl in permitted for row in rows):
                return rows
        return [
            row
            for classes in _batches(list(permitted), _MOST_IN_A_CLAUSE)
            for row in self._nearest(vector, k, _among("acl", classes))
        ]

    def _nearest(self, vector: Vector, k: int, where: chromadb.Where | None) -> list[_Row]:
        """The nearest `k`: Chroma's, or counted out where its index does not reach as many as there are.

        That happens among many equal vectors, whose links lead nowhere else.
        """
        rows = self._query(vector, k, where)
        if len(rows) < k and len(self._chunks.get(where=where, include=[], limit=len(rows) + 1)["ids"]) > len(rows):
            return self._all(vector, where)
        return rows

    def _query(self, vector: Vector, k: int, where: chromadb.Where | None) -> list[_Row]:
        found: Mapping[str, Any] = self._chunks.query(
            query_embeddings=np.array([vector], dtype=np.float32),
            n_results=k,
            where=where,
            include=["documents", "metadatas", "distances", "embeddings"],
        )
        return _rows({name: found[name][0] for name in _COLUMNS})

    def _all(self, vector: Vector, where: chromadb.Where | None) -> list[_Row]:
        found = self._chunks.get(where=where, include=["documents", "metadatas", "embeddings"])
        if not found["ids"]:
            return []
        return _rows({**found, "distances": _distances(np.asarray(found["embeddings"]), np.asarray(vector))})

    def _get(self, ids: Sequence[str], readable: Grants) -> list[Chunk]:
        permitted = self._readable(readable)
        wanted = [id for id in dict.fromkeys(ids) if id and _is_storable(id)]
        found: dict[str, _Row] = {}
        for batch in _batches(wanted, self._batch):
            rows = self._chunks.get(ids=batch, include=["documents", "metadatas", "embeddings"])
            found |= {row.id: row for row in _stored(rows)}
        rows_in_order = [found[id] for id in wanted if id in found]
        return [row.chunk(permitted[row.acl]) for row in rows_in_order if row.acl in permitted]

    def _page(self, offset: int) -> list[_Row]:
        fields: chromadb.Include = ["documents", "metadatas", "embeddings"]
        return _stored(self._chunks.get(limit=1000, offset=offset, include=fields))

    def _revision(self) -> str:
        with self._writing:  # never in the middle of a change, which is announced first
            found = self._revisions.get(include=["documents"])
        return (found["documents"] or [""])[0]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time, announced before; where others look on meanwhile, once more when it is done."""
        with self._writing:
            self._touch()
            yield
            if self._shared:
                self._touch()

    def _touch(self) -> None:
        self._revisions.upsert(ids=["now"], documents=[uuid.uuid4().hex], embeddings=np.zeros((1, 1), np.float32))

    def _delete(self, documents: Sequence[str]) -> None:
        with self._changing():
            for batch in _batches(_storable(documents), _MOST_IN_A_CLAUSE):
                self._chunks.delete(where=_among("document", batch))

    def _set_readers(self, documents: Sequence[str], readers: ACL) -> None:
        if not _is_storable(*readers):
            raise InvalidInput(f"the readers {readers!r}", expected="grants that UTF-8 can hold")
        with self._changing():
            acl = self._classes.of([readers])[readers]
            for names in _batches(_storable(documents), _MOST_IN_A_CLAUSE):
                ids = self._chunks.get(where=_among("document", names), include=[])["ids"]
                for batch in _batches(ids, self._batch):
                    self._chunks.update(ids=batch, metadatas=[{"acl": acl}] * len(batch))

    def _close(self) -> None:
        with self._writing, _chroma_errors("close the database"):
            if self._closed:
                return
            self._closed = True
            if self._in_memory:
                self._client.delete_collection(self._name)
                self._client.delete_collection(f"{self._name}-readers")
                self._client.delete_collection(f"{self._name}-revision")
            self._client.close()
            if self._folder_lock is not None:
                self._folder_lock.close()

    def _collection(self, name: str) -> chromadb.Collection:
        # No embedding function: Chroma's own would download a model.
        return self._client.get_or_create_collection(
            name, embedding_function=None, configuration={"hnsw": {"space": "cosine"}}
        )

    def _stored_dimension(self) -> int | None:
        vectors = self._chunks.get(limit=1, include=["embeddings"])["embeddings"]
        return len(vectors[0]) if vectors is not None and len(vectors) else None


class _AclClasses:
    """The ACLs in use. A chunk's row names its ACL by class, one scalar, so that a query can say `$in`.

    A class is the digest of its grants, so it always means the same readers, in whatever order things are
    written and whenever the process dies. A class is stored before the first row that names it.
    """

    def __init__(self, collection: chromadb.Collection) -> None:
        self._collection = collection
        self._acls: dict[str, ACL] = {}
        self._opened_by: dict[str, list[str]] = {}
        self.refresh()

    def __len__(self) -> int:
        return len(self._acls)

    def refresh(self) -> None:
        """Learn the classes that others have stored; none is ever taken away."""
        if self._collection.count() == len(self._acls):
            return
        for text in self._collection.get(include=["documents"])["documents"] or ():
            self._know(ACL(json.loads(text)))

    def of(self, acls: Iterable[ACL]) -> dict[ACL, str]:
        """The class of each ACL; new ones are stored first."""
        classes = {acl: _class(acl) for acl in acls}
        new = {name: acl for acl, name in classes.items() if name not in self._acls}
        for batch in _batches(list(new), 1000):
            texts = [canonical(sorted(new[name])) for name in batch]
            self._collection.upsert(ids=batch, documents=texts, embeddings=np.zeros((len(batch), 1), np.float32))
        for acl in new.values():
            self._know(acl)
        return classes

    def readable(self, grants: Grants) -> dict[str, ACL]:
        """The classes that somebody who holds `grants` may read."""
        return {name: self._acls[name] for grant in grants for name in self._opened_by.get(grant, ())}

    def readers(self, name: str) -> ACL | None:
        """The ACL of a class; None for one that was never stored."""
        return self._acls.get(name)

    def _know(self, acl: ACL) -> None:
        name = _class(acl)
        if name in self._acls:
            return
        self._acls[name] = acl
        for grant in acl:
            # A list may grow while a search in another thread walks through it; a set may not.
            self._opened_by.setdefault(grant, []).append(name)


@dataclass(frozen=True, slots=True)
class _Row:
    """One result as Chroma returns it."""

    id: str
    text: str
    metadata: Mapping[str, Any] | None
    distance: float
    vector: Sequence[float]

    @property
    def acl(self) -> str:
        """The class of its readers; nobody's for a row that something else put there."""
        return str((self.metadata or {}).get("acl", ""))

    @property
    def kept(self) -> dict[str, Scalar]:
        """The metadata that came with the chunk."""
        metadata: dict[str, Scalar] = json.loads((self.metadata or {}).get("metadata", "{}"))
        return metadata

    def chunk(self, readers: ACL) -> Chunk:
        row = self.metadata or {}
        return Chunk(
            self.id,
            row["document"],
            self.text,
            readers,
            start=row["start"],
            end=row["end"],
            vector=tuple(map(float, self.vector)),
            metadata=self.kept,
        )

    def match(self, readers: ACL) -> Match:
        return Match(self.chunk(readers), 1.0 - self.distance)


def _among(key: str, values: Iterable[str]) -> chromadb.Where:
    return cast(chromadb.Where, {key: {"$in": list(values)}})


def _rows(found: Mapping[str, Any]) -> list[_Row]:
    return [_Row(*row) for row in zip(*(found[name] for name in _COLUMNS), strict=True)]


def _stored(found: Mapping[str, Any]) -> list[_Row]:
    """Rows that were read, not searched for: their distance is 0."""
    return _rows({**found, "distances": [0.0] * len(found["ids"])})


def _distances(vectors: FloatArray, vector: FloatArray) -> list[float]:
    """Cosine distances as Chroma gives them: 1 from a vector of zeros."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(vector)
    distances: list[float] = (1.0 - vectors @ vector / np.where(lengths > 0, lengths, 1.0)).tolist()
    return distances


def _client(path: str | Path | None, server: str | None, settings: Settings) -> ClientAPI:
    if path is not None:
        return chromadb.PersistentClient(path, settings)
    if server is None:
        return chromadb.EphemeralClient(settings)
    url = urlsplit(server)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigurationError(f"the Chroma server {server!r}", expected="a URL such as http://localhost:8000")
    ssl = url.scheme == "https"
    return chromadb.HttpClient(url.hostname, url.port or (443 if ssl else 8000), ssl=ssl, settings=settings)


def _row(chunk: Chunk, acl: str) -> dict[str, str | int]:
    # Always the same keys: Chroma's upsert merges metadata, so the caller's keys would never go away.
    return {
        "acl": acl,
        "document": chunk.document,
        "start": chunk.start,
        "end": chunk.end,
        "metadata": json.dumps(dict(chunk.metadata)),
    }


def _class(acl: ACL) -> str:
    return digest(canonical(sorted(acl)))[:32]


def _check(chunk: Chunk) -> None:
    if chunk.vector is None:
        raise InvalidInput(
            f"chunk {chunk.id!r} has no vector",
            hint="give the ingestor embeddings: this store finds by vector",
        )
    if not chunk.id or not _is_storable(chunk.id, chunk.document, chunk.text, *chunk.readers):
        raise InvalidInput(f"chunk {chunk.id!r}", expected="an id that is not empty, and text that UTF-8 can hold")


def _is_storable(*texts: str) -> bool:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return False
    return True


def _storable(documents: Iterable[str]) -> list[str]:
    """The ids among these that can be in the store at all; unknown ones are fine, so the rest is left out."""
    return [document for document in set(documents) if _is_storable(document)]


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while batch := list(islice(rest, size)):
        yield batch


def _taken(folder: Path) -> IO[bytes]:
    hint = "close the other store first: two writers would lose vectors"
    return take(folder / _LOCK_FILE, what=f"the folder {str(folder)!r}", hint=hint)


@contextlib.contextmanager
def _chroma_errors(what: str) -> Iterator[None]:
    """Let Chroma's errors out as `StoreError`."""
    try:
        yield
    except (ChromaError, ValueError, OSError) as error:
        raise StoreError(f"Chroma could not {what}: {error}") from error
