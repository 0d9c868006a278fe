"""The gate in front of the tools: decides about every call, and sees to it that none runs twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import cast

from ringwall.deployment.asking import Asking, is_endorsed, is_lifted, is_open, named_receivers
from ringwall.deployment.base import Decision, Verdict
from ringwall.deployment.disclosure import disclosures, note_disclosures
from ringwall.deployment.gates import caused_by
from ringwall.deployment.origins import CONDITION, PlanRecord, contains_value, says
from ringwall.deployment.questions import Objection
from ringwall.deployment.results import result_label, result_of
from ringwall.deployment.runlog import CallPhase, CallState, RunLog
from ringwall.errors import BadReply, Unavailable
from ringwall.interface.base import CallContext, CallStatus, Effect, PreparedCall, Tool, ToolOutcome, ToolRunner
from ringwall.label import BOTTOM, Label, Source, join
from ringwall.principal import Principal
from ringwall.schema import JSON, dumps


class GatedTools(ToolRunner):
    """Decides about every call, and journals it before and after: what was done is known, and done once.

    `asked -> approved -> started -> finished`; refused calls and calls in doubt end there. A call that is already in
    the journal is never done again: its result is read back, or it is completed under the same key if the tool is
    idempotent, or it is put before a human.
    """

    def __init__(self, inner: ToolRunner, log: RunLog) -> None:
        self._inner, self._log = inner, log

    @cached_property
    def _asking(self) -> Asking:
        return Asking(self._log)

    def tools(self) -> Sequence[Tool]:
        return self._inner.tools()

    async def execute(self, prepared: PreparedCall, context: CallContext) -> ToolOutcome:
        state = self._log.calls.get(prepared.call.id)
        match state.phase if state else None:
            case CallPhase.FINISHED if state and state.outcome:
                self._log.saw(state.outcome.label)
                return state.outcome
            case CallPhase.STARTED | CallPhase.IN_DOUBT if _repeatable(prepared.tool):
                if self._log.planned is not None:
                    self._is_planned(prepared, self._log.planned)
                return await self._perform(prepared, context, self._label(prepared))
            case CallPhase.STARTED:
                return await self._in_doubt(prepared, "it was started, and no result is known")
            case CallPhase.IN_DOUBT:
                return _waiting(prepared.tool)
        return await self._decide(prepared, context, state)

    async def _decide(self, prepared: PreparedCall, context: CallContext, state: CallState | None) -> ToolOutcome:
        record = self._log.planned
        if record is not None and (unplanned := await self._unplanned(prepared, record)):
            return await self._refuse(prepared, self._shown(prepared), unplanned, "plan")
        label = self._label(prepared)
        objections = await self._flow_objections(prepared, label)
        told = await disclosures(self._log, objections, self._chosen_by(prepared, label)) if objections else []
        if told:
            lifted = {each.objection for each in told}
            objections = [each for each in objections if each not in lifted]
        if state is not None and (no := self._asking.refusal(state)):
            return await self._refuse(prepared, label, no, "approval")
        resource = f"tool:{prepared.tool.name}"
        if objections and not is_lifted(objections, prepared, label, state):
            may_ask = await self._asking.may_declassify(label, resource)
            if may_ask is None:
                return await self._refuse(prepared, label, _objection(objections), "flow")
            return await self._ask(prepared, context, label, may_ask, state, objections)
        decision = await caused_by(self._log, label.influence, "call", resource)
        if decision.verdict is Verdict.ASK and not is_endorsed(prepared, label, state):
            let = await self._asking.let_stand(prepared, label, decision)
            if let is None:
                return await self._ask(prepared, context, label, decision, state)
            decision = let
        if decision.verdict is Verdict.DENY:
            return await self._refuse(prepared, label, decision.reason, decision.rule)
        if told:
            note_disclosures(self._log, prepared.call.id, told)
        return await self._perform(prepared, context, label, decision=decision)

    async def _unplanned(self, prepared: PreparedCall, record: PlanRecord) -> str:
        """Why the plan does not name a call; empty if it does.

        What must be read to know is read at the desk, so that an agent does what the plan means, not what it read.
        """
        why = "the plan made from the user's words does not name this call"
        if conditions := record.conditions(prepared.tool.name):
            why += f"; it names {prepared.tool.name} when {conditions}"
        for reading in record.unread(prepared):
            try:
                await self._log.read(reading)
            except (Unavailable, BadReply) as error:
                why = f"the plan has this call, but {error}"
        if self._is_planned(prepared, record):
            return ""
        meant = record.meant(prepared, self._log.question.label)
        return f"{why}; it has: {dumps(meant)}" if meant else why

    def _is_planned(self, prepared: PreparedCall, record: PlanRecord) -> bool:
        """Whether the plan names the call, as it was before guards rewrote its arguments."""
        words, shown = self._log.question.label, self._shown(prepared)
        arguments, suspects = self._log.guarded.get(prepared.call.id, (prepared.call.arguments, BOTTOM))
        asked = replace(prepared, call=replace(prepared.call, arguments=arguments))
        causes = record.causes(asked, words, shown, free=self._is_free, says=self._says)
        if causes is not None and suspects != BOTTOM:
            causes = causes.suspected(suspects)
        if causes is not None and record.assign(causes, prepared.call.id):
            self._log.note("plan.called", {"key": causes.key, "call": prepared.call.id})
        return causes is not None

    def _is_free(self, call: str) -> bool:
        state = self._log.calls.get(call)
        if state is None or state.outcome is None:
            return state is None
        return state.outcome.status is CallStatus.REFUSED

    def _says(self, value: JSON) -> bool:
        return says(value, partial(contains_value, self._log.question.value))

    def _shown(self, prepared: PreparedCall) -> Label:
        """All that the model had been shown when it asked for the call."""
        log = self._log
        return log.proposals.get((prepared.call.tool, prepared.call.arguments), log.floor) | log.question.label

    def _chosen_by(self, prepared: PreparedCall, label: Label) -> Label:
        """What could have chosen the recipients."""
        causes = None if self._log.planned is None else self._log.planned.known.get(prepared.call.id)
        return label if causes is None else causes.recipients

    def _label(self, prepared: PreparedCall) -> Label:
        """What the call could have been made from: all that the model had been shown when it asked for it.

        With a plan it is what the plan's origins carry.

        Within the intent (the tools that the user's own action calls for) the user causes the call, an argument
        found word for word in the question carries the question's label, and one that is mere content (none of
        the tool's control arguments) tells what it was made from but causes nothing.
        """
        log = self._log
        if log.planned is not None and (causes := log.planned.known.get(prepared.call.id)) is not None:
            return causes.label
        words = log.question.label
        shown = self._shown(prepared)
        if log.intent is None or prepared.tool.name not in log.intent:
            return shown
        content = Label(shown.secrecy)
        control = prepared.tool.control_arguments
        others = [name for name, value in prepared.arguments.items() if not self._in_question(name, value, control)]
        return join([words, *[shown if name in control else content for name in others]])

    def _in_question(self, name: str, value: JSON, control: frozenset[str]) -> bool:
        if name in control:
            return self._says(value)
        return isinstance(value, str | int | float) and contains_value(self._log.question.value, str(value))

    async def _flow_objections(self, prepared: PreparedCall, label: Label) -> list[Objection]:
        """Who of the recipients named in the call, or else the tool itself, may not receive its arguments."""
        tenant = self._log.principal.tenant
        receivers = [Principal(f"to:{name}", tenant) for name in named_receivers(prepared)] or [
            Principal(f"tool:{prepared.tool.name}", tenant)
        ]
        objections: list[Objection] = []
        for receiver in receivers:
            grants = await self._log.policy.grants(receiver)
            for acl in label.secrecy:
                if acl.isdisjoint(grants):
                    objections.append(Objection(receiver.id, acl))  # noqa: PERF401 (a comprehension is a call more)
        return objections

    async def _perform(
        self, prepared: PreparedCall, context: CallContext, label: Label, *, decision: Decision | None = None
    ) -> ToolOutcome:
        tool, call = prepared.tool, prepared.call
        if decision is not None:
            rule: dict[str, JSON] = {"rule": decision.rule, "reason": decision.reason}
            floor = self._log.floor  # compared part by part, which saves a call
            if label.influence != floor.influence or label.secrecy != floor.secrecy:
                rule["carried"] = cast(JSON, label.to_json())
            if tool.recipients:
                rule["receivers"] = [*named_receivers(prepared)]
            described: dict[str, JSON] = {"call": call.id, "tool": call.tool, "arguments": call.arguments}
            self._log.note("call.started", {**described, **rule})
            self._log.calls[call.id] = CallState(call, CallPhase.STARTED, label)
            if tool.effect is not Effect.READ:
                await self._log.flush(durable=True)
        outcome = await self._inner.execute(prepared, context)
        if outcome.status is CallStatus.TIMED_OUT and tool.effect is not Effect.READ:
            return await self._in_doubt(prepared, outcome.text)
        if outcome.status is CallStatus.DONE and (tool.fields or self._log.planned is not None):
            return await self._finish_by_fields(prepared, outcome, label)
        return await self._finish(
            prepared, ToolOutcome(outcome.status, outcome.text, result_label(tool, self._log.principal, label))
        )

    async def _finish_by_fields(self, prepared: PreparedCall, outcome: ToolOutcome, label: Label) -> ToolOutcome:
        """Label a result by its fields; one of the plan's is kept for it."""
        record, kept = self._log.planned, None
        causes = None if record is None else record.known.get(prepared.call.id)
        choice = label if causes is None or causes.choice is None else causes.choice
        result = result_of(prepared.tool, outcome.text, choice, result_label(prepared.tool, self._log.principal, label))
        if record is not None and causes is not None and causes.step:
            kept = record.finish(causes.step, result)
        return await self._finish(prepared, ToolOutcome(outcome.status, outcome.text, result.whole), kept)

    async def _finish(
        self, prepared: PreparedCall, outcome: ToolOutcome, kept: Mapping[str, JSON] | None = None
    ) -> ToolOutcome:
        call, told = prepared.call, _concluded(prepared.call.id, outcome)
        self._log.note("call.finished", {**told, **kept} if kept else told, label=outcome.label)
        self._log.calls[call.id] = CallState(call, CallPhase.FINISHED, outcome=outcome)
        await self._log.flush(durable=prepared.tool.effect is not Effect.READ)
        return outcome

    async def _refuse(self, prepared: PreparedCall, label: Label, reason: str, rule: str) -> ToolOutcome:
        tool, call = prepared.tool.name, prepared.call
        outcome = ToolOutcome(CallStatus.REFUSED, f"{tool} was refused: {reason}", self._log.floor)
        because: dict[str, JSON] = {"rule": rule}
        if label != self._log.floor:  # where it carried less than the run had seen: to be asked again
            because["carried"] = cast(JSON, label.to_json())
        self._log.note("call.refused", {**_described(prepared), **_concluded(call.id, outcome), **because})
        self._log.calls[call.id] = CallState(call, CallPhase.FINISHED, outcome=outcome)
        return outcome

    async def _ask(
        self,
        prepared: PreparedCall,
        context: CallContext,
        label: Label,
        decision: Decision,
        state: CallState | None,
        objections: Sequence[Objection] = (),
    ) -> ToolOutcome:
        if not is_open(prepared, label, state, objections):
            influences = {name: self._argument_label(prepared, name).influence for name in prepared.arguments}
            influences |= self._condition_influence(prepared)
            shown = result_label(prepared.tool, self._log.principal, label)
            await self._asking.ask(prepared, context, label, decision, influences, objections, shown)
        return _waiting(prepared.tool)

    def _argument_label(self, prepared: PreparedCall, name: str) -> Label:
        """What one argument could have been made from: the question's words, or all that the model was shown."""
        causes = None if self._log.planned is None else self._log.planned.known.get(prepared.call.id)
        if causes is not None and name in causes.arguments:
            return causes.arguments[name]
        if self._in_question(name, prepared.arguments[name], prepared.tool.control_arguments):
            return self._log.question.label
        return self._shown(prepared)

    def _condition_influence(self, prepared: PreparedCall) -> dict[str, frozenset[Source]]:
        """What decided that the call is made at all, if its plan has a condition."""
        causes = None if self._log.planned is None else self._log.planned.known.get(prepared.call.id)
        found = None if causes is None else causes.arguments.get(CONDITION)
        return {} if found is None else {CONDITION: found.influence}

    async def _in_doubt(self, prepared: PreparedCall, reason: str) -> ToolOutcome:
        call = prepared.call
        self._log.note("call.in_doubt", {"call": call.id, "reason": reason})
        self._log.calls[call.id] = CallState(call, CallPhase.IN_DOUBT, reason=reason)
        await self._log.flush(durable=True)
        return _waiting(prepared.tool)


def _repeatable(tool: Tool) -> bool:
    """Whether doing the very same call again does no harm."""
    return tool.effect is Effect.READ or tool.idempotent


def _objection(objections: Sequence[Objection]) -> str:
    receiver, acl = objections[0]
    return f"the arguments could tell {receiver} what is for {' or '.join(sorted(acl))} alone"


def _waiting(tool: Tool) -> ToolOutcome:
    return ToolOutcome(CallStatus.WAITING, f"{tool.name} waits for a human")


def _described(prepared: PreparedCall) -> dict[str, JSON]:
    call = prepared.call
    described: dict[str, JSON] = {"call": call.id, "tool": call.tool, "arguments": call.arguments}
    if prepared.tool.recipients:
        described["receivers"] = [*named_receivers(prepared)]
    return described


def _concluded(call_id: str, outcome: ToolOutcome) -> dict[str, JSON]:
    return {
        "call": call_id,
        "status": str(outcome.status),
        "text": outcome.text,
        "label": cast(JSON, outcome.label.to_json()),
    }
