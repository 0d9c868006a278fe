"""Whether an app could answer now: each of its parts looked at, all at once, each within its time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ringwall.data.base import DocumentStore
from ringwall.data.receiving import PUBLIC_ONLY
from ringwall.deployment.base import Policy
from ringwall.deployment.journal import Journal
from ringwall.deployment.sinks import SinkState
from ringwall.errors import UnknownRun
from ringwall.model.base import ModelProvider
from ringwall.personalization.base import MemoryStore, ProfileStore
from ringwall.principal import Principal

PROBE: Final = Principal("probe:health")
"""On whose behalf the parts are looked at: it holds nothing, and nothing is kept of it."""

_NO_RUN: Final = "ringwall:health"


class PartState(StrEnum):
    """How a part is. `UNKNOWN` is one that cannot tell without doing its work, as a model that is elsewhere."""

    OK = "ok"
    UNKNOWN = "unknown"
    FAILED = "failed"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class PartHealth:
    """A part, how it is, and how long it took to say so. `why` is the name of the error, never what it says."""

    part: str
    name: str
    state: PartState
    seconds: float
    why: str = ""

    @property
    def well(self) -> bool:
        """Whether nothing speaks against using it."""
        return self.state in (PartState.OK, PartState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class HealthReport:
    """How each part is, and how the sinks get along, without which an app is as ready as with them.

    That there is a report at all says that the process is alive.
    """

    parts: tuple[PartHealth, ...]
    sinks: tuple[SinkState, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether the app could answer: every part is well, and of the models at least one."""
        models = [each.well for each in self.parts if each.part == "model"]
        return all(each.well for each in self.parts if each.part != "model") and any(models)


@dataclass(frozen=True, slots=True)
class _Probe:
    part: str
    what: object
    look: Callable[[], Awaitable[bool]]


async def examine(
    *,
    policy: Policy,
    journal: Journal,
    documents: DocumentStore,
    profiles: ProfileStore,
    memories: MemoryStore,
    models: Sequence[ModelProvider],
    sinks: Sequence[SinkState] = (),
    seconds: float = 2.0,
) -> HealthReport:
    """Look at all parts, each for so many seconds at most. Raises nothing for what is wrong with one."""
    probes = (
        _Probe("policy", policy, lambda: _did(policy.grants(PROBE))),
        _Probe("journal", journal, lambda: _answers(journal)),
        _Probe("documents", documents, lambda: _did(documents.get([_NO_RUN], PUBLIC_ONLY))),
        _Probe("profiles", profiles, lambda: _did(profiles.get(PROBE))),
        _Probe("memories", memories, lambda: _did(memories.recall(PROBE, "health", PUBLIC_ONLY, 1))),
        *(_Probe("model", model, model.check) for model in models),
    )
    parts = await asyncio.gather(*(_looked_at(probe, seconds) for probe in probes))
    return HealthReport(tuple(parts), tuple(sinks))


async def _looked_at(probe: _Probe, seconds: float) -> PartHealth:
    what, began = probe.what, time.perf_counter()
    name = what.info.name if isinstance(what, ModelProvider) else type(what).__name__
    try:
        async with asyncio.timeout(seconds) as clock:
            state, why = PartState.OK if await probe.look() else PartState.UNKNOWN, ""
    except Exception as error:  # noqa: BLE001 (the edge to anyone's part: whatever it raises is how it is)
        state = PartState.TIMED_OUT if clock.expired() else PartState.FAILED
        why = type(error).__name__
    return PartHealth(probe.part, name, state, round(time.perf_counter() - began, 6), why)


async def _did(work: Awaitable[object]) -> bool:
    await work
    return True


async def _answers(journal: Journal) -> bool:
    with contextlib.suppress(UnknownRun):
        await journal.record(_NO_RUN)
    return True


__all__ = ["PROBE", "HealthReport", "PartHealth", "PartState", "examine"]
