"""What people have said yes to: whether they might, and whether what is done then is what they said yes to.

Worked out from the rules of the town alone. A yes is for one call with exactly its arguments, is used up by it, and
does not hold for ever; one that stands is for as many calls as it says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from ringwall import Principal
from tests.leaks.doing import Clock, Doing
from tests.leaks.town import WITHIN, Rights
from tests.leaks.witness import Readers, Witness
from tests.leaks.world import words_in

Arguments = Mapping[str, Any]
Lifted = frozenset[tuple[str, frozenset[str]]]
"""Who is told what in spite of which list of its readers."""


@dataclass(frozen=True)
class Asked:
    """A question as the journal has it: about which call of which run, and what stands in the way of it."""

    run: str
    asker: Principal
    kind: str
    tool: str
    arguments: Arguments
    lifts: Lifted

    @classmethod
    def of(cls, run: str, asker: Principal, body: Mapping[str, Any]) -> Asked:
        lifts = frozenset((receiver, frozenset(readers)) for receiver, readers in body["objections"])
        return cls(run, asker, body["kind"], body["tool"], json.loads(body["arguments"]), lifts)

    def is_of(self, doing: Doing, tool: str, arguments: Arguments) -> bool:
        """Whether it is about exactly this call."""
        return (self.run, self.tool, self.arguments) == (doing.run, tool, arguments)


@dataclass(frozen=True)
class Stand:
    """A yes that stands: who let it, of what, for whom, how often, until when."""

    by: Principal
    tool: str
    who: str
    run: str
    admits: Callable[[str], bool]
    sources: frozenset[str]
    uses: int
    until: float


@dataclass
class Yeses:
    """The yeses that were said; `rights` are what everybody may decide, `clock` tells the town's time."""

    witness: Witness
    rights: dict[Principal, Rights]
    clock: Clock
    said: list[tuple[Asked, float]] = field(default_factory=list)
    stands: dict[str, Stand] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    used: list[list[str]] = field(default_factory=list)

    # Saying

    def approved(self, asked: Asked, by: Principal) -> None:
        """Somebody was let say yes to this."""
        self._check(asked.kind == "call", by, "approved what is to be declassified")
        self._may_answer(asked, by)
        self.said.append((asked, self.clock.now + WITHIN["call"]))

    def declassified(self, asked: Asked, by: Principal) -> None:
        """Somebody was let open these lists of readers for this call."""
        self._check(asked.kind == "flow", by, "declassified what is to be approved")
        self._may_answer(asked, by)
        for receiver, readers in asked.lifts:
            open_ = {grant.removeprefix(f"{by.tenant}::") for grant in readers}
            self._check(self.rights[by].may_lift(open_), by, f"let {receiver} be told what is for {sorted(open_)}")
        self.said.append((asked, self.clock.now + WITHIN["flow"]))

    def let_stand(self, id_: str, stand: Stand, asked: Asked) -> None:
        """Somebody's yes to this was let stand."""
        self._check(bool(stand.run) or self.rights[stand.by].stands, stand.by, "let a rule stand")
        is_so = stand.tool == asked.tool and stand.admits(asked.arguments["text"])
        self._check(is_so, stand.by, "let stand what it was not shown")
        self.stands[id_] = stand

    def revokes(self, id_: str, by: Principal) -> None:
        """A rule that stood was taken back."""
        stand = self.stands[id_]
        self.revoked.add(id_)
        may = by.tenant == stand.by.tenant and (by == stand.by or self.rights[by].stands)
        self._check(may, by, "took back a rule that stands")

    def _may_answer(self, asked: Asked, by: Principal) -> None:
        self._check(by.tenant == asked.asker.tenant, by, "answered for another tenant")
        self._check(by != asked.asker, by, "answered its own question")
        self.witness.hears(by, "a yes", asked.arguments, run=asked.run, asker=asked.asker)
        self.witness.told[f"yes to a {asked.kind}"] += 1

    def _check(self, is_so: bool, who: Principal, what: str) -> None:  # noqa: FBT001
        if not is_so:
            self.witness.leaks.append(f"{who.id} of {who.tenant!r} {what}, and was told it might")

    # Doing

    def lets(
        self, doing: Doing, tool: str, arguments: Arguments, receiver: Principal, ways: Collection[Readers]
    ) -> bool:
        """Whether somebody let this receiver be told a word with these readers, in exactly this call."""
        lifted = {pair for asked in self._said_of(doing, tool, arguments) for pair in asked.lifts}
        if any((receiver.id, frozenset(f"{way.tenant}::{grant}" for grant in way.grants)) in lifted for way in ways):
            return True
        if not (receiver.id.startswith("to:") and self.rights[doing.who].tells):
            return False
        may = any(self.witness.may_read(doing.who, way) for way in ways)
        sources = self.witness.sources_of(doing.who, words_in(arguments))
        return may and (doing.planned or sources == {doing.who.id})

    def done(self, doing: Doing, tool: str, arguments: Arguments) -> None:
        """A call was made: what was said of it is used up; without a yes one that stands is."""
        kinds = {asked.kind for asked in self._said_of(doing, tool, arguments)}
        self.said = [each for each in self.said if not each[0].is_of(doing, tool, arguments)]
        if tool == "book" and "call" not in kinds:
            self._use_one(doing, tool, arguments)

    def _said_of(self, doing: Doing, tool: str, arguments: Arguments) -> list[Asked]:
        said = [asked for asked, until in self.said if self.clock.now < until]
        return [asked for asked in said if asked.is_of(doing, tool, arguments)]

    def _use_one(self, doing: Doing, tool: str, arguments: Arguments) -> None:
        open_ = {id_: stand for id_, stand in self.stands.items() if id_ not in self.revoked}
        self.used.append([id_ for id_, stand in open_.items() if self._covers(stand, doing, tool, arguments)])
        self.witness.told["a rule that stands"] += 1
        if not _are_enough(self.used, {id_: stand.uses for id_, stand in self.stands.items()}):
            self.witness.leaks.append(f"tool:{tool} was told {arguments} for {doing.who.id}, and nobody said yes")

    def _covers(self, stand: Stand, doing: Doing, tool: str, arguments: Arguments) -> bool:
        return (
            stand.tool == tool
            and stand.by.tenant == doing.who.tenant
            and stand.run in ("", doing.run)
            and self.clock.now < stand.until
            and self.witness.holds(doing.who, stand.who)
            and stand.admits(arguments["text"])
            and self.witness.sources_of(doing.who, words_in(arguments)) <= stand.sources
        )


def _are_enough(used: list[list[str]], uses: Mapping[str, int]) -> bool:
    """Whether each use can be put down to one of the rules that covered it, none more often than it says."""
    seats = {(id_, seat): None for id_, many in uses.items() for seat in range(min(many, len(used)))}
    taken: dict[tuple[str, int], int] = {}

    def sits(use: int, tried: set[tuple[str, int]]) -> bool:
        for seat in seats:
            if seat[0] in used[use] and seat not in tried:
                tried.add(seat)
                if seat not in taken or sits(taken[seat], tried):
                    taken[seat] = use
                    return True
        return False

    return all(sits(use, set()) for use in range(len(used)))
