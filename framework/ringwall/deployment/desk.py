"""The desk at which people answer: it needs a journal and a policy, and none of the app's tools or models."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from ringwall.deployment.approvals import Approval, Asked, may_answer, shown, waiting_calls
from ringwall.deployment.asking import came_to_nothing, is_lapsed
from ringwall.deployment.base import Policy
from ringwall.deployment.journal import Journal, RunStatus, check_run
from ringwall.deployment.limits import Case, Limit, StandingRule, mark
from ringwall.deployment.questions import Kind, sorted_objections
from ringwall.deployment.reading import app_of
from ringwall.deployment.runlog import CallPhase, RunLog, Watch, event_body
from ringwall.deployment.standing import Standing, StandingRules
from ringwall.errors import ActionDenied, FlowDenied, InvalidInput, JournalError, NotWaiting, UnknownRun
from ringwall.interface.base import CallStatus
from ringwall.label import Label, Labelled, Source
from ringwall.principal import Grant, Principal
from ringwall.schema import JSON
from ringwall.turn import principal_from_json


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a yes that stands reaches beyond the call it was asked about.

    It may be used `uses` times within `seconds`, in this run alone with `this_run`. An argument that `limits` does not
    name stays as it was shown. `sources` may influence such a call, `who` (a grant, without a tenant) may ask for it;
    None: those of the call that was shown.
    """

    uses: int
    seconds: float
    limits: Mapping[str, Limit | Sequence[Limit]] = field(default_factory=dict)
    sources: frozenset[Source] | None = None
    who: Grant | None = None
    this_run: bool = False


class ApprovalDesk:
    """Shows the open questions of one app's runs, takes the answers, and keeps the yes that stand.

    Of two who answer at once one is told `JournalConflict`, and must look again.
    """

    def __init__(
        self,
        journal: Journal,
        policy: Policy,
        app: str,
        *,
        clock: Callable[[], float] = time.time,
        watch: Watch | None = None,
    ) -> None:
        self._journal, self._policy, self._app, self._clock = journal, policy, app, clock
        self._watch = watch
        self.rules = StandingRules(journal, app, clock=clock)

    # Looking

    async def waiting(self, as_: Principal) -> list[Approval]:
        """The open questions that `as_` may see and answer, as things stand now; those that lapsed are written down."""
        found: list[Approval] = []
        for record in await self._journal.runs(RunStatus.WAITING):
            with contextlib.suppress(UnknownRun):  # another app's, in a journal that several share
                log = await self._log(record.run)
                await self._note_lapsed(log)
                found += await self._answerable(log, as_)
        return found

    async def lapsed(self) -> list[str]:
        """The runs with a question that nobody answered in time: resume them, so that they go on without."""
        found: list[str] = []
        for record in await self._journal.runs(RunStatus.WAITING):
            with contextlib.suppress(UnknownRun):
                log = await self._log(record.run)
                if any(is_lapsed(state, self._clock()) or came_to_nothing(state) for state in log.calls.values()):
                    found.append(record.run)
        return found

    async def _note_lapsed(self, log: RunLog) -> None:
        """Write down that nobody answered in time, if so: who looks for changed runs finds this one at once."""
        late = [state for state in log.calls.values() if is_lapsed(state, self._clock())]
        for state in late:
            log.note_call("expired", {"call": state.call.id})
        if late:
            with contextlib.suppress(JournalError):  # it went on meanwhile, or this process may only read
                await log.flush()

    # Answering

    async def approve(
        self,
        run: str,
        by: Principal,
        *,
        calls: Sequence[str] = (),
        note: str = "",
        standing: StandingRule | None = None,
    ) -> None:
        """Say yes to open questions of a run: to all that are named, or to none of them.

        With `standing` the same yes lets that rule stand, which `draft` made.
        """
        log, questions = await self._questions(run, calls, by, Kind.CALL)
        if standing is not None:
            await self._may_stand(log, questions, by, standing)
        line: dict[str, JSON] = {} if standing is None else {"standing": standing.line}
        for asked, counts in questions:
            log.note_call("approved", {**_answer(log, asked, by, note), "counts": list(counts), **line})
        await log.flush(durable=True)
        if standing is not None:
            (asked, _), *_others = questions
            origin = {"run": run, "call": asked.state.call.id}
            await self.rules.grant(standing, by=by.id, **origin, label=asked.label, note=note)

    async def deny(self, run: str, by: Principal, *, calls: Sequence[str] = (), note: str = "") -> None:
        """Say no to open questions of a run, of either kind."""
        log, questions = await self._questions(run, calls, by, None)
        for asked, _ in questions:
            log.note_call("declined", _answer(log, asked, by, note))
        await log.flush(durable=True)

    async def declassify(self, run: str, by: Principal, *, call: str | None = None, note: str = "") -> None:
        """Let the arguments of one exact call, or of a group, reach receivers that are not among their readers."""
        log, questions = await self._questions(run, () if call is None else (call,), by, Kind.FLOW)
        for asked, counts in questions:
            objections = asked.question.objections if asked.question else ()
            lifted: list[JSON] = [[receiver, sorted(readers)] for receiver, readers in sorted_objections(objections)]
            body = {**_answer(log, asked, by, note), "counts": list(counts), "objections": lifted}
            log.note_call("declassified", body)
        await log.flush(durable=True)

    async def resolve(
        self, run: str, by: Principal, *, happened: bool, call: str | None = None, result: str = ""
    ) -> None:
        """Write down what became of a call in doubt, as a human found out."""
        log, ((asked, _),) = await self._questions(run, () if call is None else (call,), by, None, in_doubt=True)
        tool = asked.state.call.tool
        status = CallStatus.DONE if happened else CallStatus.FAILED
        text = result or ("it was done" if happened else f"{tool} was interrupted and did not happen")
        body: dict[str, JSON] = {"call": asked.state.call.id, "status": str(status), "text": text, "by": by.id}
        log.note("call.finished", {**body, "label": cast(JSON, log.floor.to_json())})
        await log.flush(durable=True)

    # Letting stand

    async def draft(self, run: str, by: Principal, bounds: Bounds, *, call: str | None = None) -> StandingRule:
        """The rule that a yes within `bounds` would let stand, to be read (`.line`) and passed to `approve`."""
        log, questions = await self._questions(run, () if call is None else (call,), by, Kind.CALL)
        rule = _drafted(log, questions[0][0], bounds, now=self._clock())
        await self._may_stand(log, questions, by, rule)
        return rule

    async def standing(self, as_: Principal) -> list[Standing]:
        """The rules that stand, as far as `as_` may let rules stand for the tool and receive what they say."""
        grants, now = await self._policy.grants(as_), self._clock()
        found = [each for each in await self.rules.all() if each.is_open(now) and each.label.may_flow_to(grants)]
        return [each for each in found if await self._may_manage(each, as_)]

    async def revoke(self, id_: str, by: Principal, *, note: str = "") -> None:
        """Take back a rule that stands; the next decision obeys."""
        standing = next((each for each in await self.rules.all() if each.id == id_), None)
        if standing is None or not await self._may_manage(standing, by):
            raise NotWaiting(f"no standing rule {id_!r} that you may revoke", hint="see `app.standing(as_=...)`")
        await self.rules.revoke(id_, by=by.id, note=note)

    async def _may_manage(self, standing: Standing, by: Principal) -> bool:
        rule = standing.rule
        right = await self._policy.decide(by, "standing", f"tool:{rule.tool}")
        return by.tenant == rule.tenant and (standing.by == by.id or bool(right))

    async def _may_stand(
        self, log: RunLog, questions: Sequence[tuple[Asked, tuple[int, ...]]], by: Principal, rule: StandingRule
    ) -> None:
        (asked, _), *others = questions
        question, tool = asked.question, asked.state.call.tool
        if others or question is None:
            raise InvalidInput("a rule is made from one question", expected="one call")
        if any(ask.terms.people > 1 for ask in question.asks):
            raise InvalidInput("several people must see each such call", hint="approve this one only")
        case = await _case(log, asked)
        if not rule.covers(case) or rule.tenant != log.principal.tenant:
            raise InvalidInput("the standing rule does not cover the call it is made from", expected="its `draft`")
        if not rule.run:
            right = await self._policy.decide(by, "standing", f"tool:{tool}")
            if not right:
                raise ActionDenied(f"{by.id} may not let a rule stand: {right.reason}", rule=right.rule)

    # Inside

    async def _answerable(self, log: RunLog, by: Principal) -> list[Approval]:
        grants, found = await self._policy.grants(by), []
        for asked in waiting_calls(log):
            with contextlib.suppress(ActionDenied, FlowDenied):
                await may_answer(log, asked, by)
                found.append(shown(log, asked, grants))
        return found

    async def _questions(
        self, run: str, calls: Sequence[str], by: Principal, kind: Kind | None, *, in_doubt: bool = False
    ) -> tuple[RunLog, list[tuple[Asked, tuple[int, ...]]]]:
        """The open questions that are meant, each with what the answer of `by` counts for."""
        log = await self._log(run)
        # Looked at last: who resumes the run after that writes to it, and the answer is refused.
        if (await self._journal.record(run)).status is not RunStatus.WAITING:
            raise NotWaiting(f"run {run!r} does not wait", hint="see `app.waiting(as_=...)`")
        waiting = waiting_calls(log)
        await self._expire(log, calls)
        chosen = [asked for asked in waiting if not calls or {asked.state.call.id, asked.group} & set(calls)]
        known = {name for asked in waiting for name in (asked.state.call.id, asked.group)}
        if not chosen or not known.issuperset(calls):
            raise NotWaiting(f"run {run!r} has no such open question", hint="see `app.waiting(as_=...)`")
        groups = {asked.group: None for asked in chosen}
        if len(groups) > 1 and not calls:
            names = ", ".join(groups)
            raise InvalidInput(f"run {run!r} has several open questions", expected=f"`call=` one of: {names}")
        found = [(asked, await may_answer(log, asked, by)) for asked in chosen]
        for asked in chosen:
            _check_kind(asked, run, kind, in_doubt=in_doubt)
        return log, found

    async def _expire(self, log: RunLog, calls: Sequence[str]) -> None:
        """Write down that it is too late, if it is. Raises `NotWaiting`."""
        late = [s for s in log.calls.values() if s.phase is CallPhase.ASKED and is_lapsed(s, self._clock())]
        meant = [state for state in late if not calls or state.call.id in calls]
        for state in meant:
            log.note_call("expired", {"call": state.call.id})
        if meant:
            await log.flush(durable=True)
        if meant and (calls or not waiting_calls(log)):
            raise NotWaiting(f"nobody answered run {log.run!r} in time", hint="resume it: it goes on without the call")

    async def _log(self, run: str) -> RunLog:
        events = await self._journal.read(run)
        check_run(run, events)
        if app_of(events) != self._app:
            raise UnknownRun(run)
        first = event_body(events[0])
        question = Labelled(str(first["question"]), Label.from_json(first["label"]))
        principal = principal_from_json(first["principal"])
        log = RunLog.restore(self._journal, self._policy, principal, question, events, watch=self._watch)
        log.clock = self._clock
        return log


def _answer(log: RunLog, asked: Asked, by: Principal, note: str) -> dict[str, JSON]:
    call = asked.state.call
    return {"call": call.id, "digest": call.digest, "by": by.id, "note": note, "at": log.clock()}


def _check_kind(asked: Asked, run: str, kind: Kind | None, *, in_doubt: bool) -> None:
    call = asked.state.call.id
    if asked.in_doubt and not in_doubt:
        raise NotWaiting(
            f"call {call} of run {run} is in doubt", hint="say whether it happened with `app.resolve(...)`"
        )
    if in_doubt and not asked.in_doubt:
        raise NotWaiting(f"call {call} of run {run} is not in doubt")
    if kind is Kind.CALL and asked.question and asked.question.kind is Kind.FLOW:
        raise FlowDenied("an approval lets nothing flow", hint="declassify it with `app.declassify(...)`")
    if kind is Kind.FLOW and asked.question and asked.question.kind is Kind.CALL:
        raise NotWaiting(f"call {call} of run {run} waits for an approval", hint="use `app.approve(...)`")


async def _case(log: RunLog, asked: Asked) -> Case:
    call, question = asked.state.call, asked.question
    asks = frozenset(map(mark, question.asks)) if question else frozenset()
    grants = await log.policy.grants(log.principal)
    sources, tenant = asked.label.influence, log.principal.tenant
    return Case(log.run, call.tool, _arguments(asked), tenant, grants, sources, asks)


def _arguments(asked: Asked) -> Mapping[str, JSON]:
    parsed = asked.state.call.parsed
    return parsed if isinstance(parsed, dict) else {}


def _drafted(log: RunLog, asked: Asked, bounds: Bounds, *, now: float) -> StandingRule:
    if bounds.uses < 1 or not 0 < bounds.seconds < 1e10:
        raise InvalidInput("a standing rule without bounds", expected="at least one use, and some seconds")
    arguments, question = _arguments(asked), asked.question
    unknown = bounds.limits.keys() - arguments.keys()
    if unknown:
        raise InvalidInput(f"the call has no argument {', '.join(sorted(unknown))}", expected=", ".join(arguments))
    limits: list[tuple[str, Limit]] = []
    for name, value in sorted(arguments.items()):
        limit = bounds.limits.get(name, Limit("=", value))
        limits += [(name, each) for each in ([limit] if isinstance(limit, Limit) else limit)]
    return StandingRule(
        bounds.who or log.principal.id,
        asked.state.call.tool,
        tuple(limits),
        asked.label.influence if bounds.sources is None else bounds.sources,
        frozenset(map(mark, question.asks)) if question else frozenset(),
        bounds.uses,
        int(now + bounds.seconds),
        log.principal.tenant,
        log.run if bounds.this_run else "",
    )
