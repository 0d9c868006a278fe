"""From a question to passages: embed it if the library has embeddings, search as the reader, and make it better."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, runtime_checkable

from ringwall.data.base import Condition, DocumentStore, Embeddings, Match, Query, Vector
from ringwall.data.receiving import MayReceive, Sending, nobody_counts, nobody_said, receiver_of
from ringwall.data.stages import Fold, Search, Stage, ranked, without_repeats
from ringwall.principal import Grants

Rewriter = Callable[[str], Awaitable[Sequence[str]]]
"""Other wordings of a question; each is searched for too."""

_RRF: Final = 60
_MOST_COPIES: Final = 256


class Trail(ABC):
    """Where a retriever says what each of its stages made of the matches."""

    @abstractmethod
    def note(self, stage: str, matches: Sequence[Match]) -> None:
        """Take down the candidates that a stage left, best first, with their scores."""


@runtime_checkable
class Counted(Protocol):
    """An embedder elsewhere that says how many tokens a question took."""

    async def aembed_counted(self, text: str) -> tuple[Sequence[float], int]:
        """The vector of a question, and its tokens as whoever embeds it counts them."""
        ...


class Retriever:
    """Finds what answers a question among what a reader may read.

    `embeddings` must be the ones the store was filled with; None searches by words alone. `may_receive` is asked
    before an embedder or a reranker elsewhere is sent anything; what may not be sent is searched for by words alone.
    What is sent goes through `sending`, which counts it.
    """

    def __init__(
        self,
        store: DocumentStore,
        embeddings: Embeddings | None = None,
        *,
        trail: Trail | None = None,
        may_receive: MayReceive = nobody_said,
        sending: Sending = nobody_counts,
    ) -> None:
        self._store, self._embeddings, self._trail = store, embeddings, trail
        self._receiver = None if embeddings is None else receiver_of(embeddings)
        self._may_receive, self._sending = may_receive, sending

    async def retrieve(
        self,
        question: str,
        readable: Grants,
        k: int = 4,
        *,
        fetch: int = 0,
        where: tuple[Condition, ...] = (),
        stages: Sequence[Stage] = (),
        rewriter: Rewriter | None = None,
        fold: Fold = without_repeats,
    ) -> list[Match]:
        """Return at most `k` matches, best first, all readable to somebody who holds `readable`.

        Of passages with one text the best is returned alone, or what else `fold` says. `stages` work on `fetch`
        candidates (at least `k`).
        With a `rewriter` the question is searched for in other words too, and the rankings are joined by
        reciprocal ranks (Cormack, Clarke and Büttcher, SIGIR 2009).
        """
        matches = await self._search(question, readable, max(k, fetch), where, rewriter, fold)
        search = Search(question, readable, k, self._store, self._may_receive, self._sending)
        for stage in stages:
            matches = await stage(search, matches)
            self._note(getattr(stage, "__name__", type(stage).__name__), matches)
        return matches[: max(k, 0)]

    async def _search(
        self,
        question: str,
        readable: Grants,
        k: int,
        where: tuple[Condition, ...],
        rewriter: Rewriter | None,
        fold: Fold,
    ) -> list[Match]:
        if rewriter is None:
            return await self._distinct(await self._query(question, where), readable, k, fold)
        wordings = tuple(dict.fromkeys((question, *await rewriter(question))))
        queries = await self._queries(wordings, where)
        rankings = await asyncio.gather(*(self._distinct(query, readable, k, fold) for query in queries))
        joined = _by_rank(rankings)
        self._note("rewriter", joined)
        return fold(joined)[:k]

    async def _distinct(self, query: Query, readable: Grants, k: int, fold: Fold) -> list[Match]:
        """The best `k` of different texts: while copies take places, more is asked for."""
        asked = k
        matches = await self._store.search(query, readable, asked)
        distinct = fold(matches)
        while len(distinct) < k and len(matches) == asked < _MOST_COPIES * k:
            asked *= 4
            matches = await self._store.search(query, readable, asked)
            distinct = await asyncio.to_thread(fold, matches)  # they may be many by now
        if asked > k:
            self._note("without repeats", distinct[:k])
        return distinct[:k]

    async def _queries(self, wordings: Sequence[str], where: tuple[Condition, ...]) -> list[Query]:
        """The wordings with their vectors; whether each may be sent is asked one after the other."""
        sent = [text for text in wordings if self._embeddings is not None and await self._may_embed(text)]
        vectors = dict(zip(sent, await asyncio.gather(*map(self._vector, sent)), strict=True))
        return [Query(text, vectors.get(text), where) for text in wordings]

    async def _query(self, question: str, where: tuple[Condition, ...]) -> Query:
        sent = self._embeddings is not None and await self._may_embed(question)
        return Query(question, await self._vector(question) if sent else None, where)

    async def _may_embed(self, text: str) -> bool:
        return self._receiver is None or await self._may_receive(self._receiver, (text,))

    async def _vector(self, text: str) -> Vector:
        assert self._embeddings is not None
        if self._receiver is None:
            return tuple(await asyncio.to_thread(self._embeddings.embed_query, text))
        async with self._sending(self._embeddings, self._receiver, (text,)) as took:
            if isinstance(self._embeddings, Counted):
                vector, tokens = await self._embeddings.aembed_counted(text)
                took(tokens)
                return tuple(vector)
            # One that waits for a server need not hold a thread meanwhile; LangChain's others would take one anyway.
            ask = getattr(self._embeddings, "aembed_query", None)
            return tuple(await (ask(text) if ask else asyncio.to_thread(self._embeddings.embed_query, text)))

    def _note(self, stage: str, matches: Sequence[Match]) -> None:
        if self._trail is not None:
            self._trail.note(stage, matches)


def _by_rank(rankings: Sequence[Sequence[Match]]) -> list[Match]:
    scores: dict[str, float] = {}
    chunks = {match.chunk.id: match.chunk for ranking in rankings for match in ranking}
    for ranking in rankings:
        for rank, match in enumerate(ranking, 1):
            scores[match.chunk.id] = scores.get(match.chunk.id, 0.0) + 1.0 / (_RRF + rank)
    return ranked([Match(chunks[id], score) for id, score in scores.items()])
