"""The gate in front of the tools: decides about every call, and sees to it that none runs twice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import cast

from ringwall.deployment.base import Decision, Verdict
from ringwall.deployment.disclosure import Disclosure, disclosures, note_disclosures
from ringwall.deployment.gates import caused_by
from ringwall.deployment.origins import Causes, PlanRecord, result_of, says
from ringwall.deployment.runlog import CallPhase, CallState, RunLog
from ringwall.interface.base import CallContext, CallStatus, Effect, PreparedCall, Tool, ToolOutcome, ToolRunner
from ringwall.label import BOTTOM, Label, join
from ringwall.principal import ACL
from ringwall.schema import JSON


class GatedTools(ToolRunner):
    """Decides about every call, and journals it before and after: what was done is known, and done once.

    `asked -> approved -> started -> finished`; refused calls and calls in doubt end there. A call that is already in
    the journal is never done again: its result is read back, or it is completed under the same key if the tool is
    idempotent, or it is put before a human.
    """

    def __init__(self, inner: ToolRunner, log: RunLog) -> None:
        self._inner, self._log = inner, log

    def tools(self) -> Sequence[Tool]:
        return self._inner.tools()

    async def execute(self, prepared: PreparedCall, context: CallContext) -> ToolOutcome:
        state = self._log.calls.get(prepared.call.id)
        match state.phase if state else None:
            case CallPhase.FINISHED if state and state.outcome:
                self._log.saw(state.outcome.label)
                return state.outcome
            case CallPhase.STARTED | CallPhase.IN_DOUBT if _repeatable(prepared.tool):
                return await self._perform(prepared, context, self._causes(prepared) or Causes(self._log.floor, BOTTOM))
            case CallPhase.STARTED:
                return await self._in_doubt(prepared, "it was started, and no result is known")
            case CallPhase.IN_DOUBT:
                return _waiting(prepared.tool)
        return await self._decide(prepared, context, state)

    async def _decide(self, prepared: PreparedCall, context: CallContext, state: CallState | None) -> ToolOutcome:
        record = self._log.planned
        if record is None:
            label = self._label(prepared)
            causes: Causes | None = Causes(label, label)
        else:
            causes = self._planned(prepared, record)
        if causes is None:
            return await self._refuse(prepared, "the plan made from the user's words does not name this call", "plan")
        told = await disclosures(self._log, prepared, causes)
        for each in told:
            if each.decision.verdict is Verdict.DENY:
                return await self._refuse(prepared, each.objection, "flow")
        if state and state.phase is CallPhase.DECLINED:
            return await self._refuse(prepared, f"{state.by} declined it", "approval")
        decision = await caused_by(self._log, causes.label.influence, "call", f"tool:{prepared.tool.name}")
        if decision.verdict is Verdict.DENY:
            return await self._refuse(prepared, decision.reason, decision.rule)
        asked = [each for each in told if each.decision.verdict is Verdict.ASK]
        if (asked or decision.verdict is Verdict.ASK) and not _endorsed(prepared, causes, asked, state):
            return await self._ask(prepared, causes, decision, asked, state)
        note_disclosures(self._log, prepared.call.id, told)
        return await self._perform(prepared, context, causes, decision=decision)

    def _causes(self, prepared: PreparedCall) -> Causes | None:
        """What could have made the call what it is; None if the run has a plan, and that names another."""
        record = self._log.planned
        if record is not None:
            return self._planned(prepared, record)
        label = self._label(prepared)
        return Causes(label, label)

    def _planned(self, prepared: PreparedCall, record: PlanRecord) -> Causes | None:
        """With a plan: what the plan's origins carry. Outside of it only looking is left, and that to the policy."""
        words, shown, tool = self._log.question.label, self._shown(prepared), prepared.tool
        causes = record.causes(prepared, words, shown, free=self._is_free, says=self._says)
        if causes is None and tool.effect is Effect.READ and not tool.recipients:
            return Causes(shown, shown)
        return causes

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
        others = [name for name, value in prepared.arguments.items() if not self._in_question(name, value, control)]
        return join([words, *[shown if name in control else content for name in others]])

    def _in_question(self, name: str, value: JSON, control: frozenset[str]) -> bool:
        if name in control:
            return self._says(value)
        return isinstance(value, str | int | float) and contains_value(self._log.question.value, str(value))

    async def _perform(
        self, prepared: PreparedCall, context: CallContext, causes: Causes, *, decision: Decision | None = None
    ) -> ToolOutcome:
        tool, call = prepared.tool, prepared.call
        if decision is not None:
            rule: dict[str, JSON] = {"rule": decision.rule, "reason": decision.reason}
            self._log.note("call.started", {**_described(prepared, causes), **rule})
            self._log.calls[call.id] = CallState(call, CallPhase.STARTED, causes.label)
            if tool.effect is not Effect.READ:
                await self._log.flush(durable=True)
        outcome = await self._inner.execute(prepared, context)
        if outcome.status is CallStatus.TIMED_OUT and tool.effect is not Effect.READ:
            return await self._in_doubt(prepared, outcome.text)
        return await self._finish(prepared, causes, outcome)

    async def _finish(self, prepared: PreparedCall, causes: Causes, outcome: ToolOutcome) -> ToolOutcome:
        call, tool, record = prepared.call, prepared.tool, self._log.planned
        own = Label.of(ACL((self._log.principal.own_grant,)), f"tool:{tool.name}") if tool.label is None else tool.label
        label, kept = causes.label | own, {}
        if outcome.status is CallStatus.DONE and (tool.fields or record is not None):
            result = result_of(tool, outcome.text, causes.choice or causes.label, label)
            label = result.whole
            kept = record.finish(causes.step, result) if record is not None and causes.step else {}
        outcome = ToolOutcome(outcome.status, outcome.text, label)
        self._log.note("call.finished", {**_concluded(call.id, outcome), **kept}, label=label)
        self._log.calls[call.id] = CallState(call, CallPhase.FINISHED, outcome=outcome)
        await self._log.flush(durable=tool.effect is not Effect.READ)
        return outcome

    async def _refuse(self, prepared: PreparedCall, reason: str, rule: str) -> ToolOutcome:
        tool, call = prepared.tool.name, prepared.call
        outcome = ToolOutcome(CallStatus.REFUSED, f"{tool} was refused: {reason}", self._log.floor)
        because: dict[str, JSON] = {"rule": rule}
        self._log.note("call.refused", {**_described(prepared), **_concluded(call.id, outcome), **because})
        self._log.calls[call.id] = CallState(call, CallPhase.FINISHED, outcome=outcome)
        return outcome

    async def _ask(
        self,
        prepared: PreparedCall,
        causes: Causes,
        decision: Decision,
        told: Sequence[Disclosure],
        state: CallState | None,
    ) -> ToolOutcome:
        releases = _receivers(told)
        if state is None or state.label != causes.label or state.releases != releases:
            reason, rule = decision.reason, decision.rule
            if decision.verdict is not Verdict.ASK:
                reason, rule = told[0].objection, told[0].decision.rule
            body: dict[str, JSON] = {"reason": reason, "rule": rule, "label": cast(JSON, causes.label.to_json())}
            body |= {"releases": list(releases)} if releases else {}
            self._log.note("call.asked", {**_described(prepared, causes), **body})
            self._log.calls[prepared.call.id] = CallState(
                prepared.call, CallPhase.ASKED, causes.label, reason, rule, releases=releases
            )
        return _waiting(prepared.tool)

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


def _endorsed(prepared: PreparedCall, causes: Causes, told: Sequence[Disclosure], state: CallState | None) -> bool:
    """Whether somebody approved exactly this: the same tool, arguments, label and receivers."""
    return (
        state is not None
        and state.phase is CallPhase.APPROVED
        and state.call.digest == prepared.call.digest
        and state.label == causes.label
        and state.releases == _receivers(told)
    )


def _receivers(told: Sequence[Disclosure]) -> tuple[str, ...]:
    return tuple(sorted({each.receiver for each in told}))


def _waiting(tool: Tool) -> ToolOutcome:
    return ToolOutcome(CallStatus.WAITING, f"{tool.name} waits for a human")


def _described(prepared: PreparedCall, causes: Causes | None = None) -> dict[str, JSON]:
    call = prepared.call
    body: dict[str, JSON] = {"call": call.id, "tool": call.tool, "arguments": call.arguments}
    return body | {"step": causes.step, "key": causes.key} if causes is not None and causes.step else body


def _concluded(call_id: str, outcome: ToolOutcome) -> dict[str, JSON]:
    return {
        "call": call_id,
        "status": str(outcome.status),
        "text": outcome.text,
        "label": cast(JSON, outcome.label.to_json()),
    }
