"""Approvals: a run that must ask waits, durably, until other principals answer.

An answer is bound to the run, the call, its exact arguments (by hash) and the label it carried; it is used up when the
call starts. An approval lifts an integrity objection only: what may not flow to somebody flows to nobody by approval.
That takes a declassification: another right, over every list of readers that is in the way, and another event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ringwall.deployment.asking import is_lapsed
from ringwall.deployment.base import Decision, Policy, Terms, Verdict
from ringwall.deployment.questions import NEVER, Kind, Objection, Preview, Question, sorted_objections
from ringwall.deployment.runlog import CallPhase, CallState, RunLog
from ringwall.errors import ActionDenied, FlowDenied
from ringwall.label import Label, Source
from ringwall.principal import TENANT_MARK, Grants, Principal, scoped
from ringwall.schema import digest


@dataclass(frozen=True, slots=True)
class Approval:
    """An open question to a human, as one reader may be shown it. Times are Unix times in seconds.

    `in_doubt` tells the two kinds apart: may this call be made, or (the call was started and its result is
    unknown) did it happen. `arguments` is the exact JSON text that would be, or was, used.

    Why it is asked: `rule`, `reason`, `label`, and in `influences` by argument which sources could have shaped it;
    `asks` are all the rules that ask, each on its terms. With `objections` the question is not whether the call may be
    made but whether its arguments may reach a receiver that is not on a list of their readers (`App.declassify`).
    `preview` is what would change, as far as the tool says so; `withheld` if it does and the reader may not receive
    that. `yes` are those who said yes so far, `lacking` how many are still wanted. After `expires` nobody can answer.
    From `escalates` on others may or must, and `escalated` says whether that is so already.

    What a plan does for each of several items is one question: such calls share a `group`, a name for exactly these
    calls with these arguments, by which they are answered together. Any other call's is its own name.
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
    asks: tuple[Decision, ...] = ()
    influences: Mapping[str, tuple[Source, ...]] = field(default_factory=lambda: MappingProxyType({}))
    objections: tuple[Objection, ...] = ()
    preview: str = ""
    withheld: bool = False
    yes: tuple[str, ...] = ()
    lacking: int = 1
    asked_at: float = 0.0
    expires: float | None = None
    escalates: float | None = None
    escalated: bool = False
    group: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that waits, with the question about it: what an answer is checked against."""

    state: CallState
    question: Question | None
    label: Label
    group: str

    @property
    def in_doubt(self) -> bool:
        return self.state.phase is CallPhase.IN_DOUBT

    @property
    def preview(self) -> Preview | None:
        return None if self.question is None or self.in_doubt else self.question.preview


def waiting_calls(log: RunLog) -> list[Asked]:
    """The calls that wait for a human, without those that nobody answered in time."""
    now = log.clock()
    open_ = [
        state
        for state in log.calls.values()
        if state.phase is CallPhase.IN_DOUBT or (state.phase is CallPhase.ASKED and not is_lapsed(state, now))
    ]
    groups = _groups(log, [state for state in open_ if state.phase is CallPhase.ASKED])
    return [
        Asked(state, None, log.floor, state.call.id)
        if state.phase is CallPhase.IN_DOUBT
        else Asked(state, state.question, state.label, groups.get(state.call.id, state.call.id))
        for state in open_
    ]


def _groups(log: RunLog, asked: Sequence[CallState]) -> dict[str, str]:
    """The group of each call that one of the plan's stands for with others.

    Its name is made of which questions these are, and when each was asked, so that it is another as soon as one of them
    is. It is not made of their arguments: whoever may see one call of a group could find those of the others by trying.
    """
    steps = {} if log.planned is None else {state.call.id: log.planned.each_of(state.call.id) for state in asked}
    groups: dict[str, list[CallState]] = {}
    for state in asked:
        if step := steps.get(state.call.id):
            groups.setdefault(step, []).append(state)
    names = {step: f"{step}.{digest(' '.join(map(_moment, states)))[:12]}" for step, states in groups.items()}
    return {state.call.id: names[step] for step, states in groups.items() for state in states}


def _moment(state: CallState) -> str:
    """Which question this is: a call is asked about anew under the same id, at another time."""
    return f"{state.call.id}@{state.question.asked_at if state.question else 0}"


async def questions_for(log: RunLog, reader: Principal) -> tuple[Approval, ...]:
    """What the run is waiting for, as far as `reader` may receive it; whether it may answer is not asked."""
    grants = await log.policy.grants(reader)
    waiting = waiting_calls(log)
    return tuple(shown(log, asked, grants) for asked in waiting if asked.label.may_flow_to(grants))


def shown(log: RunLog, asked: Asked, grants: Grants) -> Approval:
    """A question as somebody who holds `grants`, and may receive the arguments, is shown it."""
    state, call, question = asked.state, asked.state.call, asked.question
    requester = log.principal.id
    head = (log.run, call.id, call.tool, call.arguments, call.digest, requester, state.reason, state.rule, asked.label)
    if question is None:
        return Approval(*head, in_doubt=asked.in_doubt, group=asked.group)
    preview, escalates = asked.preview, question.escalates()
    may_see = preview is not None and preview.label.may_flow_to(grants)
    return Approval(
        *head,
        asks=question.asks,
        influences=question.influences,
        objections=tuple(sorted_objections(question.objections)),
        preview=preview.text if preview and may_see else "",
        withheld=preview is not None and not may_see,
        yes=tuple(dict.fromkeys(yes.by for yes in question.yes)),
        lacking=len(question.lacking),
        asked_at=question.asked_at,
        expires=_bounded(question.expires),
        escalates=_bounded(escalates),
        escalated=log.clock() >= escalates,
        group=asked.group,
    )


def _bounded(time: float) -> float | None:
    return None if time == NEVER else time


async def may_answer(log: RunLog, asked: Asked, by: Principal) -> tuple[int, ...]:
    """Check that `by` may see and answer a question; return the places of the rules that its yes counts for.

    Raises `ActionDenied` when a rule wants somebody else than who asked, when no rule lets `by` approve this tool
    (declassify each of the grants in the way), when the terms name others, or it has answered already; `FlowDenied`
    when it may not be shown the arguments.
    """
    requester, grants = log.principal, await log.policy.grants(by)
    if by.tenant != requester.tenant:
        raise ActionDenied("an approver answers for its own tenant only")
    places = _admitting(log, asked, by, grants)
    await _may_lift(log.policy, asked, by)
    if not asked.label.may_flow_to(grants):
        raise FlowDenied("the approver may not be shown these arguments", hint="ask somebody who may")
    return places


async def _may_lift(policy: Policy, asked: Asked, by: Principal) -> None:
    question = asked.question
    if question is None or question.kind is Kind.CALL:
        await _has_right(policy, by, "approve", f"tool:{asked.state.call.tool}")
        return
    for grant in {grant for objection in question.objections for grant in objection.readers}:
        if grant != scoped(grant.split(TENANT_MARK)[-1], by.tenant):
            raise ActionDenied("what is another tenant's is not declassified here")
        await _has_right(policy, by, "declassify", grant.split(TENANT_MARK)[-1])


async def _has_right(policy: Policy, by: Principal, action: str, resource: str) -> None:
    decision = await policy.decide(by, action, resource)
    if not decision:
        raise ActionDenied(f"{by.id} may not {action} it: {decision.reason}", rule=decision.rule)


def _admitting(log: RunLog, asked: Asked, by: Principal, grants: Grants) -> tuple[int, ...]:
    """The places of the rules on whose terms `by` may answer, and that still want its yes."""
    question, is_asker = asked.question, by.own_grant == log.principal.own_grant
    asks = question.asks if question else (Decision(Verdict.ASK, ""),)
    waited = log.clock() - (question.asked_at if question else 0.0)
    admitting = [n for n, ask in enumerate(asks) if _admits(ask.terms, by.tenant, grants, waited)]
    allowed = [n for n in admitting if asks[n].terms.asker or not is_asker]
    if not allowed and is_asker:
        raise ActionDenied("whoever asked for a call cannot approve it", hint="ask somebody else")
    if not allowed:
        raise ActionDenied(f"{by.id} is not among those who are asked", hint="see `of` and `then` in the rule")
    said = {place for yes in (question.yes if question else ()) if yes.by == by.id for place in yes.counts}
    lacking = set(question.lacking) if question else {0}
    counting = tuple(n for n in allowed if n in lacking - said)
    if not counting:
        raise ActionDenied(f"{by.id} has answered already", hint="somebody else is wanted too")
    return counting


def _admits(terms: Terms, tenant: str, grants: Grants, waited: float) -> bool:
    """Whether the terms let somebody who holds `grants` answer, so many seconds after the question was asked."""
    is_escalated = bool(terms.then) and waited >= terms.after
    if is_escalated and _holds_any(terms.then, tenant, grants):
        return True
    if is_escalated and terms.only:
        return False
    return not terms.of or _holds_any(terms.of, tenant, grants)


def _holds_any(wanted: Grants, tenant: str, grants: Grants) -> bool:
    return any(scoped(grant, tenant) in grants for grant in wanted)
