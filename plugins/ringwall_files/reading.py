"""Goes through folders and gives a document, or a reason, for each file in them."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self, cast

from ringwall.data import Pending, Refused, Scalar
from ringwall.errors import InvalidInput
from ringwall_files.formats import named
from ringwall_files.opening import opened
from ringwall_files.parsed import Parsed
from ringwall_files.parser import Parser
from ringwall_files.walking import Found, Walk

if TYPE_CHECKING:
    from langchain_core.documents import Document

_PARSED_AS: Final = 1
"""Goes up when a file gives another text than it did: all files are then read again."""

_LONGEST_PAGES: Final = 4000
"""Characters of `pages` in the metadata, which a store keeps with every passage of the document."""


def read_files(paths: str | Path | Iterable[str | Path], *, parser: Parser | None = None) -> Files:
    """Read files, and those in folders and the folders in them, in the order of their names.

    One document each. Its id and `source` are the path below the folder, with `/`, or a file's own name; bytes
    that are not UTF-8 are written as `\\xe9`. `title` is there if the file has one, `hidden` is True if some of
    its text is not seen by somebody who looks at it, and `pages` lists, in JSON, at which character each page
    begins, unless that takes more than 4,000 characters.

    A file that cannot be read comes as `Refused`, and so does a link that leads out of the folder. No link below
    the folder is followed: what else it leads to is read where it is, so that its place says who may read it.
    Files of other formats are skipped, and counted in `skipped`.
    `parser` None: one with the usual limits, closed at the end.
    """
    return Files([paths] if isinstance(paths, str | Path) else paths, parser)


class Files(Iterator["Document | Refused"]):
    """What `read_files` reads, as it is asked for; `skipped` counts the files of other formats so far."""

    def __init__(self, paths: Iterable[str | Path], parser: Parser | None) -> None:
        self._walk = Walk()
        self._parser = parser or Parser()
        self._documents = self._all(paths, own=parser is None)

    @property
    def skipped(self) -> int:
        return self._walk.skipped

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Document | Refused:
        return next(self._documents)

    def close(self) -> None:
        """Stop before the end, and end the processes of a parser that nobody gave."""
        self._documents.close()

    def _all(self, paths: Iterable[str | Path], *, own: bool) -> Generator[Document | Refused]:
        found = (item for path in paths for item in self._walk.below(path))
        try:
            yield from map(self._read, found) if self._parser.processes == 1 else self._ahead(found)
        finally:
            if own:
                self._parser.close()

    def _ahead(self, found: Iterable[Found | Refused]) -> Generator[Document | Refused]:
        """Keep every process busy, and the order as it is."""
        waiting: deque[Future[Document | Refused]] = deque()
        with ThreadPoolExecutor(self._parser.processes) as pool:
            try:
                for item in found:
                    waiting.append(pool.submit(self._read, item))
                    if len(waiting) > 2 * self._parser.processes:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, item: Found | Refused) -> Document | Refused:
        if isinstance(item, Refused):
            return item
        try:
            return _document(item.name, item.path, self._parser)
        except InvalidInput as error:
            return Refused(item.name, error)


def find_files(path: str | Path, *, within: str = "", parser: Parser | None = None) -> Iterator[Pending | Refused]:
    """Find the same files as `read_files`, each to be read only if an ingestion does not know it as it is.

    A file's content is known by the SHA-256 of its bytes. Ids begin with `within`. `parser` None: one with as many
    processes as there are processors, which end with what was found.
    """
    reading = parser or Parser(processes=os.cpu_count() or 1)
    return (_pending(item, within, reading) for item in Walk().below(path))


def _pending(item: Found | Refused, within: str, parser: Parser) -> Pending | Refused:
    name = within + (item.document if isinstance(item, Refused) else item.name)
    if isinstance(item, Refused):
        return Refused(name, item.error)
    try:
        with named(item.path.name), opened(item.path, parser.limits.size) as file:
            digest = hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()
    except InvalidInput as error:
        return Refused(name, error)
    return Pending(name, f"{digest} {_PARSED_AS}", partial(_document, name, item.path, parser))


def _document(name: str, path: Path, parser: Parser) -> Document:
    from langchain_core.documents import Document

    parsed = parser.parse(path)
    return Document(id=name, page_content=parsed.text, metadata=_metadata(name, parsed))


def _metadata(name: str, parsed: Parsed) -> dict[str, Scalar]:
    metadata: dict[str, Scalar] = {"source": name}
    if parsed.title:
        metadata["title"] = parsed.title
    if parsed.pages and len(pages := json.dumps(parsed.pages)) <= _LONGEST_PAGES:
        metadata["pages"] = pages
    if parsed.hidden:
        metadata["hidden"] = True
    return metadata
