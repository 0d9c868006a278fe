"""What became of each document that was ingested."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ringwall.errors import RingwallError
from ringwall.principal import ACL


@dataclass(frozen=True, slots=True)
class Ingested:
    """A document that is in the store now; `passages` is 0 for one without words, which nobody can find."""

    document: str
    passages: int


@dataclass(frozen=True, slots=True)
class Unchanged:
    """A document that was in the store already, as it is."""

    document: str


@dataclass(frozen=True, slots=True)
class Relabelled:
    """A document whose words are the same and whose readers are others: nothing was embedded again."""

    document: str
    readers: ACL


@dataclass(frozen=True, slots=True)
class Removed:
    """A document that was in the store and is no more: its source does not have it any longer."""

    document: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A document that was not stored, and why.

    `earlier` says what became of a version of it in the store: `kept` as it was, `narrowed` to those who could read
    it and still may, or `removed`, so that none is left: there was nobody, as far as that can be told.
    """

    document: str
    error: RingwallError
    earlier: Literal["kept", "narrowed", "removed"] = "kept"


Outcome = Ingested | Unchanged | Relabelled | Removed | Refused


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of each document, in the order they came."""

    ingested: tuple[Ingested, ...] = ()
    refused: tuple[Refused, ...] = ()
    unchanged: tuple[Unchanged, ...] = ()
    relabelled: tuple[Relabelled, ...] = ()
    removed: tuple[Removed, ...] = ()

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> IngestReport:
        """The report of these outcomes."""
        each = list(outcomes)
        return cls(
            tuple(o for o in each if isinstance(o, Ingested)),
            tuple(o for o in each if isinstance(o, Refused)),
            tuple(o for o in each if isinstance(o, Unchanged)),
            tuple(o for o in each if isinstance(o, Relabelled)),
            tuple(o for o in each if isinstance(o, Removed)),
        )

    @property
    def empty(self) -> tuple[str, ...]:
        """The documents that were accepted and gave no passage."""
        return tuple(done.document for done in self.ingested if not done.passages)

    @property
    def passages(self) -> int:
        return sum(done.passages for done in self.ingested)
