"""The gate in front of the tools: decides about every call, and sees to it that none runs twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from typing import cast

from ringwall.deployment.asking import Asking, is_endorsed, is_lifted, is_open, named_receivers
from ringwall.deployment.base import Decision, Verdict
from ringwall.deployment.gates import caused_by
from ringwall.deployment.questions import Objection
from ringwall.deployment.runlog import CallPhase, CallState, RunLog
from ringwall.interface.base import CallContext, CallStatus, Effect, PreparedCall, Tool, ToolOutcome, ToolRunner
from ringwall.label import Label, join
from ringwall.principal import ACL, Principal
from ringwall.schema import JSON


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
                return await self._perform(prepared, context, self._label(prepared))
            case CallPhase.STARTED:
                return await self._in_doubt(prepared, "it was started, and no result is known")
            case CallPhase.IN_DOUBT:
                return _waiting(prepared.tool)
        return await self._decide(prepared, context, state)

    async def _decide(self, prepared: PreparedCall, context: CallContext, state: CallState | None) -> ToolOutcome:
        label = self._label(prepared)
        objections = await self._flow_objections(prepared, label)
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
        return await self._perform(prepared, context, label, decision=decision)

    def _label(self, prepared: PreparedCall) -> Label:
        """What the call could have been made from: all that the model had been shown when it asked for it.

        Within the intent (the tools that the user's own action calls for) the user causes the call, an argument
        found word for word in the question carries the question's label, and one that is mere content (none of
        the tool's control arguments) tells what it was made from but causes nothing.
        """
        log = self._log
        words = log.question.label
        shown = log.proposals.get((prepared.call.tool, prepared.call.arguments), log.floor) | words
        if log.intent is None or prepared.tool.name not in log.intent:
            return shown
        content = Label(shown.secrecy)
        control = prepared.tool.control_arguments
        others = [name for name, value in prepared.arguments.items() if not self._in_question(value)]
        return join([words, *[shown if name in control else content for name in others]])

    def _in_question(self, value: JSON) -> bool:
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
        return await self._finish(prepared, ToolOutcome(outcome.status, outcome.text, self._result_label(tool, label)))

    def _result_label(self, tool: Tool, label: Label) -> Label:
        own = Label.of(ACL((self._log.principal.own_grant,)), f"tool:{tool.name}")
        return label | (own if tool.label is None else tool.label)

    async def _finish(self, prepared: PreparedCall, outcome: ToolOutcome) -> ToolOutcome:
        call = prepared.call
        self._log.note("call.finished", _concluded(call.id, outcome), label=outcome.label)
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
            shown = self._result_label(prepared.tool, label)
            await self._asking.ask(prepared, context, label, decision, influences, objections, shown)
        return _waiting(prepared.tool)

    def _argument_label(self, prepared: PreparedCall, name: str) -> Label:
        """What one argument could have been made from: the question's words, or all that the model was shown."""
        log, words = self._log, self._log.question.label
        if self._in_question(prepared.arguments[name]):
            return words
        return log.proposals.get((prepared.call.tool, prepared.call.arguments), log.floor) | words

    async def _in_doubt(self, prepared: PreparedCall, reason: str) -> ToolOutcome:
        call = prepared.call
        self._log.note("call.in_doubt", {"call": call.id, "reason": reason})
        self._log.calls[call.id] = CallState(call, CallPhase.IN_DOUBT, reason=reason)
        await self._log.flush(durable=True)
        return _waiting(prepared.tool)


def contains_value(text: str, value: str) -> bool:
    """Whether `value` stands in `text` word for word: not as a part of a longer word or number."""
    return bool(value) and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


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
