"""The composition root: layers in, gates on, one question in and one answer out."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypeVar

from ringwall.assembly import Assembly, Parts
from ringwall.container import Wiring
from ringwall.data.admit import Pending, Readers
from ringwall.data.base import DocumentStore, Embeddings
from ringwall.data.ingest import Ingestor
from ringwall.data.manifest import Manifest
from ringwall.data.memory import MemoryStore as InMemoryDocuments
from ringwall.data.outcome import IngestReport, Refused
from ringwall.data.receiving import PUBLIC_ONLY, in_tenant_of, receiver_of
from ringwall.data.workers import Workers
from ringwall.deployment.approvals import Approval, questions_for, waiting_calls
from ringwall.deployment.asking import is_lapsed
from ringwall.deployment.base import Policy
from ringwall.deployment.budgets import Budget, Budgets, Rate
from ringwall.deployment.delivery import Delivery
from ringwall.deployment.desk import ApprovalDesk, Bounds
from ringwall.deployment.disarm import DISARM, Disarm
from ringwall.deployment.erasure import Erasure, erase, may_erase
from ringwall.deployment.explain import Explanation, explain
from ringwall.deployment.gates import question_label, release
from ringwall.deployment.guard import Guard
from ringwall.deployment.guarded import influenced
from ringwall.deployment.guarding import Guards, RunGuards, guard_question
from ringwall.deployment.journal import Event, InMemoryJournal, Journal, RunRecord, RunStatus, check_run
from ringwall.deployment.leases import LEASE, Heart, Told
from ringwall.deployment.limits import StandingRule
from ringwall.deployment.reading import app_of, readable_events, tell_what_was_done
from ringwall.deployment.runlog import RunLog
from ringwall.deployment.sealing import SealedJournal
from ringwall.deployment.sinks import EventSink
from ringwall.deployment.standing import Standing
from ringwall.deployment.unwinding import Stop, Unwinding, has_effects, may_cancel
from ringwall.door import Door
from ringwall.errors import (
    ActionDenied,
    ConfigurationError,
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
from ringwall.health import HealthReport, examine
from ringwall.interface.base import Tool
from ringwall.interface.runner import LocalToolRunner
from ringwall.label import Labelled
from ringwall.model.base import ModelProvider
from ringwall.personalization.base import MemoryStore, ProfileStore
from ringwall.personalization.memory import InMemoryMemories, InMemoryProfiles
from ringwall.pipeline import Pipeline
from ringwall.principal import Grants, Principal
from ringwall.recovery import Recovery
from ringwall.run import Beginning, Sink, check_same_pipeline, fold, started
from ringwall.schema import JSON, canonical, digest
from ringwall.steps import ordinary_pipeline
from ringwall.turn import Citation, Turn, TurnStatus, quotations

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.runnables import Runnable

T = TypeVar("T")

_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class RunResult:
    """What a run came to.

    `status` is `DONE`, or `WAITING` with the open questions in `waiting`, as far as the asking principal may be shown
    them; `text` is the answer (empty while waiting), `citations` the passages it rests on. A run that was stopped is
    `CANCELLED` or `FAILED`, or `STOPPING` while another process still sees to that.
    """

    run: str
    status: RunStatus
    text: str = ""
    citations: tuple[Citation, ...] = ()
    waiting: tuple[Approval, ...] = ()

    @property
    def unfounded(self) -> tuple[str, ...]:
        """What the answer quotes, between quotation marks, and no passage it was shown says word for word."""
        founded = {quote for citation in self.citations for quote in citation.quotes}
        return tuple(quote for quote in quotations(self.text) if quote not in founded)

    def __str__(self) -> str:
        return self.text


class App:
    """An assembled application.

    `policy` and `model` are required; what is not given is kept in this process's memory. Several models are
    tried in the order given, each only if it may receive what the run has read. `guards` inspect and rewrite what
    passes, in the order given; after them `disarm` makes inert what the user is shown of what others could have
    shaped (None: it does not). `sinks` are told what happens in each run, and nothing that they may not receive.
    `wiring` is called with the app's `Wiring` to provide what your own steps ask for. `clock` says the Unix time, in
    seconds, that bounds approvals.

    A run may take `deadline` seconds unless told otherwise. A process that is not heard of for `lease` seconds is
    taken to be dead, and others may take up its runs. With `undo_failed` a run that fails is undone, as one that is
    cancelled.

    Raises `MissingDependency` when a step asks for what nobody provides. Use it as a context manager, `with` or
    `async with`: what was passed in is closed with it.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        model: ModelProvider | Sequence[ModelProvider],
        documents: DocumentStore | None = None,
        embeddings: Embeddings | None = None,
        tools: Sequence[Tool] = (),
        journal: Journal | None = None,
        profiles: ProfileStore | None = None,
        memories: MemoryStore | None = None,
        pipeline: Pipeline | None = None,
        guards: Sequence[Guard] = (),
        disarm: Disarm | None = DISARM,
        name: str = "app",
        deadline: float = 300.0,
        lease: float = LEASE,
        undo_failed: bool = False,
        budgets: Budgets | Sequence[Budget | Rate] = (),
        wiring: Callable[[Wiring], None] | None = None,
        sinks: Sequence[EventSink] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.policy = policy
        self.documents = documents or InMemoryDocuments()
        self.embeddings = embeddings
        self.journal = journal or InMemoryJournal()
        self.profiles = profiles or InMemoryProfiles()
        self.memories = memories or InMemoryMemories()
        self.tools = tuple(tools)
        self.models = (model,) if isinstance(model, ModelProvider) else tuple(model)
        self.pipeline = pipeline or ordinary_pipeline()
        self.budgets = Budgets(tuple(budgets)) if isinstance(budgets, Sequence) else budgets
        self._deadline, self._guards, self._disarm = deadline, Guards(guards), disarm
        self._undo_failed = undo_failed
        self._heart = Heart(self.journal, digest(canonical([name, *self.pipeline.names])), seconds=lease)
        self._recovery = Recovery(self.journal, self._heart, self._carry_on, self._resume_answered)
        self._door = Door()
        self._delivery = Delivery(name, policy, sinks) if sinks else None
        self._watch = None if self._delivery is None else self._delivery.tell
        self._clock = clock
        self.desk = ApprovalDesk(self.journal, self.policy, name, clock=clock, watch=self._watch)
        parts = Parts(
            self.policy,
            self.documents,
            self.profiles,
            self.memories,
            LocalToolRunner(self.tools),
            self.models,
            self.embeddings,
            self._guards,
            disarm,
            self.budgets if self.budgets.rules else None,
        )
        self._assembly = Assembly(parts, self.pipeline, wiring)

    # Filling

    async def ingest(
        self,
        documents: Iterable[Document | tuple[str, str] | Pending | Refused],
        readers: Readers,
        *,
        tenant: str = "",
        manifest: Manifest | None = None,
        all_of: str | None = None,
        workers: Workers | None = None,
    ) -> IngestReport:
        """Split, embed and store documents, each with its readers; the report says what became of each.

        `readers` is an ACL for all, or a function that says it of each; a document without readers is refused.
        With a `manifest` only what changed is done; `all_of` then says that these are all the documents whose ids
        begin so, and others are removed. `workers` read, split and embed instead of this process. This is the
        deployer's door: no principal is asked about, but an embedder elsewhere, which is sent what it may read and
        no more. Raises `StoreError`.
        """
        holds = await self._held_by_embedder(tenant)
        ingestor = Ingestor(self.documents, self.embeddings, manifest=manifest, workers=workers, embedder_holds=holds)
        return await ingestor.ingest(documents, readers, tenant=tenant, all_of=all_of)

    # Asking

    async def ask(
        self,
        question: str,
        *,
        as_: Principal,
        intent: Collection[str] | None = None,
        run: str | None = None,
        deadline: float | None = None,
    ) -> RunResult:
        """Ask on behalf of `as_` and return what came of it.

        `intent` names the tools that the user's own action calls for (a button pressed, a form sent): a call of
        one of them is caused by the user alone. `run` is an id of your own; a second run with it is refused.
        `deadline` is in seconds.

        Raises `ActionDenied` when `as_` may not ask this app, and whatever went wrong inside the run; what was
        done before is in the journal.
        """
        log, turn = await self._begin(question, as_, intent, run, deadline)
        return await self._execute(log, turn, 0, None, deadline)

    async def stream(
        self,
        question: str,
        *,
        as_: Principal,
        intent: Collection[str] | None = None,
        run: str | None = None,
        deadline: float | None = None,
    ) -> AsyncGenerator[str | RunResult, None]:
        """Ask, and yield the text as it is written; the last thing is the `RunResult`.

        Leaving the stream cancels the run: the model stops within one token.
        """
        log, turn = await self._begin(question, as_, intent, run, deadline)
        async for piece in self._streamed(lambda sink: self._execute(log, turn, 0, sink, deadline)):
            yield piece

    def ask_sync(self, question: str, *, as_: Principal, intent: Collection[str] | None = None) -> RunResult:
        """Ask from code that is not async; the same as `run_sync(ask(...))`."""
        return self.run_sync(self.ask(question, as_=as_, intent=intent))

    def run_sync(self, work: Coroutine[Any, Any, T]) -> T:
        """The one synchronous door: run any of the app's coroutines to its end, from any thread.

        The work runs on an event loop that the app keeps. Raises `InvalidInput` when called from async code.
        """
        return self._door.run(work)

    # Approving and resuming

    async def waiting(self, *, as_: Principal) -> list[Approval]:
        """The open questions that `as_` may see and answer, each as far as it may be shown."""
        return await self.desk.waiting(as_)

    async def approve(
        self,
        run: str,
        *,
        by: Principal,
        call: str | Sequence[str] | None = None,
        note: str = "",
        standing: StandingRule | None = None,
    ) -> None:
        """Answer yes to a run's open question: for exactly that call with exactly these arguments, once.

        `call` may be left out when only one is open; several are answered together or not at all. With `standing`,
        which `draft` made, calls within its bounds are let from the next decision on.

        Raises `UnknownRun`, `NotWaiting` (also when it is too late), `ActionDenied` (nobody approves its own call,
        unless the rule says so), `FlowDenied`, and `JournalConflict` when somebody else was quicker.
        """
        await self.desk.approve(run, by, calls=_named(call), note=note, standing=standing)

    async def deny(self, run: str, *, by: Principal, call: str | Sequence[str] | None = None, note: str = "") -> None:
        """Answer no to a run's open question; the model is told, and the run goes on when it is resumed."""
        await self.desk.deny(run, by, calls=_named(call), note=note)

    async def declassify(self, run: str, *, by: Principal, call: str | None = None, note: str = "") -> None:
        """Let the arguments of one exact call reach receivers who may not read what they were made from, once.

        For whoever may `declassify` every grant on the lists of readers that are in the way, and may read them.
        Raises as `approve` does.
        """
        await self.desk.declassify(run, by, call=call, note=note)

    async def draft(self, run: str, *, by: Principal, bounds: Bounds, call: str | None = None) -> StandingRule:
        """The rule that `by` would let stand by a yes within `bounds`: read its `line`, then pass it to `approve`.

        Beyond this run it takes the right to do `standing` to the tool. Raises as `approve` does.
        """
        return await self.desk.draft(run, by, bounds, call=call)

    async def standing(self, *, as_: Principal) -> list[Standing]:
        """The rules that stand, as far as `as_` may manage them."""
        return await self.desk.standing(as_)

    async def revoke(self, standing: str, *, by: Principal, note: str = "") -> None:
        """Take back a rule that stands, by its id. Raises `NotWaiting` if there is none that `by` may revoke."""
        await self.desk.revoke(standing, by, note=note)

    async def resolve(
        self, run: str, *, by: Principal, happened: bool, call: str | None = None, result: str = ""
    ) -> None:
        """Say what became of a call in doubt: whether it happened, and what it returned."""
        await self.desk.resolve(run, by, happened=happened, call=call, result=result)

    async def resume(self, run: str, *, deadline: float | None = None) -> RunResult:
        """Go on with a run that waited, failed, or was interrupted, in this process or another.

        Nothing that the journal holds is done or asked again. A run that is done returns its result once more; one
        that is being stopped goes on with that. `deadline` is in seconds; without it the run has what is left of its
        own. Raises `UnknownRun`, `NotWaiting` for a run that was cancelled or undone, and `RunHeld` for one that a
        living process carries on.
        """
        log, beginning, done, seconds = await self._pick_up(run, deadline)
        if done:
            return await self._again(log, beginning.turn)
        if beginning.stop is not None:
            return await self._unwind(run)
        return await self._execute(log, beginning.turn, beginning.place, None, seconds)

    async def resume_stream(self, run: str, *, deadline: float | None = None) -> AsyncGenerator[str | RunResult, None]:
        """Like `resume`, yielding the text as it is written."""
        log, beginning, done, seconds = await self._pick_up(run, deadline)
        if done:
            yield await self._again(log, beginning.turn)
            return
        if beginning.stop is not None:
            yield await self._unwind(run)
            return
        turn, place = beginning.turn, beginning.place
        async for piece in self._streamed(lambda sink: self._execute(log, turn, place, sink, seconds)):
            yield piece

    # Stopping, and taking up what others left

    async def cancel(self, run: str, *, by: Principal, why: str = "") -> RunResult:
        """Stop a run, wherever it goes on: nothing more is begun, and what its tools can undo is undone.

        Whoever asked may, and whom the policy lets `cancel app:<name>`. A run that failed is undone. Returns a result
        that is `CANCELLED`; `WAITING` when somebody must first say what became of a call, or approve an undo
        (`resume` then goes on with that); `STOPPING` when a living process has yet to hear of it.
        Raises `UnknownRun`, `ActionDenied`, and `NotWaiting` for a run that is over.
        """
        if await self._stop(run, by, why):
            return await self._unwind(run, reader=by)
        self._heart.stop(run)
        return RunResult(run, (await self.journal.record(run)).status)

    async def recover(self, *, limit: int = 100) -> list[RunRecord]:
        """Take up the runs of this app whose process died, and go on with each until it ends or waits.

        No run is taken from a process that lives, and each goes to one taker. At most `limit` are taken, the oldest
        first; returns where they stand. What goes wrong inside one is in its events. Raises `JournalUnavailable`.
        """
        return await self._recovery.sweep(limit)

    async def work(self, *, every: float = 1.0, concurrency: int = 16) -> None:
        """Look every so many seconds for runs to take up, and for waiting ones whose questions were answered.

        Any number of processes may do so. Goes on until it is cancelled; a journal that fails is tried again.
        """
        await self._recovery.work(every, concurrency)

    # Reading what happened

    async def events(self, run: str, *, as_: Principal) -> list[Event]:
        """The events of a run, as far as `as_` may receive them; what it may not is left empty, its place kept.

        Raises `UnknownRun` for whoever neither asked the run nor may `audit` this app, and for another app's run.
        """
        record, events = await self.journal.record(run), await self.journal.read(run)
        return await readable_events(events, record.owner, self.policy, as_, app=self.name)

    async def explain(self, run: str, *, as_: Principal) -> Explanation:
        """Say which documents, memories and rules led to the answer and each action of a run, and why they were let.

        As far as `as_` may receive the run's events. Raises `UnknownRun` as `events` does.
        """
        return explain(await self.events(run, as_=as_))

    async def verify(self) -> int:
        """Check the journal's chains; return the number of events. Raises `ChainBroken` naming the first bad one."""
        return await self.journal.verify()

    # Forgetting

    async def erase(self, subject: Principal, *, by: Principal) -> Erasure:
        """Erase what is kept of somebody: runs and open questions, profile, memories, cached replies.

        `by` must be allowed to `erase` `subject:<id>`, or `subject:self` when it is its own. Call it again when it was
        interrupted. Raises `ActionDenied`, `ConfigurationError` unless the journal is a `SealedJournal`, and what the
        stores raise.
        """
        await may_erase(self.policy, subject, by)
        if not isinstance(self.journal, SealedJournal):
            raise ConfigurationError("the journal is not sealed, and cannot forget", expected="a `SealedJournal`")
        forget = [partial(self.profiles.forget, subject), partial(self.memories.forget, subject)]
        forget += [partial(model.forget, subject.own_grant) for model in self.models]
        return await erase(self.journal, subject.own_grant, by=by.own_grant, forget=forget)

    # Living

    async def health(self, *, seconds: float = 2.0) -> HealthReport:
        """Look whether each part could do its work now, for so many seconds at most; `ready` sums it up.

        Nothing is asked of a model that costs anything, and the report holds no word of any error.
        """
        return await examine(
            policy=self.policy,
            journal=self.journal,
            documents=self.documents,
            profiles=self.profiles,
            memories=self.memories,
            models=self.models,
            sinks=() if self._delivery is None else self._delivery.states(),
            seconds=seconds,
        )

    async def close(self) -> None:
        """Close everything that was passed in, in reverse order; what fails to close does not keep the rest open."""
        errors: list[Exception] = []
        parts: tuple[_Closable, ...] = (
            self.policy,
            self.journal,
            self._heart,
            self.documents,
            self.profiles,
            self.memories,
            *self.models,
            *(() if self._delivery is None else (self._delivery,)),
            self.budgets,
            self._guards,
        )
        for part in reversed(parts):
            try:
                await part.close()
            except Exception as error:  # noqa: BLE001 (the outermost edge: the other parts must still be closed)
                errors.append(error)
        self._assembly.close()
        if errors:
            raise ExceptionGroup("some parts of the app did not close", errors)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self.run_sync(self.close())
        finally:
            self._door.close()

    def runnable(self, *, as_: Principal) -> Runnable[str, str]:
        """The pipeline as a LangChain `Runnable` that asks on behalf of `as_`: text in, text out."""
        from ringwall.runnable import AppRunnable

        return AppRunnable(self, as_)

    # Inside

    async def _held_by_embedder(self, tenant: str) -> Grants:
        receiver = None if self.embeddings is None else receiver_of(self.embeddings)
        return PUBLIC_ONLY if receiver is None else await self.policy.grants(in_tenant_of(receiver, tenant))

    async def _begin(
        self,
        question: str,
        principal: Principal,
        intent: Collection[str] | None,
        run: str | None,
        deadline: float | None,
    ) -> tuple[RunLog, Turn]:
        if not question.strip():
            raise InvalidInput("the question is empty", hint="ask something")
        decision = await self.policy.decide(principal, "ask", f"app:{self.name}")
        if not decision:
            raise ActionDenied(f"{principal.id} may not ask {self.name}: {decision.reason}", rule=decision.rule)
        grants = await self.policy.grants(principal)
        asked = Labelled(question, question_label(principal))
        tools = None if intent is None else frozenset(intent)
        turn = Turn(run or secrets.token_hex(16), principal, asked, grants, intent=tools)
        log = RunLog(self.journal, self.policy, turn.run, principal, asked, intent=tools, watch=self._watch)
        log.standing, log.clock = self.desk.rules, self._clock
        seconds = self._deadline if deadline is None else deadline
        if self._guards.questioned:
            return await self._guarded(log, turn, seconds)
        log.note("run.started", started(turn, app=self.name, steps=self.pipeline.names, seconds=seconds))
        return log, turn

    async def _guarded(self, log: RunLog, turn: Turn, seconds: float) -> tuple[RunLog, Turn]:
        """Begin a run with the question that its guards let pass; one that they refuse is not written down."""
        text, told, refused = await guard_question(RunGuards(self._guards, log, lambda: (log.question.value,)))
        log.question = Labelled(text, log.question.label)
        turn = replace(turn, question=log.question)
        log.note("run.started", started(turn, app=self.name, steps=self.pipeline.names, seconds=seconds))
        told()
        if refused is not None:
            await self._end(
                log, "run.failed", {"error": type(refused).__name__, "what": str(refused)}, RunStatus.FAILED
            )
            raise refused
        return log, turn

    async def _execute(
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
        if self.budgets.rules:
            await self.budgets.finished(turn.run, turn.principal)
        return _result(turn)

    async def _again(self, log: RunLog, turn: Turn) -> RunResult:
        """The result of a run that is done, if its principal may still receive it."""
        if not log.floor.may_flow_to(await self.policy.grants(log.principal)):
            raise FlowDenied("the answer rests on what you may not receive any more")
        return _result(turn)

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
            case None if has_effects(log, self.tools):
                await self._end_by_stopping(log, Stop(log.principal.id, RunStatus.CANCELLED))
            case None:
                await self._end(log, "run.cancelled", {}, RunStatus.CANCELLED)
        return False

    async def _failed(self, log: RunLog, error: RingwallError) -> None:
        kind, what = type(error).__name__, str(error)
        if self._undo_failed and has_effects(log, self.tools):
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
            events = await self.journal.read(run)
            status = await Unwinding(log, events, beginning.stop, self.tools).run()
        finally:
            if not carried:
                self._heart.leave(run)
        return RunResult(run, status, waiting=await questions_for(log, reader or log.principal))

    async def _shown(self, log: RunLog, error: RingwallError) -> RingwallError:
        """The error as the asking principal may see it: without its text if the run has read what it may not."""
        if log.floor.may_flow_to(await self.policy.grants(log.principal)):
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

    async def _streamed(self, execute: Callable[[Sink], Awaitable[RunResult]]) -> AsyncGenerator[str | RunResult, None]:
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

    async def _restore(self, run: str) -> tuple[RunLog, Beginning]:
        events = await self.journal.read(run)
        check_run(run, events)
        if app_of(events) != self.name:
            raise UnknownRun(run)
        beginning = fold(events)
        turn = beginning.turn
        log = RunLog.restore(
            self.journal, self.policy, turn.principal, turn.question, events, intent=turn.intent, watch=self._watch
        )
        log.standing, log.clock = self.desk.rules, self._clock
        return log, beginning

    async def _pick_up(self, run: str, deadline: float | None) -> tuple[RunLog, Beginning, bool, float]:
        """Return a run's log, where it goes on, whether it is done already, and how many seconds it has."""
        log, beginning = await self._restore(run)
        status = (await self.journal.record(run)).status
        if status is RunStatus.CANCELLED or (status is RunStatus.FAILED and beginning.stop is not None):
            raise NotWaiting(
                f"run {run!r} was {'cancelled' if beginning.stop is None else 'stopped'}", hint="ask again"
            )
        done = status is RunStatus.DONE
        seconds = self._seconds(beginning) if deadline is None else deadline
        if beginning.stop is not None:
            await self._hold(log, RunStatus.STOPPING, {})
        elif not done:
            check_same_pipeline(beginning, steps=self.pipeline.names)
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

    async def _carry_on(self, run: str) -> None:
        """Go on with a run that was taken."""
        log, beginning = await self._restore(run)
        if beginning.stop is not None:
            await self._settle(run)
        else:
            seconds = self._seconds(beginning)
            await self._execute(log, beginning.turn, beginning.place, None, seconds)

    async def _resume_answered(self, run: str) -> None:
        log, beginning = await self._restore(run)
        lapsed = any(is_lapsed(state, self._clock()) for state in log.calls.values())
        if beginning.steps == self.pipeline.names and (lapsed or not waiting_calls(log)):
            await self.resume(run)

    async def _stop(self, run: str, by: Principal, why: str) -> bool:
        """Write down that a run is not to go on. Returns whether it is now this process's to undo."""
        written = False
        for _ in range(_TRIES):  # whoever carries it on writes too
            log, beginning = await self._restore(run)
            await may_cancel(self.policy, self.name, log.principal, by)
            status = (await self.journal.record(run)).status
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


class _Closable(Protocol):
    async def close(self) -> None: ...


def _named(call: str | Sequence[str] | None) -> Sequence[str]:
    """The calls that are meant; none: the only one that is open."""
    return () if call is None else (call,) if isinstance(call, str) else call


def _result(turn: Turn) -> RunResult:
    return RunResult(turn.run, RunStatus.DONE, turn.answer, turn.citations)


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
