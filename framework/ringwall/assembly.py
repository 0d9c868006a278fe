"""How an app's parts are wired: which recipe makes what, and which gate stands in front of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from ringwall.container import Container, Maker, Wiring
from ringwall.data.base import DocumentStore, Embeddings
from ringwall.data.retrieve import Retriever
from ringwall.deployment.base import Policy
from ringwall.deployment.budgets import Budgets
from ringwall.deployment.disarm import Disarm, active
from ringwall.deployment.gates import GatedMemories, GatedModel, GatedProfiles, GatedStore, may_disclose
from ringwall.deployment.guarded import GuardedAnswer
from ringwall.deployment.guarding import Guards, RunGuards
from ringwall.deployment.plandesk import GatedDesk
from ringwall.deployment.rungates import RunGates
from ringwall.deployment.runlog import RunLog
from ringwall.deployment.toolgate import GatedTools
from ringwall.interface.base import ToolRunner
from ringwall.interface.plan import Desk
from ringwall.model.base import ModelProvider
from ringwall.model.router import Router, Skipped
from ringwall.personalization.base import MemoryStore, ProfileStore
from ringwall.pipeline import Checkpoint, Outlet, Pipeline, Recipe, Step, run_steps, step_class
from ringwall.run import RunTrail, Saved, Sink, UserOutlet
from ringwall.turn import Turn, TurnStatus


@dataclass(frozen=True, slots=True)
class Parts:
    """What an app is made of."""

    policy: Policy
    documents: DocumentStore
    profiles: ProfileStore
    memories: MemoryStore
    tools: ToolRunner
    models: Sequence[ModelProvider]
    embeddings: Embeddings | None
    guards: Guards
    disarm: Disarm | None
    budgets: Budgets | None = None


@dataclass(frozen=True, slots=True)
class _Listener:
    """Who takes the text that leaves, None when nobody streams; and what it passes through."""

    sink: Sink | None
    guarded: GuardedAnswer | None


class _Run(tuple[object, ...]):
    """The key of what a run gets at once: what saves its turns, and its steps."""


class Assembly:
    """An app's parts with the gates on, and its pipeline, ready to make the steps of a run.

    Raises `MissingDependency` when a step asks for what nobody provides.
    """

    def __init__(self, parts: Parts, pipeline: Pipeline, more: Callable[[Wiring], None] | None = None) -> None:
        wiring = Wiring()
        _wire_parts(wiring, parts)
        _wire_gates(wiring, parts)
        self._guards, self._disarm = parts.guards, parts.disarm
        retriever = _retriever if parts.budgets is None else _budgeted_retriever
        wiring.run(Retriever, partial(retriever, embeddings=parts.embeddings))
        keys = [_wire_step(wiring, step) for step in pipeline]
        wiring.together(_Run, (Saved, *keys))
        if more is not None:
            more(wiring)
        self._container: Container = wiring.build()

    async def run(self, turn: Turn, place: int, log: RunLog, sink: Sink | None) -> Turn:
        """Run the steps from `place` on, in a scope of their own."""
        guards = answer = None
        if self._guards.some or sink is not None:
            guards = RunGuards(self._guards, log)
            answer = GuardedAnswer(guards, self._disarm)
        with self._container.enter({RunLog: log, _Listener: _Listener(sink, answer), RunGuards: guards}) as scope:
            first, *steps = scope.get(_Run)
            saved = cast(Saved, first)
            saved.begin(turn, place)
            if guards is not None:
                guards.words = saved.words
            turn = await run_steps(cast("list[Step]", steps), turn, start=place, observe=saved.finished)
            if answer is not None:
                await scope.get(Outlet).end()
            elif self._disarm is not None and active(turn.answer):
                answer = GuardedAnswer(RunGuards(self._guards, log, saved.words), self._disarm)
            return turn if answer is None else await _settled(turn, answer, saved)

    def close(self) -> None:
        self._container.close()


async def _settled(turn: Turn, answer: GuardedAnswer, saved: Saved) -> Turn:
    """The turn with the answer as it may be shown. Raises `GuardRefused`."""
    if turn.status is not TurnStatus.RUNNING:
        return turn
    text = await answer.whole(turn.answer)
    if text != turn.answer:
        citations = [c._replace(quotes=tuple(map(answer.quote, c.quotes))) for c in turn.citations]
        turn = turn.evolve(answer=text, citations=tuple(citations))
        saved.mark(turn)
    return turn


def _wire_parts(wiring: Wiring, parts: Parts) -> None:
    wiring.given(RunLog)
    wiring.given(_Listener)
    wiring.given(RunGuards)
    wiring.app(Policy, parts.policy)
    wiring.app(DocumentStore, parts.documents)
    wiring.app(ProfileStore, parts.profiles)
    wiring.app(MemoryStore, parts.memories)
    wiring.app(ToolRunner, parts.tools)


def _wire_gates(wiring: Wiring, parts: Parts) -> None:
    wiring.gate(DocumentStore, GatedStore)
    wiring.gate(ProfileStore, GatedProfiles)
    wiring.gate(MemoryStore, GatedMemories)
    model = _one(parts.models)
    if parts.guards.some or parts.budgets is not None:
        wiring.run(RunGates, partial(_run_gates, guarded=parts.guards.some, budgets=parts.budgets))
        wiring.gate(ToolRunner, _governed_tools)
        wiring.run(ModelProvider, partial(_governed_model, model=model))
    else:
        wiring.gate(ToolRunner, GatedTools)
        if isinstance(model, Router):
            wiring.run(ModelProvider, partial(_gated_router, model=model))
        else:
            wiring.run(ModelProvider, partial(_gated_model, model=model))
    wiring.run(Desk, GatedDesk)
    wiring.run(Outlet, _outlet)
    wiring.run(Saved, Saved)
    wiring.run(Checkpoint, _checkpoint)


def _one(models: Sequence[ModelProvider]) -> ModelProvider:
    return models[0] if len(models) == 1 else Router(*models)


def _run_gates(log: RunLog, guards: RunGuards, *, guarded: bool, budgets: Budgets | None) -> RunGates:
    return RunGates(log, guards if guarded else None, budgets)


def _governed_tools(inner: ToolRunner, gates: RunGates) -> ToolRunner:
    return gates.tools(inner)


def _governed_model(log: RunLog, gates: RunGates, model: ModelProvider) -> ModelProvider:
    return _within(model, gates.model, log) if isinstance(model, Router) else gates.model(model)


def _gated_model(log: RunLog, model: ModelProvider) -> ModelProvider:
    return GatedModel(model, log)


def _gated_router(log: RunLog, model: Router) -> ModelProvider:
    return _within(model, partial(GatedModel, log=log), log)


def _within(model: Router, gate: Callable[[ModelProvider], ModelProvider], log: RunLog) -> ModelProvider:
    """A router, each of whose providers stands behind gates of its own."""

    def note(skipped: Skipped) -> None:
        log.note("model.skipped", {"provider": skipped.provider, "why": skipped.why})

    return model.within(gate, note=note, asker=log.principal.own_grant)


def _retriever(store: DocumentStore, log: RunLog, embeddings: Embeddings | None) -> Retriever:
    return Retriever(store, embeddings, trail=RunTrail(log), may_receive=partial(may_disclose, log))


def _budgeted_retriever(store: DocumentStore, log: RunLog, gates: RunGates, embeddings: Embeddings | None) -> Retriever:
    may_receive = partial(may_disclose, log)
    return Retriever(store, embeddings, trail=RunTrail(log), may_receive=may_receive, sending=gates.sending)


def _outlet(log: RunLog, listener: _Listener) -> Outlet:
    return UserOutlet(log, listener.sink, listener.guarded)


def _checkpoint(saved: Saved) -> Checkpoint:
    return saved


def _wire_step(wiring: Wiring, step: Recipe) -> type:
    """Wire a step under a key of its own, and return the key."""
    key = type("StepKey", (), {})
    if step_class(step) is None:
        wiring.value(key, step)
    else:
        wiring.run(key, cast(Maker, step))
    return key
