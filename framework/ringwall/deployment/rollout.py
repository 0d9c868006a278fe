"""A trial: watches how something new does on its share of the traffic, and takes it back if it does worse than it may.

What is bad is said by `Limit`s, each a share of what was observed that may be bad at most. A limit is broken when the
evidence against "no more than that share is bad" is as strong as `alpha` says: however often one looks, and however
long the trial goes on, what keeps its limits is taken back with a probability of at most `alpha`.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import TypeAdapter

from ringwall.deployment.sinks import EventSink, Told
from ringwall.errors import ConfigurationError, InvalidInput
from ringwall.keptfile import KeptFile
from ringwall.principal import Principal
from ringwall.schema import JSON

Reading = Callable[[Told], bool | None]
"""Whether an event tells of something bad; None if it tells nothing of what is tried."""


def nothing_of_it(event: Told) -> None:
    """Reads no event: what is bad is said with `Trial.observe`."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most the share `most` (between 0 and 1) of what is observed may be bad. Raises `ConfigurationError`."""

    name: str
    most: float
    reads: Reading = nothing_of_it

    def __post_init__(self) -> None:
        if not 0 < self.most < 1:
            raise ConfigurationError(f"limit {self.name!r} of {self.most:g}", expected="between 0 and 1")


@dataclass(frozen=True, slots=True)
class RolledBack:
    """Why a trial took something back: `bad` of `observed` where at most the share `most` may be, at Unix time `at`."""

    trial: str
    limit: str
    bad: int
    observed: int
    most: float
    at: float

    def __str__(self) -> str:
        return f"{self.limit}: {self.bad} of {self.observed} were bad, and {self.most:.1%} may be"


@dataclass(frozen=True, slots=True)
class _Book:
    """The file's content; `version` is that of its form."""

    version: Literal[1] = 1
    rolled_back: tuple[RolledBack, ...] = ()


_BOOK: Final = TypeAdapter(_Book)

_BETS: Final = (0.05, 0.1, 0.2, 0.4, 0.8)
"""What part of its money each gambler bets."""


class Evidence:
    """How strong the evidence is that more than the share `most` is bad.

    Gamblers bet against "no more than `most` is bad" at fair odds. `wealth` is what they have together if they began
    with 1, and nobody expects to get rich at fair odds: that it ever reaches 1 / alpha has a probability of at most
    alpha (Ville's inequality; betting as in Waudby-Smith and Ramdas, "Estimating means of bounded random variables by
    betting", JRSS-B 86, 2024). Each observation brings new gamblers with a part of what was kept back, so that a
    long good time does not hide that things got bad.
    """

    __slots__ = ("_most", "_purses", "bad", "observed")

    def __init__(self, most: float) -> None:
        self._most = most
        self._purses = [0.0] * len(_BETS)
        self.bad = self.observed = 0

    def observe(self, *, bad: bool) -> None:
        """Take one observation in."""
        self.observed += 1
        self.bad += bad
        new = 1 / (self.observed * (self.observed + 1))  # of 1 in all: 1 / (observed + 1) is still kept back
        won = (1 - self._most) / self._most if bad else -1.0
        self._purses = [(purse + new) * (1 + bet * won) for purse, bet in zip(self._purses, _BETS, strict=True)]

    @property
    def wealth(self) -> float:
        """What the gamblers have together, and what is kept back for those to come."""
        return sum(self._purses) / len(_BETS) + 1 / (self.observed + 1)


class Trial(EventSink):
    """Watches runs as one of an app's sinks, on facts alone, and is asked by whatever serves what is new (`holds`).

    With a `file` what was taken back stays so, for every process that names the file, until `try_again`; each process
    judges by what it saw itself. `then` is called once, in the process that took it back. Raises `ConfigurationError`
    when the file cannot be used, for limits named alike, and for an `alpha` that is none.
    """

    def __init__(
        self,
        name: str,
        limits: Sequence[Limit],
        *,
        alpha: float = 0.01,
        at_least: int = 10,
        file: str | Path | None = None,
        then: Callable[[RolledBack], None] = lambda _: None,
    ) -> None:
        if len({limit.name for limit in limits}) < len(limits) or not limits:
            raise ConfigurationError(f"trial {name!r} has no limits, or two of one name", hint="name each of them")
        if not 0 < alpha < 1:
            raise ConfigurationError(f"trial {name!r} with an alpha of {alpha:g}", expected="between 0 and 1")
        self.name, self._at_least, self._then = name, at_least, then
        self._enough = len(limits) / alpha  # each limit has its part of the errors that are allowed
        self._limits: Mapping[str, tuple[Limit, Evidence]] = {
            limit.name: (limit, Evidence(limit.most)) for limit in limits
        }
        self._file = None if file is None else KeptFile(file, _BOOK, _Book())
        self._here: RolledBack | None = None
        self._looking = threading.Lock()
        self.holds()

    @property
    def principal(self) -> Principal:
        return Principal(f"sink:trial-{self.name}")

    @property
    def rolled_back(self) -> RolledBack | None:
        """Why it was taken back, here or by another process; None as long as it was not."""
        if self._here is not None or self._file is None:
            return self._here
        return next((each for each in self._file.read().rolled_back if each.trial == self.name), None)

    def holds(self) -> bool:
        """Whether what is new may serve."""
        return self.rolled_back is None

    def observe(self, limit: str, *, bad: bool) -> None:
        """Take in what only the app knows, such as a user's thumb. From any thread. Raises `InvalidInput`."""
        if limit not in self._limits:
            raise InvalidInput(f"trial {self.name!r} has no limit {limit!r}", expected=", ".join(self._limits))
        with self._looking:
            self._observe(*self._limits[limit], bad=bad)

    async def receive(self, events: Sequence[Told]) -> None:
        with self._looking:
            for event in events:
                for limit, evidence in self._limits.values():
                    bad = limit.reads(event)
                    if bad is not None:
                        self._observe(limit, evidence, bad=bad)

    def try_again(self) -> None:
        """Let it serve again, and judge it anew."""
        with self._looking:
            self._here = None
            self._limits = {name: (limit, Evidence(limit.most)) for name, (limit, _) in self._limits.items()}
            if self._file is not None:
                self._file.change(lambda book: replace(book, rolled_back=self._others(book)))

    def _observe(self, limit: Limit, evidence: Evidence, *, bad: bool) -> None:
        evidence.observe(bad=bad)
        enough = evidence.observed >= self._at_least and evidence.wealth >= self._enough
        if enough and self.holds():
            self._take_back(RolledBack(self.name, limit.name, evidence.bad, evidence.observed, limit.most, time.time()))

    def _take_back(self, why: RolledBack) -> None:
        self._here = why  # whatever becomes of the file
        if self._file is not None:
            self._file.change(lambda book: replace(book, rolled_back=(*self._others(book), why)))
            self._here = None
        self._then(why)

    def _others(self, book: _Book) -> tuple[RolledBack, ...]:
        return tuple(each for each in book.rolled_back if each.trial != self.name)


# What can be bad


def failures(provider: str) -> Reading:
    """Of what a model was asked: that it was down, too slow, or made no sense."""

    def reads(event: Told) -> bool | None:
        if event.facts.get("provider") != provider:
            return None
        if event.kind == "model.replied":
            return False
        return True if event.facts.get("why") in ("ProviderUnavailable", "BadReply") else None

    return reads


def slower_than(provider: str, seconds: float) -> Reading:
    """Of a model's replies: that one took longer than this."""

    def reads(event: Told) -> bool | None:
        if event.kind != "model.replied" or event.facts.get("provider") != provider:
            return None
        return float(str(event.facts["ms"])) > seconds * 1e3

    return reads


_ENDS: Final = frozenset(("run.finished", "run.failed", "run.cancelled"))

_MOST_OPEN: Final = 10_000


def failed(event: Told) -> bool:
    """That a run failed."""
    return event.kind == "run.failed"


def guarded(event: Told) -> bool:
    """That a guard refused something, or failed and so let nothing pass."""
    return event.kind == "guard.ran" and event.facts.get("did") in ("refused", "failed")


class RunsWith:
    """Of the runs that have a fact (`prompt="answer@2"`, `provider="new"`): that something bad happened in one.

    Each counts once, when it ends. What is bad is said of an event: by default that the run failed.
    """

    def __init__(self, *, bad: Callable[[Told], bool] = failed, **fact: JSON) -> None:
        if len(fact) != 1:
            raise ConfigurationError("runs are told apart by one fact", expected='as in `RunsWith(prompt="answer@2")`')
        ((self._fact, self._value),) = fact.items()
        self._bad = bad
        self._runs: OrderedDict[str, tuple[bool, bool]] = OrderedDict()

    def __call__(self, event: Told) -> bool | None:
        concerned, bad = self._runs.pop(event.run, (False, False))
        concerned = concerned or event.facts.get(self._fact) == self._value
        bad = bad or self._bad(event)
        if event.kind in _ENDS:
            return bad if concerned else None
        self._runs[event.run] = concerned, bad
        if len(self._runs) > _MOST_OPEN:
            self._runs.popitem(last=False)
        return None


__all__ = [
    "Evidence", "Limit", "Reading", "RolledBack", "RunsWith", "Trial", "failed", "failures", "guarded",
    "nothing_of_it", "slower_than",
]  # fmt: skip
