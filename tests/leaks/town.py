"""Who there is, and by what rules they live: two tenants, their people, and whoever receives texts on their behalf."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ringwall import Principal
from tests.leaks.world import APPROVER, AUDITOR, QUESTIONS

ANA, BEN, ZOE, YAN = (
    Principal("user:ana", "acme"),
    Principal("user:ben", "acme"),
    Principal("user:zoe", "zeta"),
    Principal("user:yan", "zeta"),
)
PEOPLE: Final = (ANA, BEN, ZOE, YAN)
TENANTS: Final = ("acme", "zeta")
CLUBS: Final = ("collection:red", "role:staff", "role:boss")
TOOLS: Final = ("post", "mail", "book", "peek", "look", "find")
RECEIVERS: Final = tuple(
    Principal(name, tenant)
    for tenant in TENANTS
    for name in ("model:far", "model:embedder", "to:bo", *(f"tool:{name}" for name in TOOLS))
)
SINKS: Final = tuple(
    Principal(name, tenant) for tenant in TENANTS for name in ("sink:receiver", "sink:otel", "sink:log")
)
ALWAYS: Final = {who: frozenset((QUESTIONS, APPROVER, AUDITOR)) for who in PEOPLE} | {
    who: frozenset((QUESTIONS,)) for who in (*RECEIVERS, *SINKS)
}
HOUR: Final = 3600.0
WITHIN: Final = {"call": 2 * HOUR, "flow": HOUR}
"""How long a question of either kind, and a yes to it, holds, in seconds: what the rules below say."""

RULES: Final = """
role boss includes staff
allow user:* ask app:*
allow user:* call tool:*
allow doc:*  call tool:*
allow tool:* call tool:*
ask   user:* call tool:book within 2h
ask   user:* declassify tool:mail within 1h
ask   doc:*  declassify tool:mail within 1h
ask   tool:* declassify tool:mail within 1h
ask   user:* declassify tool:book within 1h
ask   doc:*  declassify tool:book within 1h
ask   tool:* declassify tool:book within 1h
allow role:approver approve tool:*
allow role:auditor audit app:*
allow user:* erase subject:self
"""


@dataclass(frozen=True)
class Rights:
    """What somebody may decide besides approving: whose texts it may declassify, and whether its yes may stand.

    `lifts` are grants; `user:*` is every person's own. `tells` says that it may have anybody told what it may read.
    """

    lifts: frozenset[str] = frozenset()
    stands: bool = False
    tells: bool = False

    def may_lift(self, readers: Iterable[str]) -> bool:
        """Whether every one of these readers' lists may be opened by it."""
        return all(("user:*" if grant.startswith("user:") else grant) in self.lifts for grant in readers)


def lines_of(held: Mapping[Principal, Iterable[str]], rights: Mapping[Principal, Rights]) -> Iterator[str]:
    """The policy in which these hold that, and have those rights."""
    yield RULES
    for who, clubs in held.items():
        for club in sorted(clubs):
            yield f"{'member' if club.startswith('role:') else 'grant'} {who.id} {club} in {who.tenant}"
    for who, mine in rights.items():
        for grant in sorted(mine.lifts):
            yield f"allow {who.id} declassify {grant} in {who.tenant}"
        if mine.stands:
            yield f"allow {who.id} standing tool:* in {who.tenant}"
        if mine.tells:
            yield f"allow {who.id} declassify to:* in {who.tenant}"
