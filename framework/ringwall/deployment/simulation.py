"""What another policy would have decided of what is in a journal: each question is asked again, with what it was about.

Nothing is run. What a run would have gone on to do after another answer nobody can know; each decision is looked at as
if all before it had gone as they went.

Not in the journal, and so not looked at: questions of whoever was not let in, what a search would have found besides
(of it is told that it could have found more, and by which grants), and who may answer a question, whose roles are not
written down, and what an app's step said that it had seen beyond what the gates had let it see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, NamedTuple

from ringwall.deployment.base import Decision, Policy, Verdict
from ringwall.deployment.expectations import Asker
from ringwall.deployment.export import ExportedJournal
from ringwall.deployment.gates import caused_by
from ringwall.deployment.journal import Event, Inspection, Journal, RunRecord, check_run
from ringwall.deployment.reading import readable_events
from ringwall.deployment.runlog import event_body, event_label
from ringwall.errors import InvalidInput, UnknownRun
from ringwall.label import Label
from ringwall.principal import Principal


class Outcome(StrEnum):
    """How a question was, or would be, decided; of a search, what it could have found compared to what it found."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"
    AS_FOUND = "as found"
    LESS = "less"
    MORE = "more"
    OTHER = "less and more"


@dataclass(frozen=True, slots=True)
class Difference:
    """One decision that would be another: event `seq` of `run`.

    `kind` is `ask`, `search`, `memory`, `flow`, `call` or `answer`; `rule` and `reason` are the other policy's.
    """

    run: str
    seq: int
    kind: str
    who: str
    what: str
    was: Outcome
    now: Outcome
    rule: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Simulation:
    """What one reader may know of it: so many `decisions` in so many `runs` that it may see.

    `withheld` decisions are not told because their labels do not admit the reader; they were not asked again, since an
    answer about them could tell what is in them.
    """

    runs: int
    decisions: int
    withheld: int
    differences: tuple[Difference, ...]

    @property
    def counted(self) -> Mapping[tuple[str, Outcome, Outcome], int]:
        """How many differences there are of each kind, from what to what."""
        return Counter((each.kind, each.was, each.now) for each in self.differences)


async def simulate(
    journal: Journal | ExportedJournal,
    new: Policy,
    *,
    policy: Policy,
    as_: Principal,
    since: float = 0.0,
    until: float = float("inf"),
) -> Simulation:
    """Ask `new` what was asked in the runs that began from `since` to `until` (Unix time in seconds).

    `policy`, the one in force, says which runs `as_` may see, and what of them. Raises `ChainBroken`, and
    `InvalidInput` for events that this version does not read.
    """
    reading = _Reading(since, until)
    await journal.inspect(reading)
    runs = decisions = withheld = 0
    differences: list[Difference] = []
    for owner, events in reading.runs:
        try:
            readable = await readable_events(events, owner, policy, as_)
        except UnknownRun:
            continue
        runs += 1
        replay = _Replay(new, readable, reading.before)
        differences += [each async for each in replay.differences()]
        decisions, withheld = decisions + replay.decisions, withheld + replay.withheld
    return Simulation(runs, decisions, withheld, tuple(differences))


_KINDS: Final = frozenset(
    ("run.started", "data.searched", "data.read", "memory.recalled", "flow.allowed", "flow.denied", "run.finished")
) | {f"call.{phase}" for phase in ("asked", "approved", "declassified", "started", "refused")}


class _Reading(Inspection):
    """The events that tell of decisions, and the label of what came `before` each that tells of something found."""

    def __init__(self, since: float, until: float) -> None:
        self._since, self._until = since, until
        self.runs: list[tuple[str, list[Event]]] = []
        self.before: dict[tuple[str, int], str] = {}

    def run(self, record: RunRecord, events: Iterable[Event]) -> None:
        all_events = list(events)
        check_run(record.run, all_events)
        if self._since <= all_events[0].at <= self._until:
            self.runs.append((record.owner, [event for event in all_events if event.kind in _KINDS] or all_events[:1]))
            for before, event in pairwise(all_events):
                if event.kind in _FINDING:
                    self.before[event.run, event.seq] = before.label


_FINDING: Final = {"data.searched": "search", "data.read": "search", "memory.recalled": "memory"}


class _Asked(NamedTuple):
    """A decision of the journal, and what is decided now."""

    kind: str
    who: str
    what: str
    was: Outcome
    now: Outcome
    rule: str = ""
    reason: str = ""


class _Replay:
    """Asks again what was asked in one run."""

    def __init__(self, new: Policy, events: Sequence[Event], before: Mapping[tuple[str, int], str]) -> None:
        self._new, self._events, self._before = new, events, before
        self._answered: set[str] = set()
        self._lifted: set[str] = set()
        self.decisions = self.withheld = 0

    async def differences(self) -> AsyncIterator[Difference]:
        first = self._events[0]
        if not first.body:  # who asked is not told, so nothing can be asked again
            self.withheld += len(self._events)
            return
        try:
            self._first = event_body(first)
            self._who = _principal(self._first["principal"])
            for event in self._events:
                asked = await self._again(event)
                if asked and asked.was is not asked.now:
                    yield Difference(event.run, event.seq, *asked)
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput(
                f"an event of run {first.run!r} is not as this version writes it",
                hint="simulate it with the version that wrote it",
            ) from error

    async def _again(self, event: Event) -> _Asked | None:
        if not event.body:
            self.withheld += 1
            return None
        asked = await self._asked(event, event_body(event))
        self.decisions += asked is not None
        return asked

    async def _asked(self, event: Event, body: Mapping[str, Any]) -> _Asked | None:
        match event.kind:
            case "run.started":
                what = f"app:{body['app']}"
                decision = await self._new.decide(self._who, "ask", what)
                return _decided("ask", self._who, what, Outcome.ALLOW, decision)
            case kind if kind in _FINDING:
                return await self._found(event, _FINDING[kind])
            case "flow.allowed" | "flow.denied" | "run.finished" if not body.get("more"):
                return await self._flow(event, body)
            case "call.approved":
                self._answered.add(body["call"])
            case "call.declassified":
                self._lifted.add(body["call"])
            case "call.asked":
                return await self._call(event, body, Outcome.ASK, Label.from_json(body["label"]))
            case "call.started" if body["call"] not in self._answered:
                was = Outcome.ASK if body["rule"].startswith("standing:") else Outcome.ALLOW
                return await self._call(event, body, was)
            case "call.refused" if body["rule"] != "approval" and not body["rule"].startswith("guard:"):
                return await self._call(event, body, Outcome.DENY)
        return None

    async def _found(self, event: Event, kind: str) -> _Asked:
        """What was found raised the floor by the readers of what was found; what else there was is not known."""
        grants = await self._new.grants(self._who)
        before = self._before.get((event.run, event.seq), "")
        known = event_label(event._replace(label=before)).secrecy
        lost = [acl for acl in event_label(event).secrecy - known if not acl.admits(grants)]
        gained = sorted(grants - set(self._first["grants"]))
        now = {(False, False): Outcome.AS_FOUND, (True, False): Outcome.LESS, (False, True): Outcome.MORE}.get(
            (bool(lost), bool(gained)), Outcome.OTHER
        )
        missing = [f"what is for {' or '.join(sorted(acl))}" for acl in lost]
        reason = "; ".join((*(f"without {each}" for each in sorted(missing)), *(f"with {grant}" for grant in gained)))
        return _Asked(kind, self._who.id, event.kind, Outcome.AS_FOUND, now, reason=reason)

    async def _flow(self, event: Event, body: Mapping[str, Any]) -> _Asked:
        label = Label.from_json(body["label"]) if "label" in body else event_label(event)
        to_user = event.kind == "run.finished" or body["receiver"] == self._who.id
        receiver = (
            self._who
            if to_user
            else Principal(body["receiver"], body.get("tenant", ""), frozenset(body.get("roles", ())))
        )
        now = Outcome.ALLOW if label.may_flow_to(await self._new.grants(receiver)) else Outcome.DENY
        was = Outcome.DENY if event.kind == "flow.denied" else Outcome.ALLOW
        return _Asked("answer" if to_user else "flow", self._who.id, receiver.id, was, now)

    async def _call(self, event: Event, body: Mapping[str, Any], was: Outcome, label: Label | None = None) -> _Asked:
        if label is None:
            label = Label.from_json(body["carried"]) if "carried" in body else event_label(event)
        tool = f"tool:{body['tool']}"
        receivers = [f"to:{name}" for name in body.get("receivers", ())] or [tool]
        asker = Asker(self._new, self._who)
        for receiver in receivers:
            grants = await self._new.grants(Principal(receiver, self._who.tenant))
            if body["call"] not in self._lifted and not label.may_flow_to(grants):
                return _decided("call", self._who, tool, was, await _objected(asker, label, tool, receiver))
        decision = await caused_by(asker, label.influence, "call", tool)
        return _decided("call", self._who, tool, was, decision)


async def _objected(asker: Asker, label: Label, tool: str, receiver: str) -> Decision:
    """What becomes of a call that a receiver may not be told: people are asked if the policy lets them be."""
    right = await caused_by(asker, label.influence, "declassify", tool)
    call = await caused_by(asker, label.influence, "call", tool)
    if Verdict.DENY in (right.verdict, call.verdict):
        return Decision(Verdict.DENY, f"{receiver} may not be told its arguments", "flow")
    return Decision(Verdict.ASK, right.reason, right.rule)


def _decided(kind: str, who: Principal, what: str, was: Outcome, decision: Decision) -> _Asked:
    return _Asked(kind, who.id, what, was, Outcome(decision.verdict), decision.rule, decision.reason)


def _principal(value: Mapping[str, Any]) -> Principal:
    return Principal(value["id"], value["tenant"], frozenset(value["roles"]), value["attributes"])


__all__ = ["Difference", "Outcome", "Simulation", "simulate"]
