"""What the journal keeps of a question to a human: why it was asked, on what terms, who said yes, until when it holds.

A question is about one call with exactly its arguments and label. It asks for one of two things: that the call may be
made although of what influenced it (`CALL`), or that its arguments may reach somebody who may not read them (`FLOW`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from ringwall.deployment.base import Decision, Terms, Verdict
from ringwall.deployment.terms import terms_from_json, terms_to_json
from ringwall.label import Label, Source
from ringwall.principal import ACL
from ringwall.schema import JSON

NEVER: Final = float("inf")


class Kind(StrEnum):
    """What a yes would lift."""

    CALL = "call"
    """An integrity objection: a source that influenced the call may not cause it alone."""
    FLOW = "flow"
    """A secrecy objection: a receiver of the arguments may not read what they were made from."""


class Objection(NamedTuple):
    """Somebody who would receive the arguments, and a list of readers of them that it is not on."""

    receiver: str
    readers: ACL


class Yes(NamedTuple):
    """One person's yes: when (Unix time, seconds), and for which of the rules that ask it counts, by place."""

    by: str
    at: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Preview:
    """What a call would change, as its tool said when the question was asked, and who may be told."""

    text: str
    label: Label


@dataclass(frozen=True, slots=True)
class Question:
    """A question with what has become of it so far. Times are Unix times in seconds.

    `asks` are the decisions of the rules that ask; each wants the yes of as many people as its terms say.
    `influences` says by argument which sources could have shaped it.
    """

    kind: Kind
    asks: tuple[Decision, ...]
    asked_at: float
    influences: Mapping[str, tuple[Source, ...]] = field(default_factory=lambda: MappingProxyType({}))
    objections: frozenset[Objection] = frozenset()
    preview: Preview | None = None
    yes: tuple[Yes, ...] = ()

    @property
    def expires(self) -> float:
        """When it is too late: to answer, or once enough said yes, to use that; `NEVER` without a bound."""
        within = min((ask.terms.within or NEVER for ask in self.asks), default=NEVER)
        begins = self.yes[-1].at if self.yes and not self.lacking else self.asked_at
        return begins + within

    @property
    def lacking(self) -> tuple[int, ...]:
        """The places of the rules that still want a yes, each as often as it wants one."""
        return tuple(place for place, ask in enumerate(self.asks) for _ in range(self._lacks(place, ask.terms)))

    def escalates(self) -> float:
        """When others may or must answer; `NEVER` if nobody."""
        return min((self.asked_at + ask.terms.after for ask in self.asks if ask.terms.then), default=NEVER)

    def _lacks(self, place: int, terms: Terms) -> int:
        return max(0, terms.people - len({yes.by for yes in self.yes if place in yes.counts}))

    def answered(self, yes: Yes) -> Question:
        return replace(self, yes=(*self.yes, yes))


def question_to_json(question: Question) -> dict[str, JSON]:
    """A new question as the journal keeps it."""
    return {
        "kind": str(question.kind),
        "asks": [[ask.rule, ask.reason, terms_to_json(ask.terms)] for ask in question.asks],
        "at": question.asked_at,
        "influences": {name: list(sources) for name, sources in question.influences.items()},
        "objections": [[receiver, sorted(readers)] for receiver, readers in sorted_objections(question.objections)],
    }


def question_from_json(body: Mapping[str, Any], at: float) -> Question:
    """Read back what `question_to_json` wrote, or what was written before there were terms."""
    asks = body.get("asks") or [[body["rule"], body["reason"], {}]]
    return Question(
        Kind(body.get("kind", Kind.CALL)),
        tuple(Decision(Verdict.ASK, reason, rule, terms_from_json(terms)) for rule, reason, terms in asks),
        body.get("at", at),
        {name: tuple(sources) for name, sources in body.get("influences", {}).items()},
        frozenset(Objection(receiver, ACL(readers)) for receiver, readers in body.get("objections", ())),
    )


def next_question(question: Question | None, phase: str, body: Mapping[str, Any], at: float) -> Question | None:
    """What an event about the call makes of its question."""
    if phase == "asked":
        return question_from_json(body, at)
    if question is None:
        return None
    if phase == "previewed":
        return replace(question, preview=Preview(body["text"], Label.from_json(body["label"])))
    if phase in ("approved", "declassified"):
        counts = body.get("counts", range(len(question.asks)))
        return question.answered(Yes(body["by"], body.get("at", at), tuple(counts)))
    return question


def is_settled(question: Question | None, body: Mapping[str, Any]) -> bool:
    """Whether a yes was the last that was wanted; what was written before there were terms wanted one."""
    return question is None or "counts" not in body or not question.lacking


def sorted_objections(objections: Iterable[Objection]) -> list[Objection]:
    """Objections in one order."""
    return sorted(objections, key=lambda objection: (objection.receiver, sorted(objection.readers)))


def describe_preview(call: str, preview: Preview) -> dict[str, JSON]:
    """The body of the event that tells a preview."""
    return {"call": call, "text": preview.text, "label": cast(JSON, preview.label.to_json())}
