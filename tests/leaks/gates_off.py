"""Gates switched off, one at a time: what the machine must notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Final
from unittest.mock import patch

from ringwall import app, run, runs
from ringwall.data.base import Chunk, Match
from ringwall.deployment import desk, gates, reading, results, toolgate
from ringwall.deployment.gates import GatedMemories, GatedModel, GatedProfiles, GatedStore
from ringwall.deployment.journal import Event, RunStatus
from ringwall.deployment.runlog import RunLog
from ringwall.deployment.toolgate import GatedTools
from ringwall.label import BOTTOM, Label, join
from ringwall.model.cache import CachedModel
from ringwall.personalization.base import Memory
from ringwall.personalization.memory import InMemoryMemories, InMemoryProfiles
from ringwall.principal import ACL
from ringwall.runs import Runs
from ringwall_audit import AesSealer
from tests.leaks.town import CLUBS, TENANTS

Off = Callable[[], AbstractContextManager[object]]

EVERYTHING: Final = frozenset(("public", *(f"{t}::{c}" for t in TENANTS for c in (*CLUBS, "user:ana", "user:ben"))))


def without(owner: object, name: str, instead: object) -> Off:
    return lambda: patch.object(owner, name, instead)


def all_of(*offs: Off) -> Off:
    @contextmanager
    def together() -> Iterator[None]:
        with ExitStack() as stack:
            for off in offs:
                stack.enter_context(off())
            yield

    return together


async def nothing(*_: object, **__: object) -> None:
    """In place of a check."""


async def no_objection(*_: object, **__: object) -> list[object]:
    return []


async def counts_for_the_first(*_: object, **__: object) -> tuple[int, ...]:
    return (0,)


async def yes(*_: object, **__: object) -> bool:
    return True


async def released(log: RunLog, *, as_: str) -> None:
    log.note(as_, {"receiver": log.principal.id})


async def search_everything(self: GatedStore, query: Any, readable: object, k: int) -> list[Match]:
    matches = await self._inner.search(query, EVERYTHING, k)
    self._log.saw(join([match.chunk.label for match in matches]))
    return matches


async def search_as_it_was(self: GatedStore, query: Any, readable: Any, k: int) -> list[Match]:
    """With what the asker held when the run began."""
    matches = await self._inner.search(query, readable, k)
    self._log.saw(join([match.chunk.label for match in matches]))
    return matches


async def search_unlabelled(self: GatedStore, query: Any, readable: Any, k: int) -> list[Match]:
    allowed = readable & await self._log.policy.grants(self._log.principal)
    return [public(match) for match in await self._inner.search(query, allowed, k)]


async def get_unlabelled(self: GatedStore, ids: Sequence[str], readable: Any) -> list[Chunk]:
    allowed = readable & await self._log.policy.grants(self._log.principal)
    return [public(Match(chunk, 0.0)).chunk for chunk in await self._inner.get(ids, allowed)]


def public(match: Match) -> Match:
    chunk = match.chunk
    readers = ACL(("public",))
    return Match(Chunk(chunk.id, chunk.document, chunk.text, readers, chunk.start, chunk.end), match.score)


async def recall_everything(self: GatedMemories, owner: Any, about: str, readable: Any, k: int) -> list[Memory]:
    memories = await self._inner.recall(owner, about, EVERYTHING | {owner.own_grant, "acme::collection:questions"}, k)
    self._log.saw(join([memory.label for memory in memories]))
    return memories


async def recall_unlabelled(self: GatedMemories, owner: Any, about: str, readable: Any, k: int) -> list[Memory]:
    allowed = readable & await self._log.policy.grants(owner)
    memories = await self._inner.recall(owner, about, allowed, k)
    return [Memory(memory.id, memory.owner, memory.text, BOTTOM) for memory in memories]


async def keep_as_given(self: GatedMemories, owner: Any, memories: Sequence[Memory]) -> None:
    own = Label.of(ACL((owner.own_grant,)))
    await self._inner.add(owner, [Memory(m.id, m.owner, m.text, m.label | own) for m in memories])


async def profile_unlabelled(self: GatedProfiles, principal: Any) -> Any:
    return await self._inner.get(principal)


async def all_events(events: Sequence[Event], *_: object, **__: object) -> list[Event]:
    return list(events)


async def unchanged(self: Runs, log: object, error: Exception) -> Exception:
    return error


async def once_more(self: Runs, log: object, turn: Any) -> runs.RunResult:
    return runs.RunResult(turn.run, RunStatus.DONE, turn.answer, turn.citations)


def restored_without_floor(restore: Any) -> Any:
    def restored(cls: type[RunLog], *args: Any, **options: Any) -> RunLog:
        log: RunLog = restore(*args, **options)
        log.floor = log.question.label
        return log

    return classmethod(restored)


def question_of_everybody(principal: Any) -> Label:
    return Label.of(None, principal.id)


def label_without_secrecy(of: Callable[..., Label]) -> Callable[..., Label]:
    return lambda *args: Label(frozenset(), of(*args).influence)


def key_of_the_question(self: CachedModel, request: Any) -> str:
    return str(request.messages[-1].content).rpartition("Question:")[2]


OFF: Final[dict[str, Off]] = {
    "the answer is released": all_of(without(runs, "release", released), without(Runs, "_again", once_more)),
    "the stream is released": without(run, "release", released),
    "a finished run is told again": without(Runs, "_again", once_more),
    "errors are shown as they are": without(Runs, "_shown", unchanged),
    "hosted models receive anything": without(GatedModel, "_may_receive", nothing),
    "an embedder receives anything": without(gates, "may_flow", yes),
    "search reads for everybody": without(GatedStore, "search", search_everything),
    "search reads by what was held": without(GatedStore, "search", search_as_it_was),
    "passages have no readers": all_of(
        without(GatedStore, "search", search_unlabelled), without(GatedStore, "get", get_unlabelled)
    ),
    "recall reads for everybody": without(GatedMemories, "recall", recall_everything),
    "memories lose their labels when recalled": without(GatedMemories, "recall", recall_unlabelled),
    "memories lose their labels when kept": without(GatedMemories, "add", keep_as_given),
    "profiles have no readers": without(GatedProfiles, "get", profile_unlabelled),
    "tools receive anything": without(GatedTools, "_flow_objections", no_objection),
    "results have no readers": without(toolgate, "result_label", label_without_secrecy(results.result_label)),
    "approvers are shown anything": without(desk, "may_answer", counts_for_the_first),
    "events are read by anybody": without(app, "readable_events", all_events),
    "events have no readers": without(reading, "event_label", lambda event: BOTTOM),
    "a resumed run has read nothing": without(RunLog, "restore", restored_without_floor(RunLog.restore)),
    "questions are for everybody": without(runs, "question_label", question_of_everybody),
    "keys are not destroyed": without(AesSealer, "destroy", nothing),
    "memories are not forgotten": without(InMemoryMemories, "forget", nothing),
    "profiles are not forgotten": without(InMemoryProfiles, "forget", nothing),
    "the cache looks at the question alone": without(CachedModel, "_key", key_of_the_question),
}  # fmt: skip
