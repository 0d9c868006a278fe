"""Gives a document, or a reason, for each file in some folders."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, Self, TypeVar

from ringwall.data import Pending, Refused, Scalar
from ringwall.errors import InvalidInput
from ringwall_files.formats import named
from ringwall_files.opening import opened
from ringwall_files.parsed import Parsed
from ringwall_files.parser import Parser
from ringwall_files.walking import Found, Walk

if TYPE_CHECKING:
    from langchain_core.documents import Document

T = TypeVar("T")
Paths = str | Path | Iterable[str | Path]

_PARSED_AS: Final = 1
"""Goes up when a file gives another text than it did: all files are then read again."""


class Files(Iterator[T], Generic[T]):
    """What `read_files` or `find_files` gives, as it is asked for.

    `skipped` counts the files of other formats so far.
    """

    def __init__(self, walk: Walk, items: Generator[T]) -> None:
        self._walk, self._items = walk, items

    @property
    def skipped(self) -> int:
        return self._walk.skipped

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        """Stop before the end, and end the processes of a parser that nobody gave."""
        self._items.close()


def read_files(paths: Paths, *, parser: Parser | None = None) -> Files[Document | Refused]:
    """Read files, and those in folders and the folders in them, in the order of their names.

    One document each. Its id and `source` are the path below the folder, with `/`, or a file's own name; bytes
    that are not UTF-8 are written as `\\xe9`. `title` is there if the file has one, `hidden` is True if some of
    its text is not seen by somebody who looks at it, and `pages` lists, in JSON, at which character each page
    begins: ingested passages have the number of their `page` instead.

    A file that cannot be read comes as `Refused`, and so does a link that leads out of the folder. No link below
    the folder is followed: what else it leads to is read where it is, so that its place says who may read it.
    Files of other formats are skipped, and counted in `skipped`.
    `parser` None: one with the usual limits, closed at the end.
    """
    walk = Walk()
    return Files(walk, _read_all(_found(walk, paths), parser or Parser(), own=parser is None))


def find_files(paths: Paths, *, within: str = "", parser: Parser | None = None) -> Files[Pending | Refused]:
    """Find the same files as `read_files`, each to be read only if an ingestion does not know it as it is.

    A file's content is known by the SHA-256 of its bytes. Ids begin with `within`. `parser` None: one with as many
    processes as there are processors, closed when nothing that was found is held any more.
    """
    walk = Walk()
    reads = partial(_pending, within=within, parser=parser or Parser(processes=os.cpu_count() or 1))
    return Files(walk, (reads(item) for item in _found(walk, paths)))


def _found(walk: Walk, paths: Paths) -> Iterator[Found | Refused]:
    for path in [paths] if isinstance(paths, str | Path) else paths:
        yield from walk.below(path)


def _read_all(found: Iterable[Found | Refused], parser: Parser, *, own: bool) -> Generator[Document | Refused]:
    read = partial(_read_or_refuse, parser=parser)
    try:
        yield from map(read, found) if parser.processes == 1 else _ahead(read, found, parser.processes)
    finally:
        if own:
            parser.close()


def _ahead(read: Callable[[Found | Refused], T], found: Iterable[Found | Refused], processes: int) -> Iterator[T]:
    """Keep every process busy, and the order as it is."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(processes) as pool:
        try:
            for item in found:
                waiting.append(pool.submit(read, item))
                if len(waiting) > 2 * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read_or_refuse(item: Found | Refused, *, parser: Parser) -> Document | Refused:
    if isinstance(item, Refused):
        return item
    try:
        return _document(item.name, item.path, parser)
    except InvalidInput as error:
        return Refused(item.name, error)


def _pending(item: Found | Refused, *, within: str, parser: Parser) -> Pending | Refused:
    if isinstance(item, Refused):
        return Refused(within + item.document, item.error)
    name = within + item.name
    try:
        with named(item.path.name), opened(item.path, parser.limits.size) as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    except InvalidInput as error:
        return Refused(name, error)
    return Pending(
        name, f"{content} {item.path.suffix.lower()} {_PARSED_AS}", partial(_document, name, item.path, parser)
    )


def _document(name: str, path: Path, parser: Parser) -> Document:
    from langchain_core.documents import Document

    parsed = parser.parse(path)
    return Document(id=name, page_content=parsed.text, metadata=_metadata(name, parsed))


def _metadata(name: str, parsed: Parsed) -> dict[str, Scalar]:
    metadata: dict[str, Scalar] = {"source": name}
    if parsed.title:
        metadata["title"] = parsed.title
    if parsed.pages:
        metadata["pages"] = json.dumps(parsed.pages)
    if parsed.hidden:
        metadata["hidden"] = True
    return metadata
