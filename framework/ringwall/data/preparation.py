"""What is done to a document before it is stored: read, admitted, split, embedded.

It needs neither the manifest nor the store, so it can be done in another process.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from ringwall.data.admit import Admitted, Pending, Readers, admit, loaded, readers_of, tell_by_name
from ringwall.data.base import Chunk, Embeddings, Scalar, Vector
from ringwall.data.frontmatter import body_start
from ringwall.data.manifest import Entry
from ringwall.data.outcome import Outcome, Refused, Unchanged
from ringwall.data.receiving import check_may_embed
from ringwall.data.splitting import ByKind
from ringwall.errors import FlowDenied, InvalidInput
from ringwall.principal import ACL, Grants
from ringwall.schema import canonical, digest

if TYPE_CHECKING:
    from langchain_core.documents import Document

READ_AHEAD: Final = 8
"""Files read side by side."""

_EMBEDDED: Final = 256
"""Passages embedded at a time, at most."""

_UNREAD: Final = 10_000
"""Characters that a document is taken to have before it is read."""

_PROBE: Final = (
    "# A heading\n\nA sentence, and another one.\n\n" * 40
    + "| a | b |\n| --- | --- |\n"
    + "| cell | 1 |\n" * 80
    + "\n```python\n"
    + "def function(x):\n    return x\n\n\n" * 40
    + "```\n"
)
"""What tells one way of cutting and embedding from another; it says nothing, so any embedder may read it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A document that is wanted: what it came as, the id it is stored under, and what the store has of it already.

    `known` None: it is new, or its content or the way to cut and embed it is.
    """

    document: Document | tuple[str, str] | Pending
    came_as: str
    name: str
    content: str
    known: Entry | None

    @property
    def size(self) -> int:
        """How many characters it has, as far as that is known before it is read."""
        if isinstance(self.document, Pending):
            return _UNREAD
        return len(self.document[1] if isinstance(self.document, tuple) else self.document.page_content)


@dataclass(slots=True)
class Job:
    """A document that was prepared; `outcome` is there as soon as it is settled.

    `chunks` None: those in the store stay, with other `readers`.
    """

    name: str
    outcome: Outcome | None = None
    content: str = ""
    readers: ACL | None = None
    chunks: Sequence[Chunk] | None = None
    passages: int = 0


@dataclass(frozen=True)
class Preparation:
    """How documents become chunks; itself a function that prepares several, wherever it was sent."""

    embeddings: Embeddings | None
    split: ByKind
    readers: Readers
    tenant: str
    embedder_holds: Grants

    def __call__(self, orders: Sequence[Order | Job]) -> list[Job]:
        """Read, split and embed; what is settled stays as it is."""
        with ThreadPoolExecutor(READ_AHEAD) as pool:
            return self.embed(list(self.read_all(orders, pool)))

    def fingerprint(self) -> str:
        """What this way of cutting and embedding does to a text: another splitter or embedder does another thing."""
        return f"{digest(canonical(self.split.recipe(_PROBE)))}:{fingerprint(self.embeddings)}"

    def read_all(self, orders: Iterable[Order | Job], pool: Executor) -> Iterator[Job]:
        """Read, admit and split, in order; documents that must be fetched first are fetched side by side."""
        waiting: deque[Job | Future[Job]] = deque()
        for order in orders:
            waiting.append(order if isinstance(order, Job) else self._begin(order, pool))
            while waiting and (isinstance(waiting[0], Job) or len(waiting) > READ_AHEAD):
                yield _ready(waiting.popleft())
        yield from map(_ready, waiting)

    def _begin(self, order: Order, pool: Executor) -> Job | Future[Job]:
        return pool.submit(self._read, order) if isinstance(order.document, Pending) else self._read(order)

    def _read(self, order: Order) -> Job:
        said: ACL | None = None
        try:
            if order.known:
                return self._known(order, order.known)
            admitted = admit(loaded(order.document), order.came_as, self.readers, self.tenant)
            said = admitted.readers
            check_may_embed(self.embeddings, admitted.readers, self.embedder_holds, order.came_as)
            return Job(order.name, None, order.content, admitted.readers, self._chunks(admitted))
        except (InvalidInput, FlowDenied) as error:
            return Job(order.name, Refused(order.came_as, error), readers=said or self.told_by_name(order))

    def told_by_name(self, order: Order) -> ACL | None:
        """Who may read a document, if that is said, and without reading it."""
        if not tell_by_name(self.readers):
            return None
        from langchain_core.documents import Document

        unread = Document(id=order.came_as, page_content="", metadata={"source": order.came_as})
        try:
            return readers_of(unread, order.came_as, self.readers, self.tenant)
        except InvalidInput:
            return None

    def unread(self, order: Order) -> Job | None:
        """What becomes of a document that need not be read, since all is known of it; None if it must be."""
        if not order.known or not isinstance(order.document, Pending) or not tell_by_name(self.readers):
            return None
        same = self.told_by_name(order) == order.known.readers
        return Job(order.name, Unchanged(order.name)) if same else None

    def _known(self, order: Order, known: Entry) -> Job:
        """A document whose text is in the store already: all there is to do is to give it other readers."""
        readers = readers_of(loaded(order.document), order.came_as, self.readers, self.tenant)
        if readers == known.readers:
            return Job(known.name, Unchanged(known.name))
        return Job(known.name, None, known.content, readers, passages=known.passages)

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
            for number, passage in enumerate(self.split.of(document.name)(document.text[body:]))
        ]

    def embed(self, jobs: list[Job]) -> list[Job]:
        """Give every passage its vector; equal passages are embedded once."""
        if self.embeddings is not None:
            vectors = embedded(self.embeddings, {chunk.text for job in jobs for chunk in job.chunks or ()})
            for job in jobs:
                if job.chunks:
                    job.chunks = [replace(chunk, vector=vectors[chunk.text]) for chunk in job.chunks]
        return jobs


def _ready(job: Job | Future[Job]) -> Job:
    return job if isinstance(job, Job) else job.result()


def fingerprint(embeddings: Embeddings | None) -> str:
    """What tells one embedder from another: what it makes of a text as a passage and as a question."""
    if embeddings is None:
        return digest("")
    vectors = [*embeddings.embed_documents([_PROBE]), embeddings.embed_query(_PROBE)]
    return digest(canonical([[round(float(x), 2) for x in vector] for vector in vectors]))


def embedded(embeddings: Embeddings, texts: Iterable[str]) -> dict[str, Vector]:
    """The vector of each text.

    Those of like length go together: most embedders treat a batch as if all were as long as the longest.
    """
    ordered = sorted(texts, key=lambda text: (len(text), text))
    vectors: dict[str, Vector] = {}
    for first in range(0, len(ordered), _EMBEDDED):
        some = ordered[first : first + _EMBEDDED]
        vectors.update(zip(some, map(tuple, embeddings.embed_documents(some)), strict=True))
    return vectors


def _descriptions(metadata: Mapping[str, Scalar]) -> Callable[[int], Mapping[str, Scalar]]:
    """The metadata of a passage that begins at a place: the document's, and the number of its page, from 1.

    Readers of files say where pages begin in `pages`: a JSON list of character offsets.
    """
    if "pages" not in metadata:
        return lambda place: metadata
    try:
        begins = json.loads(str(metadata["pages"]))
    except ValueError:
        begins = None
    if not isinstance(begins, list) or not all(isinstance(begin, int) for begin in begins):
        return lambda place: metadata
    offsets, rest = begins, {k: v for k, v in metadata.items() if k != "pages"}
    return lambda place: {**rest, "page": bisect_right(offsets, place)}
