"""What one run is under, has done and has seen: the gates' common memory, and the pen that writes the journal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, cast

from ringwall.deployment.base import Policy
from ringwall.deployment.journal import Draft, Event, Head, Journal, RunRecord, RunStatus, Worker
from ringwall.deployment.origins import PlanRecord
from ringwall.deployment.questions import NEVER, Objection, Question, is_settled, next_question
from ringwall.deployment.standing import StandingRules
from ringwall.errors import InvalidInput, JournalConflict, RunCancelled, Unavailable
from ringwall.interface.base import CallStatus, ToolCall, ToolOutcome
from ringwall.interface.origin import Read
from ringwall.interface.plan import TaskPlan
from ringwall.label import BOTTOM, Label, Labelled, Source, join
from ringwall.principal import Principal
from ringwall.schema import JSON, dumps

Watch = Callable[[str, str, int, Sequence[Draft]], Awaitable[None]]
"""Is told what the journal took: the run, its tenant, the number of the first event, and the events. Never raises."""


class CallPhase(StrEnum):
    """How far a tool call got, as the journal tells it."""

    ASKED = "asked"
    APPROVED = "approved"
    DECLINED = "declined"
    STARTED = "started"
    DECLASSIFIED = "declassified"
    IN_DOUBT = "in_doubt"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class CallState:
    """A call with its phase; `label` is what it carried when somebody was asked, `reason` and `rule` why.

    `by` is the id of whoever answered; empty when nobody did in time. `question` is the last that was asked about it,
    `lifted` the secrecy objections that were declassified, until then. `outcome` is there once the call is finished.
    """

    call: ToolCall
    phase: CallPhase
    label: Label = BOTTOM
    reason: str = ""
    rule: str = ""
    by: str = ""
    outcome: ToolOutcome | None = None
    question: Question | None = None
    lifted: frozenset[Objection] = frozenset()
    lifted_until: float = NEVER


async def _nobody_reads(reading: Read) -> None:
    raise Unavailable(f"nobody is there to read {reading.ask!r}")


class RunLog:
    """One run's part of the journal, its policy, its calls, and its floor: the label of all that the gates let it see.

    `proposals` holds, by tool and arguments, what each call that a model asked for could have been made from: the
    floor at that moment. A call asked for before anything was read stays the user's own, whatever is read later.
    `guarded` holds, by call, the arguments before guards rewrote them, and what these suspect.
    `planned` holds the run's plan, once there is one, and `read` has something read that it says must be read.

    Events collect here until `flush`; what must not be lost is flushed before what depends on it happens.
    `before_flush` is called first, to note what else should go along.
    """

    __slots__ = (
        "_cut_off", "_drafts", "_head", "_journal", "_labels", "_watch", "before_flush", "calls", "clock", "floor",
        "guarded", "intent", "planned", "policy", "principal", "proposals", "question", "read", "run",
        "standing",
    )  # fmt: skip

    def __init__(
        self,
        journal: Journal,
        policy: Policy,
        run: str,
        principal: Principal,
        question: Labelled[str],
        *,
        intent: frozenset[str] | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.policy, self.run, self.principal = policy, run, principal
        self.question, self.intent = question, intent
        self.floor = question.label
        self.calls: dict[str, CallState] = {}
        self.proposals: dict[tuple[str, str], Label] = {}
        self.guarded: dict[str, tuple[str, Label]] = {}
        self.planned: PlanRecord | None = None
        self.read: Callable[[Read], Awaitable[None]] = _nobody_reads
        self.before_flush: Callable[[], None] | None = None
        self.clock: Callable[[], float] = time.time
        self.standing: StandingRules | None = None
        self._journal, self._watch = journal, watch
        self._head: Head | None = None
        self._drafts: list[Draft] = []
        self._labels: tuple[Label, str] = (BOTTOM, "")
        self._cut_off = False

    @classmethod
    def restore(
        cls,
        journal: Journal,
        policy: Policy,
        principal: Principal,
        question: Labelled[str],
        events: Sequence[Event],
        *,
        intent: frozenset[str] | None = None,
        watch: Watch | None = None,
    ) -> RunLog:
        """The log of a run that began earlier, perhaps in another process."""
        last = events[-1]
        log = cls(journal, policy, last.run, principal, question, intent=intent, watch=watch)
        log.floor = join(event_label(e) for e in events if e.kind != "call.previewed")
        log._head = Head(len(events), last.hash)
        log.calls = fold_calls(events)
        for event in events:
            if event.kind == "model.replied":
                label = event_label(event)
                for tool, arguments in event_body(event)["calls"]:
                    log.proposals[tool, arguments] = label
            elif event.kind == "plan.fixed":
                body = event_body(event)
                log.planned = PlanRecord(TaskPlan.from_json(body["plan"]), by_code=body["by_code"])
            elif log.planned is not None:
                log.planned.read(event.kind, event_body(event))
        return log

    def has_all_of(self, record: RunRecord) -> bool:
        """Whether nothing was written to the run, as this record tells of it, that is not known here."""
        return self._head == Head(record.length, record.head)

    def note(self, kind: str, body: Mapping[str, JSON], *, label: Label | None = None) -> None:
        """Write down what happened. Its label is the floor, or more: an event reveals what the run has seen."""
        if label is not None:
            self.floor = self.floor | label
        self._drafts.append(Draft(kind, dumps(body), self._label_text(), time.time()))

    def note_apart(self, kind: str, body: Mapping[str, JSON], label: Label) -> None:
        """Write down what reveals more than the run has seen so far; the floor stays where it is."""
        self._drafts.append(Draft(kind, dumps(body), dumps((self.floor | label).to_json()), time.time()))

    def note_call(self, phase: str, body: Mapping[str, JSON], *, apart: Label | None = None) -> CallState:
        """Write down what became of a call, and return how it stands now.

        `apart` is the label of what people are told and the run itself never sees: it does not raise the floor.
        """
        kind, state = f"call.{phase}", self.calls.get(str(body["call"]))
        if apart is None:
            self.note(kind, body)
        else:
            self.note_apart(kind, body, apart)
        self.calls[str(body["call"])] = state = _next_state(state, kind, self.clock(), body)
        return state

    def saw(self, label: Label) -> None:
        """Raise the floor: from here on everything the run says could be made from a value with this label."""
        self.floor = self.floor | label

    @property
    def causes(self) -> frozenset[Source]:
        """All that could have caused what the run does next: its principal, and what it has read."""
        return self.floor.influence | {self.principal.id}

    def settle(self) -> None:
        """Note for the last time what else should go along, so that it stands before a run's last event."""
        last, self.before_flush = self.before_flush, None
        if last is not None:
            last()

    async def flush(
        self, *, status: RunStatus | None = None, durable: bool = False, worker: Worker | None = None
    ) -> None:
        """Put what was noted into the journal; with a `worker`, the run is its from here on.

        Raises `JournalUnavailable`, `JournalConflict`: `RunHeld` if another worker lives, `RunCancelled` if somebody
        cancelled the run meanwhile; what happened before is then in the journal, and what was about to is not.
        """
        if self.before_flush is not None:
            self.before_flush()
        try:
            if self._cut_off:
                await self._catch_up()
            if not self._drafts and status is None:
                return
            drafts = tuple(self._drafts)
            if self._head is None:
                begun = status or RunStatus.RUNNING
                owner = self.principal.own_grant
                self._head = await self._journal.start(
                    self.run, owner, drafts, status=begun, durable=durable, worker=worker
                )
            else:
                self._head = await self._journal.append(
                    self.run, drafts, self._head, status=status, durable=durable, worker=worker
                )
        except asyncio.CancelledError:
            self._cut_off = True
            raise
        except JournalConflict:
            await self._look_whether_stopped()
            raise
        del self._drafts[: len(drafts)]  # only now: a journal that failed has taken none of them
        if self._watch is not None:
            await self._watch(self.run, self.principal.tenant, self._head.length - len(drafts), drafts)

    async def _catch_up(self) -> None:
        """After a flush that was cancelled: see whether the journal took what it was given.

        Another write comes after what was under way, and shows by its refusal that that was taken.
        """
        drafts, first = tuple(self._drafts), self._head.length if self._head else 0
        if self._head is None:
            with contextlib.suppress(JournalConflict):
                self._head = await self._journal.start(self.run, self.principal.own_grant, drafts)
                del self._drafts[: len(drafts)]
        else:
            with contextlib.suppress(JournalConflict):
                await self._journal.append(self.run, (), self._head)
        events = (await self._journal.read(self.run))[self._head.length if self._head else 0 :]
        for event, draft in zip(events, tuple(self._drafts), strict=False):
            if (event.kind, event.body, event.at) != (draft.kind, draft.body, draft.at):
                raise JournalConflict(f"another process went on with run {self.run!r}")
            del self._drafts[0]
            self._head = Head(event.seq + 1, event.hash)
        self._cut_off = False
        if self._watch is not None:
            await self._watch(self.run, self.principal.tenant, first, drafts[: len(drafts) - len(self._drafts)])

    async def _look_whether_stopped(self) -> None:
        """After a refusal: if somebody stopped the run, write down what happened, and raise `RunCancelled`."""
        if self._head is None:
            return
        came = (await self._journal.read(self.run))[self._head.length :]
        if not came or any(event.kind != "run.stopping" for event in came):
            return
        happened = _without_the_unbegun(self._drafts)
        first = came[-1].seq + 1
        self._head = await self._journal.append(self.run, happened, Head(first, came[-1].hash))
        self._drafts.clear()
        self._cut_off = False
        if self._watch is not None:
            await self._watch(self.run, self.principal.tenant, first, happened)
        raise RunCancelled(self.run)

    def _label_text(self) -> str:
        label, text = self._labels
        if label is not self.floor:
            text = dumps(self.floor.to_json())
            self._labels = (self.floor, text)
        return text


def _without_the_unbegun(drafts: Sequence[Draft]) -> list[Draft]:
    """The drafts without the calls that were about to start: a call starts once that is in the journal."""
    calls = [json.loads(draft.body)["call"] if draft.kind.startswith("call.") else None for draft in drafts]
    return [
        draft
        for place, (draft, call) in enumerate(zip(drafts, calls, strict=True))
        if draft.kind != "call.started" or call in calls[place + 1 :]
    ]


def event_label(event: Event | Draft) -> Label:
    """The label of what an event tells."""
    return Label.from_json(json.loads(event.label)) if event.label else BOTTOM


def event_body(event: Event) -> dict[str, Any]:
    """What an event tells, as JSON."""
    return cast("dict[str, Any]", json.loads(event.body))


def fold_calls(events: Sequence[Event]) -> dict[str, CallState]:
    """Where each tool call of a run stands after `events`."""
    calls: dict[str, CallState] = {}
    for event in events:
        if event.kind.startswith("call."):
            body = event_body(event)
            calls[body["call"]] = _next_state(calls.get(body["call"]), event.kind, event.at, body)
    return calls


def _next_state(state: CallState | None, kind: str, at: float, body: Mapping[str, Any]) -> CallState:
    phase = kind.removeprefix("call.")
    if state is None or phase == "asked":
        state = _begun(state, body)
    question = next_question(state.question, phase, body, at)
    match phase:
        case "asked":
            why = {"reason": body["reason"], "rule": body["rule"]}
            return replace(state, phase=CallPhase.ASKED, question=question, **why)
        case "approved" | "declassified" if not is_settled(question, body):
            return replace(state, question=question)
        case "declassified":
            return _lifted(replace(state, phase=CallPhase.DECLASSIFIED, by=body["by"], question=question))
        case "approved" | "declined":
            return replace(state, phase=CallPhase(phase), by=body["by"], question=question)
        case "expired":
            return replace(state, phase=CallPhase.DECLINED, by="")
        case "previewed":
            return replace(state, question=question)
        case "started":
            return replace(state, phase=CallPhase.STARTED)
        case "in_doubt":
            return replace(state, phase=CallPhase.IN_DOUBT, reason=body["reason"])
        case "finished" | "refused":
            outcome = ToolOutcome(CallStatus(body["status"]), body["text"], Label.from_json(body["label"]))
            return replace(state, phase=CallPhase.FINISHED, outcome=outcome, by=body.get("by", state.by))
    raise InvalidInput(f"unknown event {kind!r} in a run", hint="use the version that wrote it")


def _begun(state: CallState | None, body: Mapping[str, Any]) -> CallState:
    """A call that is told of anew: what was declassified stays so for exactly the same arguments and label."""
    call = ToolCall(body["call"], body["tool"], body["arguments"])
    label = Label.from_json(body["label"]) if "reason" in body and "label" in body else BOTTOM
    same = state is not None and state.call.digest == call.digest and state.label == label
    if state is None or not same:
        return CallState(call, CallPhase.STARTED, label)
    return CallState(call, CallPhase.STARTED, label, lifted=state.lifted, lifted_until=state.lifted_until)


def _lifted(state: CallState) -> CallState:
    if state.question is None:
        return state
    until = min(state.lifted_until, state.question.expires)
    return replace(state, lifted=state.lifted | state.question.objections, lifted_until=until)
