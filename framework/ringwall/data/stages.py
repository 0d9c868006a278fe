"""What may follow a search: each stage takes matches, best first, and returns better ones.

    partial(Retrieve, k=6, fetch=40, stages=(Decay("date", days=90), Mmr(), Neighbours()))

A stage is any async callable `(Search, matches) -> matches`. All that it is given may be read by the reader;
whatever it looks up must be looked up with `search.readable`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from ringwall.data.alike import THRESHOLD, check_threshold, likeness, may_be_alike, shingles
from ringwall.data.base import Chunk, DocumentStore, Match
from ringwall.data.lexical import words
from ringwall.data.receiving import MayReceive, Sending, nobody_counts, nobody_said, receiver_of
from ringwall.errors import InvalidInput
from ringwall.principal import Grants, Principal


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for, for whom, and where; `k` matches are wanted in the end.

    A stage that sends text out of the process asks `may_receive` first, and sends it within `sending`.
    """

    question: str
    readable: Grants
    k: int
    store: DocumentStore
    may_receive: MayReceive = nobody_said
    sending: Sending = nobody_counts


Stage = Callable[[Search, list[Match]], Awaitable[list[Match]]]
"""What makes better matches of matches."""


class Reranker(Protocol):
    """Says how well each text answers a question: higher is better.

    `principal` is None if it runs here and sends nothing anywhere, else who receives the question and the texts.
    """

    @property
    def principal(self) -> Principal | None: ...

    def scores(self, question: str, texts: Sequence[str]) -> Sequence[float]: ...


class Rerank:
    """Puts the matches in the order of a model that reads question and passage together.

    They stay in the order they had where the model is elsewhere and may not receive all that the run has read.
    """

    def __init__(self, reranker: Reranker) -> None:
        self._reranker = reranker

    async def __call__(self, search: Search, matches: list[Match]) -> list[Match]:
        texts = [match.chunk.text for match in matches]
        receiver = receiver_of(self._reranker, kind="reranker")
        if receiver is None:
            scores = await asyncio.to_thread(self._reranker.scores, search.question, texts)
        elif not await search.may_receive(receiver, (search.question, *texts)):
            return matches
        else:
            pairs = [search.question + text for text in texts]  # as they are read: together
            async with search.sending(self._reranker, receiver, pairs):
                scores = await asyncio.to_thread(self._reranker.scores, search.question, texts)
        return ranked([Match(match.chunk, float(s)) for match, s in zip(matches, scores, strict=True)])


class Mmr:
    """Leaves out what others say already: maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    `diversity` from 0, the order that there was, to 1, the most different passages. Likeness is the cosine of
    the vectors, or the share of common words where there are none.
    """

    def __init__(self, diversity: float = 0.3) -> None:
        if not 0.0 <= diversity <= 1.0:
            raise InvalidInput(f"a diversity of {diversity}", expected="0 to 1")
        self._diversity = diversity

    async def __call__(self, search: Search, matches: list[Match]) -> list[Match]:
        best = max((match.score for match in matches), default=0.0) or 1.0
        left = [(match.score / best, _Likeness(match.chunk), match) for match in matches]
        nearest = [0.0] * len(left)
        chosen: list[Match] = []
        while left and len(chosen) < search.k:
            worth = [
                (1 - self._diversity) * score - self._diversity * n
                for (score, _, _), n in zip(left, nearest, strict=True)
            ]
            place = max(range(len(left)), key=worth.__getitem__)
            (_, likeness, match), _ = left.pop(place), nearest.pop(place)
            chosen.append(match)
            nearest = [max(n, likeness.to(other)) for n, (_, other, _) in zip(nearest, left, strict=True)]
        return chosen


class Neighbours:
    """Widens each passage by those before and after it, as far as they have the same readers.

    Passages that then touch become one, which takes the better place.
    """

    def __init__(self, *, before: int = 1, after: int = 1) -> None:
        self._before, self._after = before, after

    async def __call__(self, search: Search, matches: list[Match]) -> list[Match]:
        kept = matches[: search.k]
        wanted = [id for match in kept for id in self._around(match.chunk.id)]
        found = {chunk.id: chunk for chunk in await search.store.get(wanted, search.readable)}
        wide: list[Match] = []
        used: set[str] = set()
        for match in kept:
            if match.chunk.id in used:
                continue
            run = self._run(match.chunk, found, used)
            used.update(chunk.id for chunk in run)
            wide.append(Match(_joined(match.chunk, run), match.score))
        return wide

    def _around(self, id: str) -> list[str]:
        document, mark, number = id.rpartition("#")
        if not mark or not number.isdecimal():
            return []
        place = int(number)
        return [f"{document}#{n}" for n in range(max(0, place - self._before), place + self._after + 1)]

    def _run(self, chunk: Chunk, found: dict[str, Chunk], used: set[str]) -> list[Chunk]:
        """The passages around `chunk`, itself among them, without a gap."""
        ids = self._around(chunk.id) or [chunk.id]
        here = ids.index(chunk.id)
        run = [chunk]
        for step, others in ((0, reversed(ids[:here])), (1, ids[here + 1 :])):
            for id in others:
                other = found.get(id)
                if other is None or id in used or other.readers != chunk.readers or other.document != chunk.document:
                    break
                run.insert(len(run) if step else 0, other)
        return run


class Decay:
    """Lets what is old count less: half as much after each `days`.

    `key` names the metadata that holds the date: ISO 8601 text, or seconds since 1970. A passage without one, or
    from the future, counts whole.
    """

    def __init__(self, key: str, *, days: float, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        if not days > 0:
            raise InvalidInput(f"a half-life of {days} days", expected="more than 0")
        self._key, self._days, self._now = key, days, now

    async def __call__(self, search: Search, matches: list[Match]) -> list[Match]:
        now = self._now().timestamp()
        return ranked([Match(m.chunk, m.score * 0.5 ** (self._age(m.chunk, now) / self._days)) for m in matches])

    def _age(self, chunk: Chunk, now: float) -> float:
        written = chunk.metadata.get(self._key)
        if isinstance(written, str):
            try:
                moment = datetime.fromisoformat(written)
            except ValueError:
                return 0.0
            written = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return max(0.0, now - float(written)) / 86_400 if written else 0.0


Fold = Callable[[list[Match]], list[Match]]
"""What leaves out matches that others make superfluous, in the order there is. Further ones then take their places."""


class Distinct:
    """A fold: of matches that say nearly the same, the best alone.

    Nearly the same is a `likeness` (`ringwall.data.alike`) of at least `threshold`: a paragraph of a hundred words in
    which one was changed. That one word may be the one that matters; who must see every version does not fold them.
    """

    def __init__(self, threshold: float = THRESHOLD) -> None:
        check_threshold(threshold)
        self._threshold = threshold

    def __call__(self, matches: list[Match]) -> list[Match]:
        kept: list[tuple[Match, frozenset[str]]] = []
        for match in matches:
            said = shingles(match.chunk.text)
            if not any(self._are_alike(said, other) for _, other in kept):
                kept.append((match, said))
        return [match for match, _ in kept]

    def _are_alike(self, a: frozenset[str], b: frozenset[str]) -> bool:
        return may_be_alike(a, b, self._threshold) and likeness(a, b) >= self._threshold


def without_repeats(matches: list[Match]) -> list[Match]:
    """The matches without those whose text stands before already."""
    if len({match.chunk.text for match in matches}) == len(matches):
        return matches
    first: dict[str, Match] = {}
    for match in matches:
        first.setdefault(match.chunk.text, match)
    return list(first.values())


def ranked(matches: Sequence[Match]) -> list[Match]:
    """Best first; equal scores in the order of their ids."""
    return sorted(matches, key=lambda match: (-match.score, match.chunk.id))


class _Likeness:
    """What is compared of a passage."""

    def __init__(self, chunk: Chunk) -> None:
        self._vector = chunk.vector
        self._length = math.hypot(*chunk.vector) if chunk.vector else 0.0
        self._words = frozenset(words(chunk.text))

    def to(self, other: _Likeness) -> float:
        """How alike two passages are, 0 to 1."""
        if self._length and other._length:
            assert self._vector is not None
            assert other._vector is not None
            product = sum(a * b for a, b in zip(self._vector, other._vector, strict=True))
            return max(0.0, product / (self._length * other._length))
        return len(self._words & other._words) / (len(self._words | other._words) or 1)


def _joined(chunk: Chunk, run: Sequence[Chunk]) -> Chunk:
    """The passages of a run as one, each character of the document once; its id is that of the first one found."""
    text, end = run[0].text, run[0].end
    for other in run[1:]:
        text += other.text[max(0, end - other.start) :] if other.start < end else "\n" + other.text
        end = max(end, other.end)
    return replace(chunk, text=text, start=run[0].start, end=end, vector=None)
