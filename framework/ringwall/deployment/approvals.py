"""Approvals: a run that must ask waits, durably, until another principal answers.

An answer is bound to the run, the call, its exact arguments (by hash) and the label it carried; it is used up when the
call starts. It lifts an integrity objection only: what may not flow to somebody flows to nobody by approval.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from ringwall.deployment.base import Policy
from ringwall.deployment.runlog import CallPhase, CallState, RunLog
from ringwall.errors import ActionDenied, FlowDenied, NotWaiting
from ringwall.interface.base import CallStatus, ToolOutcome
from ringwall.label import Label
from ringwall.principal import Principal
from ringwall.schema import JSON


@dataclass(frozen=True, slots=True)
class Approval:
    """An open question to a human.

    `in_doubt` tells the two kinds apart: may this call be made, or (the call was started and its result is
    unknown) did it happen. `arguments` is the exact JSON text that would be, or was, used. `releases` are recipients
    who would be told what they do not hold: whoever says yes needs the right to `declassify` for each.
    """

    run: str
    call: str
    tool: str
    arguments: str
    digest: str
    requester: str
    reason: str
    rule: str
    label: Label
    in_doubt: bool = False
    releases: tuple[str, ...] = ()


def open_questions(log: RunLog) -> tuple[Approval, ...]:
    """What the run is waiting for."""
    waiting = (CallPhase.ASKED, CallPhase.IN_DOUBT)
    return tuple(_approval(log, state) for state in log.calls.values() if state.phase in waiting)


def _approval(log: RunLog, state: CallState) -> Approval:
    call, in_doubt = state.call, state.phase is CallPhase.IN_DOUBT
    label = log.floor if in_doubt else state.label
    reason, rule = state.reason, state.rule
    requester = log.principal.id
    return Approval(
        log.run,
        call.id,
        call.tool,
        call.arguments,
        call.digest,
        requester,
        reason,
        rule,
        label,
        in_doubt,
        state.releases,
    )


async def may_answer(policy: Policy, question: Approval, requester: Principal, by: Principal) -> None:
    """Check that `by` may see and answer a question.

    Raises `ActionDenied` when it asked itself or no rule lets it approve this tool, `FlowDenied` when it may
    not be shown the arguments.
    """
    if by.own_grant == requester.own_grant:
        raise ActionDenied("whoever asked for a call cannot approve it", hint="ask somebody else")
    if by.tenant != requester.tenant:
        raise ActionDenied("an approver answers for its own tenant only")
    decision = await policy.decide(by, "approve", f"tool:{question.tool}")
    if not decision:
        raise ActionDenied(f"{by.id} may not approve it: {decision.reason}", rule=decision.rule)
    for receiver in question.releases:
        decision = await policy.decide(by, "declassify", receiver)
        if not decision:
            raise ActionDenied(f"{by.id} may not let {receiver} be told: {decision.reason}", rule=decision.rule)
    if not question.label.may_flow_to(await policy.grants(by)):
        raise FlowDenied("the approver may not be shown these arguments", hint="ask somebody who may")


async def answer(log: RunLog, question: Approval, by: Principal, *, yes: bool, note: str = "") -> None:
    """Write a human's answer into the run. Raises `NotWaiting`, `JournalConflict` when somebody was quicker."""
    if question.in_doubt:
        raise NotWaiting(
            f"call {question.call} of run {question.run} is in doubt",
            hint="say whether it happened with `app.resolve(...)`",
        )
    kind = "call.approved" if yes else "call.declined"
    body: dict[str, JSON] = {"call": question.call, "digest": question.digest, "by": by.id, "note": note}
    log.note(kind, body)
    await log.flush(durable=True)


async def resolve(log: RunLog, question: Approval, by: Principal, *, happened: bool, result: str) -> None:
    """Write down what became of a call in doubt, as a human found out."""
    if not question.in_doubt:
        raise NotWaiting(f"call {question.call} of run {question.run} is not in doubt")
    status = CallStatus.DONE if happened else CallStatus.FAILED
    text = result or ("it was done" if happened else f"{question.tool} was interrupted and did not happen")
    outcome = ToolOutcome(status, text, log.floor)
    body: dict[str, JSON] = {"call": question.call, "status": str(status), "text": text, "by": by.id}
    log.note("call.finished", {**body, "label": cast(JSON, outcome.label.to_json())})
    await log.flush(durable=True)
