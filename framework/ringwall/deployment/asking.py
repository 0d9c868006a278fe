"""Puts calls before people on behalf of the gate in front of the tools, and knows which of their answers still hold."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import cast

from ringwall.deployment.base import Decision, Verdict
from ringwall.deployment.gates import caused_by
from ringwall.deployment.limits import Case, mark
from ringwall.deployment.questions import (
    Kind,
    Objection,
    Preview,
    Question,
    describe_preview,
    question_to_json,
)
from ringwall.deployment.runlog import CallPhase, CallState, RunLog
from ringwall.deployment.standing import Standing, StandingPolicy
from ringwall.interface.base import CallContext, Change, PreparedCall
from ringwall.label import Label, Source
from ringwall.schema import JSON

_ANSWERED = (CallPhase.APPROVED, CallPhase.DECLASSIFIED)
_PREVIEW_AT_MOST = 20_000
"""Characters of a preview: it is read by a person, and kept in the journal."""


class Asking:
    """Asks about a run's calls, and refuses what was declined or came too late."""

    def __init__(self, log: RunLog) -> None:
        self._log = log

    def refusal(self, state: CallState) -> str:
        """Why a call is over: somebody declined it, or time ran out; writes the latter down. Empty if it is not."""
        if is_lapsed(state, self._log.clock()):
            state = self._log.note_call("expired", {"call": state.call.id})
        if state.phase is not CallPhase.DECLINED:
            return ""
        return f"{state.by} declined it" if state.by else "nobody approved it in time"

    async def may_declassify(self, label: Label, resource: str) -> Decision | None:
        """Whether a secrecy objection may be put before people at all: only if the policy says so."""
        decision = await caused_by(self._log, label.influence, "declassify", resource)
        call = await caused_by(self._log, label.influence, "call", resource)
        return None if Verdict.DENY in (decision.verdict, call.verdict) else decision

    async def ask(
        self,
        prepared: PreparedCall,
        context: CallContext,
        label: Label,
        decision: Decision,
        influences: Mapping[str, Collection[Source]],
        objections: Sequence[Objection],
        shown: Label,
    ) -> None:
        """Put the call before people; `shown` is the label of what the tool may tell of what it would change."""
        call = prepared.call
        question = Question(
            Kind.FLOW if objections else Kind.CALL,
            tuple(sorted((decision, *decision.also), key=lambda ask: ask.rule)),
            self._log.clock(),
            {name: tuple(sorted(sources)) for name, sources in influences.items()},
            frozenset(objections),
        )
        body: dict[str, JSON] = {"call": call.id, "tool": call.tool, "arguments": call.arguments}
        if prepared.tool.recipients:
            body["receivers"] = [*named_receivers(prepared)]
        why: dict[str, JSON] = {"reason": decision.reason, "rule": decision.rule}
        self._log.note_call("asked", {**body, **why, **question_to_json(question), "label": _json(label)})
        if preview := await _preview(prepared, context, shown):
            self._log.note_call("previewed", describe_preview(call.id, preview), apart=preview.label)

    async def let_stand(self, prepared: PreparedCall, label: Label, decision: Decision) -> Decision | None:
        """The decision by a standing rule that covers this very call, used up for it; None if there is none."""
        log, rules = self._log, self._log.standing
        if rules is None or not isinstance(prepared.call.parsed, dict):
            return None
        asks = frozenset(map(mark, (decision, *decision.also)))
        grants = await log.policy.grants(log.principal)
        arguments = prepared.call.parsed
        tenant = log.principal.tenant
        case = Case(log.run, prepared.tool.name, arguments, tenant, grants, label.influence, asks)
        for standing in await rules.covering(case):
            policy = StandingPolicy(log.policy, standing, log.principal)
            let = await caused_by(log, label.influence, "call", f"tool:{prepared.tool.name}", policy=policy)
            if let and await rules.use(standing.id, log.run, prepared.call.id):
                return Decision(Verdict.ALLOW, _told_of(standing, log.floor), f"standing:{standing.id}")
        return None


def _told_of(standing: Standing, floor: Label) -> str:
    """A rule that stands, as a run with this floor may tell of it: its line may hold what another run had read."""
    return standing.rule.line if standing.label <= floor else f"{standing.by} let it stand"


async def _preview(prepared: PreparedCall, context: CallContext, shown: Label) -> Preview | None:
    """What the tool says it would change; a tool that fails at that says nothing, and the question stays."""
    tool = prepared.tool
    try:
        async with asyncio.timeout(min(tool.timeout, context.deadline)):
            change = await tool.preview(prepared.arguments, context)
    except Exception as error:  # noqa: BLE001 (the edge to foreign code: what it raises is its failure)
        change = f"{tool.name} could not say what it would change: {type(error).__name__}"
    if change is None:
        return None
    label = change.label if isinstance(change, Change) else None
    return Preview(
        (str(change) or "nothing would change")[:_PREVIEW_AT_MOST], shown if label is None else shown | label
    )


def is_lapsed(state: CallState, now: float) -> bool:
    """Whether it is too late to answer the question about a call, or to use the answer."""
    if state.phase not in (CallPhase.ASKED, *_ANSWERED) or state.question is None:
        return False
    return now >= min(state.question.expires, state.lifted_until)


def came_to_nothing(state: CallState) -> bool:
    """Whether it was written down that nobody answered the question about a call in time."""
    return state.phase is CallPhase.DECLINED and not state.by


def is_open(
    prepared: PreparedCall, label: Label, state: CallState | None, objections: Collection[Objection] = ()
) -> bool:
    """Whether exactly this is being asked already."""
    return (
        state is not None
        and state.phase is CallPhase.ASKED
        and _is_same(prepared, label, state)
        and state.question is not None
        and state.question.objections == frozenset(objections)
    )


def is_endorsed(prepared: PreparedCall, label: Label, state: CallState | None) -> bool:
    """Whether exactly this was approved: the same tool, arguments and label."""
    return state is not None and state.phase is CallPhase.APPROVED and _is_same(prepared, label, state)


def is_lifted(objections: Collection[Objection], prepared: PreparedCall, label: Label, state: CallState | None) -> bool:
    """Whether all these objections were declassified, for exactly the same tool, arguments and label."""
    return state is not None and state.lifted.issuperset(objections) and _is_same(prepared, label, state)


def _is_same(prepared: PreparedCall, label: Label, state: CallState) -> bool:
    return state.call.digest == prepared.call.digest and state.label == label


def _json(label: Label) -> JSON:
    return cast(JSON, label.to_json())


def named_receivers(prepared: PreparedCall) -> list[str]:
    """Everybody that the call names, in whatever collection: a receiver that goes unseen is one that is not asked."""
    names: list[str] = []
    for argument in prepared.tool.recipients:
        value = prepared.arguments.get(argument)
        if isinstance(value, Iterable) and not isinstance(value, str):
            names.extend(map(str, value))
        elif value is not None:
            names.append(str(value))
    return names
