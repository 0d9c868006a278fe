"""How a run that is not to go on ends: what was done is undone, latest first, and nothing is left unsaid.

An undo is a call like any other: the policy is asked, it is in the journal before and after, it is made once, and one
whose result is not known is put before a human.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from ringwall.deployment.base import Policy
from ringwall.deployment.journal import Event, RunStatus
from ringwall.deployment.questions import Objection
from ringwall.deployment.runlog import CallPhase, CallState, RunLog, event_body, event_label
from ringwall.deployment.toolgate import GatedTools
from ringwall.errors import ActionDenied
from ringwall.interface.base import CallContext, CallStatus, Effect, PreparedCall, Tool, ToolCall, ToolOutcome
from ringwall.interface.runner import LocalToolRunner
from ringwall.interface.undo import SUFFIX, undo_call, undoable
from ringwall.label import BOTTOM, Label
from ringwall.principal import Principal
from ringwall.schema import JSON, digest

_UNDO_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Stop:
    """That a run is not to go on: by whom, and whether it ends `CANCELLED` or `FAILED` (then with what error).

    `label` is that of all the run had seen by then.
    """

    by: str
    end: RunStatus
    why: str = ""
    error: str = ""
    label: Label = BOTTOM

    @property
    def event(self) -> tuple[str, dict[str, JSON]]:
        """The kind and the body of the event that says so."""
        return "run.stopping", {"by": self.by, "end": self.end.value, "why": self.why, "error": self.error}


def stop_of(events: Iterable[Event]) -> Stop | None:
    """Whether, and why, a run is not to go on: the first word counts."""
    for event in events:
        if event.kind == "run.stopping":
            body = event_body(event)
            return Stop(body["by"], RunStatus(body["end"]), body["why"], body["error"], event_label(event))
    return None


async def may_cancel(policy: Policy, app: str, owner: Principal, by: Principal) -> None:
    """Whoever asked may cancel, and whom the policy lets `cancel app:<name>` in the same tenant.

    Raises `ActionDenied` for the others.
    """
    if by.own_grant == owner.own_grant:
        return
    if by.tenant != owner.tenant:
        raise ActionDenied("a run is cancelled in its own tenant only")
    decision = await policy.decide(by, "cancel", f"app:{app}")
    if not decision:
        raise ActionDenied(f"{by.id} may not cancel runs of {app}: {decision.reason}", rule=decision.rule)


class Unwinding:
    """Ends one run; may be begun again wherever an earlier one stopped."""

    def __init__(self, log: RunLog, events: Sequence[Event], stop: Stop, tools: Sequence[Tool]) -> None:
        self._log, self._stop = log, stop
        self._tools = {tool.name: tool for tool in tools}
        self._undos = {undo.name: undo for undo in undoable(tools)}
        self._gate = _UndoGate(LocalToolRunner(list(self._undos.values())), log)
        self._started = _in_order_of_start(events)
        self._undone: list[JSON] = []
        self._kept: list[JSON] = []

    async def run(self) -> RunStatus:
        """Undo, and end the run; `WAITING` when a human must speak first."""
        log, stop = self._log, self._stop
        self._withdraw_questions()
        for call in reversed(self._started):
            waits_for = await self._take_back(log.calls[call])
            if waits_for:
                log.note("run.waiting", {"calls": [waits_for]})
                await log.flush(status=RunStatus.WAITING, durable=True)
                return RunStatus.WAITING
        done: dict[str, JSON] = {"undone": self._undone, "kept": self._kept}
        if stop.end is RunStatus.FAILED:
            log.note("run.failed", {"error": stop.error, "what": stop.why, **done})
        else:
            log.note("run.cancelled", {"by": stop.by, "why": stop.why, **done})
        await log.flush(status=stop.end, durable=True)
        return stop.end

    def _withdraw_questions(self) -> None:
        """What nobody has approved, or was not begun after all, will not be done."""
        for state in list(self._log.calls.values()):
            unbegun = state.phase not in (CallPhase.STARTED, CallPhase.IN_DOUBT, CallPhase.FINISHED)
            if unbegun and not state.call.id.endswith(SUFFIX):
                outcome = ToolOutcome(CallStatus.REFUSED, f"{state.call.tool} was not done: the run was stopped")
                self._conclude(state, "call.refused", outcome, {"rule": "stopped"})

    async def _take_back(self, state: CallState) -> str:
        """Undo one call. Returns the call that a human must speak about first; empty if none."""
        call = state.call
        if self._is_read(call):
            return ""
        if state.phase is CallPhase.STARTED:
            state = await self._settle(state)
        if state.phase is CallPhase.IN_DOUBT:
            return call.id
        if state.outcome is None or state.outcome.status is not CallStatus.DONE:
            return ""  # it did not happen
        if call.tool + SUFFIX not in self._undos:
            self._keep(call, "it offers no way to undo it")
            return ""
        return await self._undo(call, state.outcome)

    async def _settle(self, state: CallState) -> CallState:
        """A call whose result is not known: done again if that does no harm and it can be undone, else in doubt."""
        call, log = state.call, self._log
        tool = self._tools.get(call.tool)
        if tool is not None and tool.idempotent and tool.undoable:
            gate = GatedTools(LocalToolRunner([tool]), log)
            await gate.run(call, _context(log, call))
        else:
            reason = "the run was stopped while it was under way, and no result is known"
            log.note("call.in_doubt", {"call": call.id, "reason": reason})
            log.calls[call.id] = CallState(call, CallPhase.IN_DOUBT, reason=reason)
        return log.calls[call.id]

    async def _undo(self, call: ToolCall, outcome: ToolOutcome) -> str:
        log, undo = self._log, undo_call(call, outcome.text)
        causes = self._stop.label.influence if self._stop.end is RunStatus.FAILED else frozenset[str]()
        log.proposals[undo.tool, undo.arguments] = Label(outcome.label.secrecy, causes)
        undone = await self._gate.run(undo, _context(log, undo))
        if undone.status is CallStatus.WAITING:
            return undo.id
        if undone.status is CallStatus.DONE:
            self._undone.append(call.id)
        else:
            self._keep(call, undone.text)
        return ""

    def _is_read(self, call: ToolCall) -> bool:
        tool = self._tools.get(call.tool)
        return tool is not None and tool.effect is Effect.READ

    def _keep(self, call: ToolCall, why: str) -> None:
        self._kept.append({"call": call.id, "tool": call.tool, "why": why})

    def _conclude(self, state: CallState, kind: str, outcome: ToolOutcome, more: dict[str, JSON]) -> None:
        call, log = state.call, self._log
        body: dict[str, JSON] = {"call": call.id, "tool": call.tool, "arguments": call.arguments, **more}
        told: dict[str, JSON] = {"status": str(outcome.status), "text": outcome.text}
        log.note(kind, {**body, **told, "label": cast(JSON, outcome.label.to_json())})
        log.calls[call.id] = CallState(call, CallPhase.FINISHED, outcome=outcome)


class _UndoGate(GatedTools):
    """Asks who may cause an undo, not who may receive it: what a tool was given and gave goes back to that tool."""

    async def _flow_objections(self, prepared: PreparedCall, label: Label) -> list[Objection]:
        return []


def has_effects(log: RunLog, tools: Sequence[Tool]) -> bool:
    """Whether a run that stops here leaves something to undo, or to ask about."""
    known = {tool.name: tool for tool in tools}
    for state in log.calls.values():
        tool = known.get(state.call.tool)
        if tool is None or tool.effect is Effect.READ:
            continue
        done = state.outcome is not None and state.outcome.status is CallStatus.DONE
        if state.phase in (CallPhase.STARTED, CallPhase.IN_DOUBT) or (done and tool.undoable):
            return True
    return False


def _in_order_of_start(events: Iterable[Event]) -> list[str]:
    calls: dict[str, None] = {}
    for event in events:
        if event.kind == "call.started":
            call = event_body(event)["call"]
            calls.pop(call, None)
            calls[call] = None
    return [call for call in calls if not call.endswith(SUFFIX)]


def _context(log: RunLog, call: ToolCall) -> CallContext:
    key = digest(f"{log.run}\n{call.id}\n{call.tool}\n{call.arguments}")
    return CallContext(log.run, call.id, log.principal.own_grant, key, _UNDO_SECONDS)


__all__ = ["Stop", "Unwinding", "has_effects", "may_cancel", "stop_of"]
