"""The composition root: layers in, gates on, one question in and one answer out."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

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
from ringwall.deployment.approvals import Approval
from ringwall.deployment.base import Policy
from ringwall.deployment.budgets import Budget, Budgets, Rate
from ringwall.deployment.delivery import Delivery
from ringwall.deployment.desk import ApprovalDesk, Bounds
from ringwall.deployment.disarm import DISARM, Disarm
from ringwall.deployment.erasure import Erasure, erase, may_erase
from ringwall.deployment.explain import Explanation, explain
from ringwall.deployment.guard import Guard
from ringwall.deployment.guarding import Guards
from ringwall.deployment.journal import Event, InMemoryJournal, Journal, RunRecord
from ringwall.deployment.leases import LEASE, Heart
from ringwall.deployment.limits import StandingRule
from ringwall.deployment.reading import readable_events
from ringwall.deployment.sealing import SealedJournal
from ringwall.deployment.sinks import EventSink
from ringwall.deployment.standing import Standing
from ringwall.door import Door
from ringwall.errors import (
    ConfigurationError,
)
from ringwall.health import HealthReport, examine
from ringwall.interface.base import Tool
from ringwall.interface.runner import LocalToolRunner
from ringwall.model.base import ModelProvider
from ringwall.personalization.base import MemoryStore, ProfileStore
from ringwall.personalization.memory import InMemoryMemories, InMemoryProfiles
from ringwall.pipeline import Pipeline
from ringwall.principal import Grants, Principal
from ringwall.recovery import Recovery
from ringwall.runs import RunResult, Runs, Setting, streamed
from ringwall.schema import canonical, digest
from ringwall.steps import ordinary_pipeline

if TYPE_CHECKING:
    from langchain_core.documents import Document
    from langchain_core.runnables import Runnable

T = TypeVar("T")


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
        self._guards = Guards(guards)
        self._heart = Heart(self.journal, digest(canonical([name, *self.pipeline.names])), seconds=lease)
        self._door = Door()
        self._delivery = Delivery(name, policy, sinks) if sinks else None
        watch = None if self._delivery is None else self._delivery.tell
        self.desk = ApprovalDesk(self.journal, self.policy, name, clock=clock, watch=watch)
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
        self._runs = Runs(
            Setting(name, self.policy, self.journal, self.tools, self.budgets, self._guards, disarm, self.desk),
            self._assembly,
            self._heart,
            steps=self.pipeline.names,
            clock=clock,
            watch=watch,
            deadline=deadline,
            undo_failed=undo_failed,
        )
        self._recovery = Recovery(self.journal, self._heart, self._runs.carry_on, self._runs.resume_answered)

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
        log, turn = await self._runs.begin(question, as_, intent, run, deadline)
        return await self._runs.execute(log, turn, 0, None, deadline)

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
        log, turn = await self._runs.begin(question, as_, intent, run, deadline)
        async for piece in streamed(lambda sink: self._runs.execute(log, turn, 0, sink, deadline)):
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

        `call` may be left out when only one is open; several are answered together or not at all, and so are those of
        a `group` (see `Approval`), by its name. With `standing`, which `draft` made, calls within its bounds are let
        from the next decision on.

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
        return await self._runs.resume(run, None, deadline)

    async def resume_stream(self, run: str, *, deadline: float | None = None) -> AsyncGenerator[str | RunResult, None]:
        """Like `resume`, yielding the text as it is written."""
        async for piece in streamed(lambda sink: self._runs.resume(run, sink, deadline)):
            yield piece

    # Stopping, and taking up what others left

    async def cancel(self, run: str, *, by: Principal, why: str = "") -> RunResult:
        """Stop a run, wherever it goes on: nothing more is begun, and what its tools can undo is undone.

        Whoever asked may, and whom the policy lets `cancel app:<name>`. A run that failed is undone. Returns a result
        that is `CANCELLED`; `WAITING` when somebody must first say what became of a call, or approve an undo
        (`resume` then goes on with that); `STOPPING` when a living process has yet to hear of it.
        Raises `UnknownRun`, `ActionDenied`, and `NotWaiting` for a run that is over.
        """
        return await self._runs.cancel(run, by, why)

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


class _Closable(Protocol):
    async def close(self) -> None: ...


def _named(call: str | Sequence[str] | None) -> Sequence[str]:
    """The calls that are meant; none: the only one that is open."""
    return () if call is None else (call,) if isinstance(call, str) else call
