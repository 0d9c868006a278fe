"""Who receives the text that is embedded or ranked, and who says whether it may.

An embedder or a reranker says who receives in its attribute `principal`: None if it computes in this process and
sends nothing anywhere, else the principal that gets all it is given. Wrappers pass on what the one inside says.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from typing import Final

from ringwall.data.base import Embeddings
from ringwall.errors import FlowDenied
from ringwall.principal import ACL, PUBLIC, Grants, Principal

PUBLIC_ONLY: Final[Grants] = frozenset((PUBLIC,))
"""What somebody holds of whom nothing is said."""

MayReceive = Callable[[Principal, Sequence[str]], Awaitable[bool]]
"""Says whether a principal may be sent these texts; asked before they leave. May raise `FlowDenied` instead."""


Took = Callable[[int], None]
"""Is told how many tokens somebody says that it took."""

Sending = Callable[[object, Principal, Sequence[str]], AbstractAsyncContextManager[Took]]
"""Surrounds the sending of texts to a part, which is that principal; may raise before they leave."""


@asynccontextmanager
async def nobody_counts(part: object, receiver: Principal, texts: Sequence[str]) -> AsyncGenerator[Took, None]:
    """The surroundings where nobody counts what is sent."""
    yield lambda tokens: None


def receiver_of(part: object, *, kind: str = "embedder") -> Principal | None:
    """Who receives what `part` is given; None if that stays in this process.

    What does not say is taken at its worst: text leaves, to somebody called by the name of the class.
    """
    said = getattr(part, "principal", part)
    if said is None or isinstance(said, Principal):
        return said
    return Principal(f"{kind}:{type(part).__name__}")


def in_tenant_of(receiver: Principal, tenant: str) -> Principal:
    """The receiver as the policy is asked about it: what serves every tenant is asked about in each by itself."""
    return receiver if receiver.tenant or not tenant else replace(receiver, tenant=tenant)


def check_may_embed(embeddings: Embeddings | None, readers: ACL, holds: Grants, document: str) -> None:
    """Raise `FlowDenied` if embedding a document would send it to somebody who may not read it."""
    receiver = None if embeddings is None else receiver_of(embeddings)
    if receiver is not None and not readers.admits(holds):
        raise FlowDenied(
            f"{receiver.id} may not receive document {document!r}, and would to embed it",
            hint="embed it in this process, or give the embedder a grant that its readers name",
        )


async def nobody_said(receiver: Principal, texts: Sequence[str]) -> bool:
    """The answer where nobody can be asked: a question is not public, so it does not leave."""
    raise FlowDenied(
        f"nobody said that {receiver.id} may receive what is asked",
        hint="give `may_receive`; an embedder in this process says so with `principal = None`, or as `InProcess(...)`",
    )


class InProcess:
    """Somebody else's `embeddings`, of which you say that they compute here and send nothing anywhere."""

    principal: Final = None

    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vector of each text, in order."""
        return self._embeddings.embed_documents(texts)

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return self._embeddings.embed_query(text)
