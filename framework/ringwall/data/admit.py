"""The door of ingestion: a document comes in with its readers, under its tenant, or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from ringwall.data.base import Scalar
from ringwall.data.frontmatter import front_matter_readers, mentions_readers
from ringwall.data.outcome import Refused
from ringwall.errors import DocumentWithoutReaders, InvalidInput
from ringwall.principal import ACL, PUBLIC, TENANT_MARK
from ringwall.schema import JSON, canonical, digest

if TYPE_CHECKING:
    from langchain_core.documents import Document

Readers = ACL | Callable[["Document"], ACL | None] | None
"""Who may read: the same for all documents, or what a function says of each. None: nobody said; refused."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A document that is read only if it is new or changed.

    `content` identifies what `read` would read it from: the digest of a file, the version of a page. Equal
    `content` means equal text. `read` raises `InvalidInput` for what cannot be read.
    """

    document: str
    content: str
    read: Callable[[], Document]


@dataclass(frozen=True, slots=True)
class Admitted:
    """A document that may be stored: its id and readers with their tenant."""

    name: str
    text: str
    readers: ACL
    metadata: Mapping[str, Scalar]


def name_of(document: Document | tuple[str, str] | Pending | Refused) -> str:
    """The id that a document came with: LangChain's without one is called by its `source`."""
    if isinstance(document, Refused | Pending):
        return document.document
    if isinstance(document, tuple):
        return str(document[0])
    return str(document.id or document.metadata.get("source", ""))


def content_of(document: Document | tuple[str, str] | Pending) -> str:
    """What identifies the content of a document: equal for equal text and metadata."""
    if isinstance(document, Pending):
        return document.content
    text, metadata = (document[1], {}) if isinstance(document, tuple) else (document.page_content, _scalars(document))
    return digest(canonical([text, cast(JSON, metadata)]))


def loaded(document: Document | tuple[str, str] | Pending) -> Document:
    """The document itself, read if it was not yet. Raises `InvalidInput` if it cannot be read."""
    if isinstance(document, Pending):
        return document.read()
    if isinstance(document, tuple):
        from langchain_core.documents import Document as LangChainDocument

        return LangChainDocument(id=str(document[0]), page_content=document[1])
    return document


def tell_by_name(readers: Readers) -> bool:
    """Whether `readers` tells who reads a document without looking into it."""
    return not callable(readers) or getattr(readers, "by_name", False) is True


def stored_name(name: str, tenant: str) -> str:
    """The id under which a document is stored. Raises `InvalidInput` for an id that cannot be one."""
    _check_text(name)
    if not name or TENANT_MARK in name:
        raise InvalidInput(f"the document id {name!r}", expected=f"an id, without {TENANT_MARK!r} in it")
    return in_tenant(name, tenant)


def in_tenant(name: str, tenant: str) -> str:
    """An id, or the beginning of one, as it is stored for a tenant."""
    return f"{tenant}{TENANT_MARK}{name}" if tenant else name


def readers_of(document: Document, name: str, readers: Readers, tenant: str) -> ACL:
    """Who may read `document`. Raises `InvalidInput` if nobody says so, or its own front matter disagrees."""
    if callable(readers):
        readers = readers(document)
    elif mentions_readers(document.page_content) and front_matter_readers(document) != readers:
        raise InvalidInput(
            f"document {name!r} names other readers than it is given",
            hint="pass `readers=front_matter_readers`, or take them out of the document",
        )
    if not readers:
        raise DocumentWithoutReaders(name)
    return _within(readers, name, tenant)


def admit(document: Document, name: str, readers: Readers, tenant: str) -> Admitted:
    """Return the document as it is to be stored; raise `InvalidInput` if it must not be."""
    _check_text(document.page_content)
    acl = readers_of(document, name, readers, tenant)
    return Admitted(stored_name(name, tenant), document.page_content, acl, _scalars(document))


def _scalars(document: Document) -> dict[str, Scalar]:
    return {key: value for key, value in document.metadata.items() if isinstance(value, Scalar)}


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"a lone surrogate at position {error.start}", expected="an id and a text that UTF-8 can hold"
        ) from error


def _within(readers: ACL, name: str, tenant: str) -> ACL:
    """The readers as grants of `tenant`; raise for those of another tenant."""
    scoped_readers = ACL.of(*readers, tenant=tenant)
    foreign = [g for g in scoped_readers if g != PUBLIC and not g.startswith(f"{tenant}{TENANT_MARK}")]
    if tenant and foreign:
        raise InvalidInput(f"document {name!r} of {tenant!r} names readers of another tenant")
    return scoped_readers
