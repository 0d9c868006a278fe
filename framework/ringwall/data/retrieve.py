"""From a question to passages: embed it if the library has embeddings, search as the reader, and make it better."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ringwall.data.base import Condition, DocumentStore, Embeddings, Match, Query
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


class Retriever:
    """Finds what answers a question among what a reader may read.

    `embeddings` must be the ones the store was filled with; None searches by words alone.
    """

    def __init__(
        self, store: DocumentStore, embeddings: Embeddings | None = None, *, trail: Trail | None = None
    ) -> None:
        self._store, self._embeddings, self._trail = store, embeddings, trail

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
        search = Search(question, readable, k, self._store)
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
            return await self._distinct(question, readable, k, where, fold)
        wordings = dict.fromkeys((question, *await rewriter(question)))
        rankings = await asyncio.gather(*(self._distinct(w, readable, k, where, fold) for w in wordings))
        joined = _by_rank(rankings)
        self._note("rewriter", joined)
        return fold(joined)[:k]

    async def _distinct(
        self, question: str, readable: Grants, k: int, where: tuple[Condition, ...], fold: Fold
    ) -> list[Match]:
        """The best `k` of different texts: while copies take places, more is asked for."""
        query, asked = await self._query(question, where), k
        matches = await self._store.search(query, readable, asked)
        distinct = fold(matches)
        while len(distinct) < k and len(matches) == asked < _MOST_COPIES * k:
            asked *= 4
            matches = await self._store.search(query, readable, asked)
            distinct = await asyncio.to_thread(fold, matches)  # they may be many by now
        if asked > k:
            self._note("without repeats", distinct[:k])
        return distinct[:k]

    async def _query(self, question: str, where: tuple[Condition, ...]) -> Query:
        if self._embeddings is None:
            return Query(question, where=where)
        return Query(question, tuple(await asyncio.to_thread(self._embeddings.embed_query, question)), where)

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
