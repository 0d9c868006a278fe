"""Who may be told what, worked out from readers and holdings alone, and a record of whoever was told more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from ringwall import Principal
from tests.leaks.world import words_in

INCLUDED: Final = {"role:boss": "role:staff"}
"""Whoever is boss is also staff."""


class Readers(NamedTuple):
    """Who may read a text: any one of these within the tenant, or everybody if `public` is among them."""

    grants: frozenset[str]
    tenant: str


Dress = Literal["", "mail", "password"]
"""How a word stands in a text: bare, as an address that guards know, or as what they leave out."""

Lets = Callable[[Collection[Readers]], bool]
"""Whether somebody is told a word by other leave than being among these readers."""

_NOBODY: Final = Readers(frozenset(), "")


@dataclass(repr=False)  # it stands in frames, which error reports show
class Witness:
    """Knows each secret's readers, what everybody holds, and by which readers each run came to know a secret.

    A text that a run has read keeps the readers it had then: what is written down cannot be unread. Who holds what
    counts at the moment of telling.
    """

    held: dict[Principal, frozenset[str]]
    readers: dict[str, Readers] = field(default_factory=dict)
    ever: dict[str, set[Readers]] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    known: dict[str, dict[str, set[Readers]]] = field(default_factory=dict)
    remembered: dict[Principal, dict[str, set[Readers]]] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    leaks: list[str] = field(default_factory=list)
    told: Counter[str] = field(default_factory=Counter)

    def new(self, kind: str, readers: Iterable[str], tenant: str, *, source: str = "") -> str:
        """A word that stands nowhere else; `source` is who could have shaped it, if not its only reader."""
        word = f"secret-{kind}-{len(self.readers)}"
        self.relabel(word, Readers(frozenset(readers), tenant))
        self.sources[word] = source
        return word

    def relabel(self, word: str, readers: Readers) -> None:
        """A word has these readers from now on."""
        self.readers[word] = readers
        self.ever.setdefault(word, set()).add(readers)

    def may_read(self, who: Principal, readers: Readers) -> bool:
        return may_read(who, readers, self.held.get(who, frozenset()))

    def holds(self, who: Principal, grant: str) -> bool:
        return grant in holdings(who, self.held.get(who, frozenset()))

    def sources_of(self, asker: Principal, words: Iterable[str]) -> frozenset[str]:
        """Who could have shaped a text of these words, in a run of `asker`, at the least."""
        return frozenset(self.sources[word] or asker.id for word in words) | {asker.id}

    def hears(
        self,
        who: Principal,
        through: str,
        *what: object,
        run: str = "",
        asker: Principal | None = None,
        unless: Lets | None = None,
        outlives: bool = False,
    ) -> None:
        """Somebody is told this: note every word that it may not read, `unless` somebody let it be told.

        What `outlives` erasures may be told after them, to whom it might be before.
        """
        words = words_in(*what)
        self.told[through] += len(words)
        if run in self.erased and not outlives:
            self.leaks += [f"{who.id} was told {word} of an erased run through {through}" for word in words]
        for word in words:
            ways = self.ways(run, word, asker) | (self.ever.get(word, set()) if outlives else set())
            if any(self.may_read(who, readers) for readers in ways):
                continue
            if unless is not None and unless(ways):
                self.told["declassified"] += 1
            else:
                self.leaks.append(f"{who.id} of {who.tenant!r} was told {word} through {through}")

    def logged(self, text: str) -> None:
        """Nobody in particular is told this, so nobody may be told anything."""
        self.leaks += [f"{word} stands in a log" for word in words_in(text)]

    def arrives(self, run: str, asker: Principal, what: object) -> None:
        """A run is shown this: what it did not know before was found on behalf of its asker, who may read it."""
        new = words_in(what) - self.known.setdefault(run, {}).keys()
        self.hears(asker, "search and recall", *new, run=run, asker=asker)
        self.comes_to_know(run, asker, new)

    def comes_to_know(self, run: str, asker: Principal, words: Iterable[str]) -> None:
        known = self.known.setdefault(run, {})
        for word in words:
            known.setdefault(word, set(self.ways(run, word, asker)))

    def remembers(self, who: Principal, run: str) -> None:
        """All that a run knows may be in what is remembered for its asker."""
        kept = self.remembered.setdefault(who, {})
        for word, ways in self.known.get(run, {}).items():
            kept.setdefault(word, set()).update(ways)

    def erases(self, who: Principal, runs: Iterable[str]) -> None:
        """These runs tell nothing from now on, and no run comes to know what was kept of somebody alone."""
        self.erased.update(runs)
        self.remembered.pop(who, None)
        for word, readers in self.readers.items():
            if readers.tenant == who.tenant and who.id in readers.grants and "-doc-" not in word:
                self.readers[word] = _NOBODY
        self.told["erased"] += 1

    def ways(self, run: str, word: str, asker: Principal | None) -> set[Readers]:
        """The readers by which a run came to know a word; of a word new to it, those that it could come by."""
        known = self.known.get(run, {}).get(word)
        if known is not None:
            return known
        now = {self.readers[word]} if word in self.readers else set[Readers]()
        return now | self.remembered.get(asker, {}).get(word, set()) if asker else now


def dressed(word: str, dress: Dress) -> str:
    """A word as it stands in a text."""
    return f"{word}@example.org" if dress == "mail" else f"password: {word}" if dress == "password" else word


def holdings(who: Principal, held: Iterable[str]) -> frozenset[str]:
    """All that somebody holds by holding this."""
    mine = frozenset((who.id, "public", *held))
    return mine | {INCLUDED[club] for club in mine & INCLUDED.keys()}


def may_read(who: Principal, readers: Readers, held: Iterable[str]) -> bool:
    """Whether somebody who holds this is among the readers."""
    return "public" in readers.grants or (readers.tenant == who.tenant and bool(readers.grants & holdings(who, held)))
