"""Who holds what for certain, and through which lines: the holdings of rules, looked at rather than obeyed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final

from ringwall.deployment.ruleset import ANY, Holding, matches
from ringwall.principal import PUBLIC, Grant, Grants

ANYBODY: Final = "*:*"
"""A pattern that every principal's id matches, and that only such patterns match as a text."""


class Holders:
    """The holdings of rules, by who gets them."""

    def __init__(self, holdings: Iterable[Holding]) -> None:
        self._given: dict[str, list[Holding]] = defaultdict(list)
        self._patterns: list[Holding] = []
        self._grants: set[Grant] = set()
        for holding in holdings:
            self._grants.add(holding.grant)
            if ANY in holding.holder:
                self._patterns.append(holding)
            else:
                self._given[holding.holder].append(holding)
        self.whoever = lru_cache(maxsize=None)(self._whoever)

    def _whoever(self, subject: str, tenant: str | None) -> tuple[str, Grants]:
        """A stand-in for everybody whom a rule's subject means: an id (or pattern of ids), and what they all hold.

        A pattern matches the id given here only if it matches the ids of all of them.
        """
        own = () if ANY in subject else (subject,)
        as_id = subject if ANY in subject or self._is_an_id(subject) else ANYBODY
        if matches(as_id, ANYBODY):
            as_id = ANYBODY
        return as_id, frozenset(self.steps(as_id, own, tenant))

    def _is_an_id(self, subject: str) -> bool:
        """Whether only the principal of this id holds it: it is no role or collection, and no line gives it."""
        return subject != PUBLIC and not subject.startswith(("role:", "collection:")) and subject not in self._grants

    def steps(
        self, as_id: str, own: Iterable[Grant], tenant: str | None, *, without: Holding | None = None
    ) -> dict[Grant, Holding | None]:
        """All that somebody holds, each grant with the holding that gave it first; none gave `own`.

        `without` is a holding that is taken to be missing.
        """
        steps: dict[Grant, Holding | None] = dict.fromkeys((PUBLIC, *own))
        reached = list(steps)
        by_id = (holding for holding in self._patterns if matches(holding.holder, as_id))
        reached += _take(by_id, steps, tenant, without)
        while reached:
            reached = list(_take((h for grant in reached for h in self._given.get(grant, ())), steps, tenant, without))
        return steps


def _take(
    holdings: Iterable[Holding], steps: dict[Grant, Holding | None], tenant: str | None, without: Holding | None
) -> Iterator[Grant]:
    for holding in holdings:
        if holding.grant not in steps and holding.tenant in (None, tenant) and holding is not without:
            steps[holding.grant] = holding
            yield holding.grant


__all__ = ["ANYBODY", "Holders"]
