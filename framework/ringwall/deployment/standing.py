"""Standing rules: kept in the journal, obeyed by the next decision, used up, and revoked.

They stand in a run of their own, one event for each that was granted, used or revoked, so that every journal can
keep them, they are chained like all that happens, and of two who use the last one at once one is too late.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ringwall.deployment.base import Decision, Policy, Verdict
from ringwall.deployment.journal import Draft, Event, Head, Journal, RunStatus, check_run
from ringwall.deployment.limits import Case, StandingRule, mark
from ringwall.errors import ChainBroken, JournalConflict, NotWaiting, UnknownRun
from ringwall.label import BOTTOM, Label
from ringwall.principal import Grants, Principal
from ringwall.schema import JSON, digest, dumps

OWNER: Final = "ringwall:standing"
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def run_of(app: str) -> str:
    """The run in which an app's standing rules are kept."""
    return f"standing:{app}"


@dataclass(slots=True)
class Standing:
    """A standing rule with what became of it. `label` is that of the call it was made from, so of its line too.

    `uses` are the runs and calls it was used for; `revoked` is by whom, if by anybody.
    """

    id: str
    rule: StandingRule
    by: str
    run: str
    call: str
    label: Label
    note: str = ""
    revoked: str = ""
    uses: set[tuple[str, str]] = field(default_factory=set)

    def is_open(self, now: float, use: tuple[str, str] | None = None) -> bool:
        """Whether it may be used, for the first time or for the same call again."""
        left = len(self.uses) < self.rule.uses or use in self.uses
        return not self.revoked and now < self.rule.until and left


class StandingPolicy(Policy):
    """A policy in which one standing rule stands: what the inner one would ask about, by these rules, is allowed.

    The sources it speaks of are held against it one by one; what the inner policy denies stays denied.
    """

    def __init__(self, inner: Policy, standing: Standing, requester: Principal) -> None:
        self._inner, self._standing, self._requester = inner, standing, requester

    async def decide(
        self, principal: Principal, action: str, resource: str, context: Mapping[str, str] = _NOTHING
    ) -> Decision:
        decision = await self._inner.decide(principal, action, resource, context)
        if decision.verdict is Verdict.ASK and self._lets(principal, action, resource, decision):
            return Decision(Verdict.ALLOW, self._standing.rule.line, f"standing:{self._standing.id}")
        return decision

    def _lets(self, principal: Principal, action: str, resource: str, decision: Decision) -> bool:
        rule = self._standing.rule
        return (
            (action, resource) == ("call", f"tool:{rule.tool}")
            and principal.tenant == rule.tenant == self._requester.tenant
            and principal.id in rule.sources
            and mark(decision) in rule.asks
        )

    async def grants(self, principal: Principal) -> Grants:
        return await self._inner.grants(principal)

    @property
    def version(self) -> str:
        return f"{self._inner.version}/{self._standing.id}"


class StandingRules:
    """The standing rules of one app, read from its journal and written there. Any number of processes may."""

    def __init__(self, journal: Journal, app: str, *, clock: Callable[[], float] = time.time) -> None:
        self._journal, self._run, self._clock = journal, run_of(app), clock
        self._head: Head | None = None
        self._kept: dict[str, Standing] = {}

    async def all(self) -> list[Standing]:
        """All that were ever granted, first to last."""
        await self._read()
        return list(self._kept.values())

    async def covering(self, case: Case) -> list[Standing]:
        """Those that may be used for this case."""
        now = self._clock()
        return [each for each in await self.all() if each.is_open(now) and each.rule.covers(case)]

    async def grant(self, rule: StandingRule, *, by: str, run: str, call: str, label: Label, note: str = "") -> str:
        """Keep a rule, and return its id. Made again from the same question it is the same."""
        id_ = digest(f"{run}\n{call}\n{rule.line}")[:16]
        body: dict[str, JSON] = {"id": id_, "line": rule.line, "by": by, "run": run, "call": call, "note": note}
        await self._write("granted", body, label, lambda: id_ not in self._kept)
        return id_

    async def use(self, id_: str, run: str, call: str) -> bool:
        """Use a rule up for one call; False if it was used up, revoked or ran out meanwhile."""
        body: dict[str, JSON] = {"id": id_, "run": run, "call": call}
        use = (run, call)

        def is_new() -> bool:
            return self._kept[id_].is_open(self._clock()) and use not in self._kept[id_].uses

        await self._write("used", body, BOTTOM, is_new)
        return self._kept[id_].is_open(self._clock(), use) and use in self._kept[id_].uses

    async def revoke(self, id_: str, *, by: str, note: str = "") -> None:
        """Take a rule back; the next decision obeys. Raises `NotWaiting` if there is none that stands."""
        body: dict[str, JSON] = {"id": id_, "by": by, "note": note}
        await self._read()
        if id_ not in self._kept or not await self._write("revoked", body, BOTTOM, lambda: not self._kept[id_].revoked):
            raise NotWaiting(f"no standing rule {id_!r}", hint="see `app.standing(as_=...)`")

    async def _write(self, what: str, body: Mapping[str, JSON], label: Label, is_wanted: Callable[[], bool]) -> bool:
        """Append an event if it is wanted, as things stand when it is appended."""
        text = dumps(label.to_json())
        while True:
            await self._read()
            if not is_wanted():
                return False
            draft = Draft(f"standing.{what}", dumps(body), text, self._clock())
            try:
                if self._head is None:
                    await self._journal.start(self._run, OWNER, (draft,), status=RunStatus.DONE, durable=True)
                else:
                    await self._journal.append(self._run, (draft,), self._head, durable=True)
            except JournalConflict:
                continue  # somebody else wrote: look again
            await self._read()
            return True

    async def _read(self) -> None:
        try:
            record = await self._journal.record(self._run)
        except UnknownRun:
            return
        if record.owner != OWNER:
            raise ChainBroken(f"run {self._run!r} is somebody else's", run=self._run, seq=0, hint="keep that id free")
        if self._head == Head(record.length, record.head):
            return
        events = await self._journal.read(self._run)
        check_run(self._run, events)
        if self._head is None or self._head.length < len(events):  # another task may have read further
            self._head, self._kept = Head(len(events), events[-1].hash), _fold(events)


def _fold(events: Sequence[Event]) -> dict[str, Standing]:
    kept: dict[str, Standing] = {}
    for event in events:
        body = json.loads(event.body)
        match event.kind:
            case "standing.granted":
                label = Label.from_json(json.loads(event.label))
                rule = StandingRule.parse(body["line"])
                kept[body["id"]] = Standing(
                    body["id"], rule, body["by"], body["run"], body["call"], label, body["note"]
                )
            case "standing.used":
                kept[body["id"]].uses.add((body["run"], body["call"]))
            case "standing.revoked":
                kept[body["id"]].revoked = body["by"]
    return kept
