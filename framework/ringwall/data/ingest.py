"""From documents to chunks in a store: each with its readers, or refused with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ringwall.data.base import Chunk, DocumentStore, Embeddings, Scalar
from ringwall.data.frontmatter import body_start, front_matter_readers, mentions_readers
from ringwall.data.splitting import Splitter, TextSplitter, as_splitter, split
from ringwall.data.vectors import check_vectors
from ringwall.errors import DocumentWithoutReaders, InvalidInput, RingwallError
from ringwall.principal import ACL, PUBLIC, TENANT_MARK, scoped

if TYPE_CHECKING:
    from langchain_core.documents import Document

Readers = ACL | Callable[["Document"], ACL | None] | None
"""Who may read: the same for all documents, or what a function says of each. None: nobody said; refused."""

_SUFFIXES: Final = frozenset((".txt", ".md"))
_BATCH: Final = 256
"""Passages embedded at a time."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """A document that is in the store now; `passages` is 0 for one without words, which nobody can find."""

    document: str
    passages: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that was not stored, and why."""

    document: str
    error: RingwallError


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of each document, in the order they came."""

    ingested: tuple[Ingested, ...] = ()
    refused: tuple[Refused, ...] = ()

    @property
    def empty(self) -> tuple[str, ...]:
        """The documents that were accepted and gave no passage."""
        return tuple(done.document for done in self.ingested if not done.passages)

    @property
    def passages(self) -> int:
        return sum(done.passages for done in self.ingested)


class Ingestor:
    """Splits, embeds and stores documents, each with its readers.

    `embeddings` None: passages can be found by their words only. `splitter` is a callable, or LangChain's.
    """

    def __init__(
        self,
        store: DocumentStore,
        embeddings: Embeddings | None = None,
        splitter: Splitter | TextSplitter = split,
    ) -> None:
        self._store, self._embeddings, self._split = store, embeddings, as_splitter(splitter)

    async def ingest(
        self, documents: Iterable[Document | tuple[str, str] | Refused], readers: Readers, *, tenant: str = ""
    ) -> IngestReport:
        """Store documents, each replacing the one of the same id; report what became of each.

        A document is LangChain's, or an id and a text, or what `read_folder` could not read. LangChain's
        without an id is called by its `source`. One that cannot be taken is refused, and the rest goes on:
        no readers (`DocumentWithoutReaders`), front matter that names other readers than an ACL given here,
        the id of one before it, text or id that UTF-8 cannot hold. An earlier version of a refused document
        stays as it was, unless it was the store that refused the new vectors.

        With a `tenant`, readers are that tenant's, and so are documents: `menu.md` is stored as
        `acme::menu.md`, so that two tenants never replace each other's.
        Raises `StoreError` when the store fails; what came before is stored.
        """
        ingested: list[Ingested] = []
        refused: list[Refused] = []
        seen: set[str] = set()
        for document in documents:
            name = _name(document)
            try:
                admitted = _admit(document, name, readers, tenant)
                if admitted.name in seen:
                    raise InvalidInput(f"a second document {name!r}", expected="one document for each id")
                seen.add(admitted.name)
                ingested.append(await self._store_one(admitted))
            except InvalidInput as error:
                refused.append(Refused(name, error))
        return IngestReport(tuple(ingested), tuple(refused))

    async def _store_one(self, document: _Admitted) -> Ingested:
        # Replacing is deleting first: the passages of a longer, older version must not outlive it.
        chunks = await asyncio.to_thread(self._chunks, document)
        await self._store.delete([document.name])
        if chunks:
            await self._store.upsert(chunks)
        return Ingested(document.name, len(chunks))

    def _chunks(self, document: _Admitted) -> list[Chunk]:
        body = body_start(document.text)
        passages = self._split(document.text[body:])
        chunks = [
            Chunk(
                f"{document.name}#{number}",
                document.name,
                passage.text,
                document.readers,
                start=passage.start + body,
                end=passage.end + body,
                metadata=document.metadata,
            )
            for number, passage in enumerate(passages)
        ]
        return chunks if self._embeddings is None else self._embedded(chunks, self._embeddings)

    def _embedded(self, chunks: list[Chunk], embeddings: Embeddings) -> list[Chunk]:
        embedded: list[Chunk] = []
        for first in range(0, len(chunks), _BATCH):
            batch = chunks[first : first + _BATCH]
            vectors = embeddings.embed_documents([chunk.text for chunk in batch])
            embedded += [replace(c, vector=tuple(v)) for c, v in zip(batch, vectors, strict=True)]
        check_vectors(embedded, None)
        return embedded


def read_folder(folder: str | Path) -> Iterator[Document | Refused]:
    """Read every `.txt` and `.md` file below `folder`, in the order of their names: UTF-8, one document each.

    A document's id is its path below the folder, with `/`. A file that is not UTF-8, cannot be read, or is a
    link that leads out of the folder, comes as `Refused`. Raises `InvalidInput` if there is no such folder.
    """
    from langchain_core.documents import Document

    root = Path(folder).resolve()
    if not root.is_dir():
        raise InvalidInput(f"no folder {str(folder)!r}", expected="a folder of .txt and .md files")
    for path in sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES and not path.is_dir()):
        name = path.relative_to(root).as_posix()
        try:
            yield Document(id=name, page_content=_text(path, root), metadata={"source": name})
        except InvalidInput as error:
            yield Refused(name, error)


def _text(path: Path, root: Path) -> str:
    if not path.resolve().is_relative_to(root):
        raise InvalidInput(f"{path.name!r} is a link that leads out of the folder")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"{path.name!r} is not UTF-8: byte {error.object[error.start]:#04x} at position {error.start}",
            expected="text in UTF-8",
            hint="convert it, for instance with `iconv -f latin1 -t utf-8`",
        ) from error
    except OSError as error:
        raise InvalidInput(f"{path.name!r} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class _Admitted:
    """A document that may be stored: its id and readers with their tenant."""

    name: str
    text: str
    readers: ACL
    metadata: Mapping[str, Scalar]


def _name(document: Document | tuple[str, str] | Refused) -> str:
    match document:
        case Refused():
            return document.document
        case (str(name), _):
            return name
    return str(document.id or document.metadata.get("source", ""))


def _admit(document: Document | tuple[str, str] | Refused, name: str, readers: Readers, tenant: str) -> _Admitted:
    """Return the document as it is to be stored; raise `InvalidInput` if it must not be."""
    if isinstance(document, Refused):
        raise document.error
    if isinstance(document, tuple):
        from langchain_core.documents import Document as LangChainDocument

        document = LangChainDocument(id=name, page_content=document[1])
    _check_text(name, document.page_content)
    if not name or (tenant and TENANT_MARK in name):
        raise InvalidInput(f"the document id {name!r}", expected=f"an id, without {TENANT_MARK!r} in a tenant's")
    acl = _readers(document, name, readers)
    metadata = {key: value for key, value in document.metadata.items() if isinstance(value, Scalar)}
    return _Admitted(scoped(name, tenant), document.page_content, _within(acl, name, tenant), metadata)


def _check_text(*texts: str) -> None:
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"a lone surrogate at position {error.start}", expected="an id and a text that UTF-8 can hold"
            ) from error


def _readers(document: Document, name: str, readers: Readers) -> ACL:
    """Who may read `document`; raise if nobody says so, or if its own front matter disagrees."""
    if callable(readers):
        readers = readers(document)
    elif mentions_readers(document.page_content) and front_matter_readers(document) != readers:
        raise InvalidInput(
            f"document {name!r} names other readers than it is given",
            hint="pass `readers=front_matter_readers`, or take them out of the document",
        )
    if not readers:
        raise DocumentWithoutReaders(name)
    return readers


def _within(readers: ACL, name: str, tenant: str) -> ACL:
    """The readers as grants of `tenant`; raise for those of another tenant."""
    scoped_readers = ACL.of(*readers, tenant=tenant)
    foreign = [g for g in scoped_readers if g != PUBLIC and not g.startswith(f"{tenant}{TENANT_MARK}")]
    if tenant and foreign:
        raise InvalidInput(f"document {name!r} of {tenant!r} names readers of another tenant")
    return scoped_readers
