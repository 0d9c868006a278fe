"""Runs from their first event to their last: begun, carried out, picked up again, stopped and undone.

What an app's doors have in common: whoever comes in by any of them, the run ends in the journal, whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ringwall.assembly import Assembly
from ringwall.deployment.approvals import Approval, questions_for, waiting_calls
from ringwall.deployment.asking import is_lapsed
from ringwall.deployment.base import Policy
from ringwall.deployment.budgets import Budgets
from ringwall.deployment.desk import ApprovalDesk
from ringwall.deployment.disarm import Disarm
from ringwall.deployment.gates import question_label, release
from ringwall.deployment.guarded import influenced
from ringwall.deployment.guarding import Guards, RunGuards, guard_question
from ringwall.deployment.journal import Journal, RunStatus, check_run
from ringwall.deployment.leases import Heart, Told
from ringwall.deployment.reading import app_of, tell_what_was_done
from ringwall.deployment.runlog import RunLog, Watch
from ringwall.deployment.unwinding import Stop, Unwinding, has_effects, may_cancel
from ringwall.errors import (
    ActionDenied,
    FlowDenied,
    InvalidInput,
    JournalConflict,
    JournalError,
    LimitReached,
    NotWaiting,
    RingwallError,
    RunCancelled,
    RunHeld,
    StepFailed,
    UnknownRun,
)
from ringwall.interface.base import Tool
from ringwall.label import BOTTOM, Label, Labelled
from ringwall.principal import Principal
from ringwall.run import Beginning, Sink, check_same_pipeline, fold, started
from ringwall.schema import JSON
from ringwall.turn import Citation, Turn, TurnStatus, quotations

_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to.

    `status` is `DONE`, or `WAITING` with the open questions in `waiting`, as far as the asking principal may be shown
    them; `text` is the answer (empty while waiting), `citations` the passages it rests on, `label` who may read the
    answer and what could have shaped it. A run that was stopped is `CANCELLED` or `FAILED`, or `STOPPING` while
    another process still sees to that.
    """

    run: str
    status: RunStatus
    text: str = ""
    citations: tuple[Citation, ...] = ()
    waiting: tuple[Approval, ...] = ()
    label: Label = BOTTOM

    @property
    def unfounded(self) -> tuple[str, ...]:
        """What the answer quotes, between quotation marks, and no passage it was shown says word for word."""
        founded = {quote for citation in self.citations for quote in citation.quotes}
        return tuple(quote for quote in quotations(self.text) if quote not in founded)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Setting:
    """What the runs of an app have in common."""

    app: str
    policy: Policy
    journal: Journal
    tools: tuple[Tool, ...]
    budgets: Budgets
    guards: Guards
    disarm: Disarm | None
    desk: ApprovalDesk


class Runs:
    """Carries out the runs of an app. A run may take `deadline` seconds unless told otherwise."""

    def __init__(
        self,
        setting: Setting,
        assembly: Assembly,
        heart: Heart,
        *,
        steps: Sequence[str],
        clock: Callable[[], float],
        watch: Watch | None,
        deadline: float,
        undo_failed: bool,
    ) -> None:
        self._app, self._policy, self._journal = setting.app, setting.policy, setting.journal
        self._tools, self._budgets, self._guards = setting.tools, setting.budgets, setting.guards
        self._disarm, self._standing = setting.disarm, setting.desk.rules
        self._assembly, self._heart, self._steps = assembly, heart, steps
        self._clock, self._watch = clock, watch
        self._deadline, self._undo_failed = deadline, undo_failed

    async def begin(
        self,
        question: str,
        principal: Principal,
        intent: Collection[str] | None,
        run: str | None,
        deadline: float | None,
    ) -> tuple[RunLog, Turn]:
        """Let somebody ask, and write down that they did; see `App.ask`."""
        if not question.strip():
            raise InvalidInput("the question is empty", hint="ask something")
        decision = await self._policy.decide(principal, "ask", f"app:{self._app}")
        if not decision:
            raise ActionDenied(f"{principal.id} may not ask {self._app}: {decision.reason}", rule=decision.rule)
        grants = await self._policy.grants(principal)
        asked = Labelled(question, question_label(principal))
        tools = None if intent is None else frozenset(intent)
        turn = Turn(run or secrets.token_hex(16), principal, asked, grants, intent=tools)
        log = RunLog(self._journal, self._policy, turn.run, principal, asked, intent=tools, watch=self._watch)
        log.standing, log.clock = self._standing, self._clock
        seconds = self._deadline if deadline is None else deadline
        if self._guards.questioned:
            return await self._guarded(log, turn, seconds)
        log.note("run.started", started(turn, app=self._app, steps=self._steps, seconds=seconds))
        return log, turn

    async def _guarded(self, log: RunLog, turn: Turn, seconds: float) -> tuple[RunLog, Turn]:
        """Begin a run with the question that its guards let pass; one that they refuse is not written down."""
        text, told, refused = await guard_question(RunGuards(self._guards, log, lambda: (log.question.value,)))
        log.question = Labelled(text, log.question.label)
        turn = replace(turn, question=log.question)
        log.note("run.started", started(turn, app=self._app, steps=self._steps, seconds=seconds))
        told()
        if refused is not None:
            await self._end(
                log, "run.failed", {"error": type(refused).__name__, "what": str(refused)}, RunStatus.FAILED
            )
            raise refused
        return log, turn

    async def execute(
        self, log: RunLog, turn: Turn, place: int, sink: Sink | None, deadline: float | None
    ) -> RunResult:
        """Run the steps from `place` on, and put the end of the run, whatever it is, into the journal."""
        known: RingwallError | None = None
        late = self._heart.enter(log)
        try:
            seconds = self._deadline if deadline is None else deadline
            async with asyncio.timeout(seconds) as clock:
                if seconds <= 0:
                    await asyncio.sleep(0)  # nothing is left, and nothing is begun
                await log.flush(worker=await self._heart.renewed() if late else self._heart.worker)
                turn = await self._assembly.run(turn, place, log, sink)
                return await self._finish(log, turn)
        except RunCancelled:
            pass
        except asyncio.CancelledError:
            if not await self._was_told(log):
                raise
        except Exception as error:  # noqa: BLE001 (the edge of the run: steps are anyone's code)
            timed_out = isinstance(error, TimeoutError) and clock.expired()
            known = _as_ringwall_error(error, timed_out=timed_out)
            await self._failed(log, known)
        finally:
            self._heart.leave(log.run)
        # Raised out here, with nothing being handled that Python would hang onto it as its context.
        if known is None:
            await self._settle(log.run)
            raise RunCancelled(log.run)
        raise await self._shown(log, known)

    async def resume(self, run: str, sink: Sink | None, deadline: float | None) -> RunResult:
        """Go on with a run; see `App.resume`."""
        log, beginning, done, seconds = await self._pick_up(run, deadline)
        if done:
            return await self._again(log, beginning.turn)
        if beginning.stop is not None:
            return await self._unwind(run)
        return await self.execute(log, beginning.turn, beginning.place, sink, seconds)

    async def cancel(self, run: str, by: Principal, why: str) -> RunResult:
        """Stop a run; see `App.cancel`."""
        if await self._stop(run, by, why):
            return await self._unwind(run, reader=by)
        self._heart.stop(run)
        return RunResult(run, (await self._journal.record(run)).status)

    async def _finish(self, log: RunLog, turn: Turn) -> RunResult:
        if turn.status is TurnStatus.WAITING:
            log.note("run.waiting", {"calls": [call.id for call in turn.pending]})
            await log.flush(status=RunStatus.WAITING, durable=True)
            return RunResult(turn.run, RunStatus.WAITING, waiting=await questions_for(log, log.principal))
        if log.before_flush is not None:  # as `settle` does, a call cheaper
            log.before_flush()
            log.before_flush = None
        await release(log, as_="run.finished")
        await log.flush(status=RunStatus.DONE)
        if self._budgets.rules:
            await self._budgets.finished(turn.run, turn.principal)
        return _result(turn, log.floor)

    async def _again(self, log: RunLog, turn: Turn) -> RunResult:
        """The result of a run that is done, if its principal may still receive it."""
        if not log.floor.may_flow_to(await self._policy.grants(log.principal)):
            raise FlowDenied("the answer rests on what you may not receive any more")
        return _result(turn, log.floor)

    async def _was_told(self, log: RunLog) -> bool:
        """Write down that the run was interrupted. Returns whether that was because somebody else cancelled it."""
        match self._heart.told(log.run):
            case Told.STOP:
                _not_cancelled()
                with contextlib.suppress(JournalError, RunCancelled):
                    await log.flush()
                return True
            case Told.PUT_DOWN:
                _not_cancelled()
                self._heart.lose(log.run)
                with contextlib.suppress(JournalError, RunCancelled):
                    await log.flush()
            case None if has_effects(log, self._tools):
                await self._end_by_stopping(log, Stop(log.principal.id, RunStatus.CANCELLED))
            case None:
                await self._end(log, "run.cancelled", {}, RunStatus.CANCELLED)
        return False

    async def _failed(self, log: RunLog, error: RingwallError) -> None:
        kind, what = type(error).__name__, str(error)
        if self._undo_failed and has_effects(log, self._tools):
            await self._end_by_stopping(log, Stop(log.principal.id, RunStatus.FAILED, what, kind))
        else:
            await self._end(log, "run.failed", {"error": kind, "what": what}, RunStatus.FAILED)

    async def _end(self, log: RunLog, kind: str, body: dict[str, JSON], status: RunStatus) -> bool:
        """Note how a run ended, also while being cancelled; a journal that fails now must not hide why."""
        log.settle()
        log.note(kind, body)
        try:
            await asyncio.shield(log.flush(status=status))
        except JournalConflict:  # it is somebody else's now
            return False
        except RunCancelled:
            await asyncio.shield(self._settle(log.run))
            return False
        except JournalError:
            self._heart.lose(log.run)
            return False
        return True

    async def _end_by_stopping(self, log: RunLog, stop: Stop) -> None:
        if await self._end(log, *stop.event, RunStatus.STOPPING):
            await asyncio.shield(self._settle(log.run))

    async def _settle(self, run: str) -> None:
        """Undo what a stopped run did; a journal that fails now must not hide why the run was stopped."""
        try:
            await self._unwind(run)
        except JournalError:
            self._heart.lose(run)

    async def _unwind(self, run: str, *, reader: Principal | None = None) -> RunResult:
        """Undo what a stopped run did; questions that are open then are told as far as `reader` may receive them."""
        log, beginning = await self._restore(run)
        if beginning.stop is None:
            raise InvalidInput(f"run {run!r} was not stopped", hint="cancel it")
        carried = self._heart.carries(run)
        if not carried:
            self._heart.enter(log)
        self._heart.spare(run)
        try:
            events = await self._journal.read(run)
            status = await Unwinding(log, events, beginning.stop, self._tools).run()
        finally:
            if not carried:
                self._heart.leave(run)
        return RunResult(run, status, waiting=await questions_for(log, reader or log.principal))

    async def _shown(self, log: RunLog, error: RingwallError) -> RingwallError:
        """The error as the asking principal may see it: without its text if the run has read what it may not."""
        if log.floor.may_flow_to(await self._policy.grants(log.principal)):
            tell_what_was_done(error, log)
            return self._inert(error) if influenced(log) else error
        error.what, error.expected, error.hint = "the run failed; what it had read may not be shown to you", "", ""
        error.args = (error.what,)
        error.__cause__ = error.__context__ = error.__traceback__ = None
        error.__notes__ = []
        return error

    def _inert(self, error: RingwallError) -> RingwallError:
        """The error with its text disarmed: it may hold what a model wrote."""
        if self._disarm is not None and self._disarm.touches(str(error)):
            parts = (error.what, error.expected, error.hint)
            error.what, error.expected, error.hint = map(self._disarm.disarmed, parts)
            error.args = (error.what,)
        return error

    async def _restore(self, run: str) -> tuple[RunLog, Beginning]:
        events = await self._journal.read(run)
        check_run(run, events)
        if app_of(events) != self._app:
            raise UnknownRun(run)
        beginning = fold(events)
        turn = beginning.turn
        log = RunLog.restore(
            self._journal, self._policy, turn.principal, turn.question, events, intent=turn.intent, watch=self._watch
        )
        log.standing, log.clock = self._standing, self._clock
        return log, beginning

    async def _pick_up(self, run: str, deadline: float | None) -> tuple[RunLog, Beginning, bool, float]:
        """Return a run's log, where it goes on, whether it is done already, and how many seconds it has."""
        log, beginning = await self._restore(run)
        record = await self._journal.record(run)
        if record.status is RunStatus.DONE and not log.has_all_of(record):  # it ended between the two looks
            log, beginning = await self._restore(run)
        status = record.status
        if status is RunStatus.CANCELLED or (status is RunStatus.FAILED and beginning.stop is not None):
            raise NotWaiting(
                f"run {run!r} was {'cancelled' if beginning.stop is None else 'stopped'}", hint="ask again"
            )
        done = status is RunStatus.DONE
        seconds = self._seconds(beginning) if deadline is None else deadline
        if beginning.stop is not None:
            await self._hold(log, RunStatus.STOPPING, {})
        elif not done:
            check_same_pipeline(beginning, steps=self._steps)
            await self._hold(log, RunStatus.RUNNING, {"seconds": seconds})
            beginning = replace(beginning, turn=beginning.turn.evolve(status=TurnStatus.RUNNING))
        return log, beginning, done, seconds

    def _seconds(self, beginning: Beginning) -> float:
        left = beginning.deadline.left(time.time())
        return self._deadline if left is None else left

    async def _hold(self, log: RunLog, status: RunStatus, body: dict[str, JSON]) -> None:
        """From here on the run is this process's. Raises `RunHeld` while another that lives carries it on."""
        if self._heart.carries(log.run):
            raise RunHeld(log.run)
        log.note("run.resumed", body)
        worker = await self._heart.renewed()
        try:
            await log.flush(status=status, worker=worker)
        except RunHeld:
            await self._heart.bury()
            await log.flush(status=status, worker=worker)

    async def carry_on(self, run: str) -> None:
        """Go on with a run that was taken."""
        log, beginning = await self._restore(run)
        if beginning.stop is not None:
            await self._settle(run)
        else:
            seconds = self._seconds(beginning)
            await self.execute(log, beginning.turn, beginning.place, None, seconds)

    async def resume_answered(self, run: str) -> None:
        log, beginning = await self._restore(run)
        lapsed = any(is_lapsed(state, self._clock()) for state in log.calls.values())
        if beginning.steps == self._steps and (lapsed or not waiting_calls(log)):
            await self.resume(run, None, None)

    async def _stop(self, run: str, by: Principal, why: str) -> bool:
        """Write down that a run is not to go on. Returns whether it is now this process's to undo."""
        written = False
        for _ in range(_TRIES):  # whoever carries it on writes too
            log, beginning = await self._restore(run)
            await may_cancel(self._policy, self._app, log.principal, by)
            status = (await self._journal.record(run)).status
            over = status in (RunStatus.DONE, RunStatus.CANCELLED)
            if over or (status is RunStatus.FAILED and beginning.stop is not None):
                if written:  # and undone by whoever carried it on
                    return False
                raise NotWaiting(f"run {run!r} is over", hint="what it did stays done")
            with contextlib.suppress(JournalConflict, RunCancelled):
                if beginning.stop is None:
                    log.note(*Stop(by.id, RunStatus.CANCELLED, why).event)
                    await log.flush(status=RunStatus.STOPPING, durable=True)
                    written = True
                try:
                    await self._hold(log, RunStatus.STOPPING, {})
                except RunHeld:
                    return False
                return True
        raise JournalConflict(f"run {run!r} goes on too fast to be stopped", hint="try again")


async def streamed(execute: Callable[[Sink], Awaitable[RunResult]]) -> AsyncGenerator[str | RunResult, None]:
    """Yield the text of a run as it is written, then its result; leaving the stream cancels the run."""
    pieces: asyncio.Queue[str | None] = asyncio.Queue()
    task = asyncio.ensure_future(execute(pieces.put))
    task.add_done_callback(lambda _: pieces.put_nowait(None))
    try:
        while (piece := await pieces.get()) is not None:
            yield piece
        yield await task
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _result(turn: Turn, label: Label) -> RunResult:
    return RunResult(turn.run, RunStatus.DONE, turn.answer, turn.citations, label=label)


def _not_cancelled() -> None:
    """This task goes on, although it was interrupted."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()


def _as_ringwall_error(error: Exception, *, timed_out: bool) -> RingwallError:
    if timed_out:
        return LimitReached(
            "the run reached its deadline", hint="what it did is in the journal; resume it with a `deadline`"
        )
    if isinstance(error, RingwallError):
        return error
    failed = StepFailed(f"a step raised {type(error).__name__}: {error}")
    failed.__cause__ = error
    return failed


__all__ = ["RunResult"]
