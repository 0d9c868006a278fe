"""How events reach the sinks: through a bounded queue and a thread for each, so that no run waits for any."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from ringwall.data.receiving import in_tenant_of
from ringwall.deployment.base import Policy
from ringwall.deployment.facts import KINDS_WITH_FACTS, facts_of
from ringwall.deployment.journal import Draft
from ringwall.deployment.runlog import event_label
from ringwall.deployment.sinks import EventSink, SinkState, Told
from ringwall.errors import ConfigurationError
from ringwall.principal import Grants

_NOTHING: Final[Grants] = frozenset()

_BATCH: Final = 256
"""So many events at least are handed to a sink at once, if they wait."""

_PAUSE: Final = 0.005
"""Seconds between two batches, in which more may come: to wake a thread for each event costs more than the event."""


class Delivery:
    """Hands what the journal took to each sink, with no more of it than that sink may receive.

    `capacity` is how many events may wait for one sink, `patience` how many seconds `close` waits for each.
    Raises `ConfigurationError` for two sinks of one name.
    """

    def __init__(
        self, app: str, policy: Policy, sinks: Sequence[EventSink], *, capacity: int = 10_000, patience: float = 5.0
    ) -> None:
        names = [sink.principal.id for sink in sinks]
        if len(set(names)) < len(names):
            raise ConfigurationError(f"two sinks are named alike: {', '.join(sorted(names))}", hint="rename one")
        self._policy, self._patience = policy, patience
        self._lines = tuple(_Line(app, sink, capacity) for sink in sinks)

    async def tell(self, run: str, tenant: str, first: int, drafts: Sequence[Draft]) -> None:
        """Pass on events that a run has appended, the first of them with number `first`. Raises nothing.

        A run that is cancelled meanwhile is told of all the same: without the contents that were being asked about.
        """
        held: dict[_Line, Grants] = {}
        try:
            for line in self._lines:
                if line.sink.contents:
                    held[line] = await self._held(line.sink, tenant)
        finally:
            for line in self._lines:
                line.put(run, tenant, first, drafts, held.get(line))

    def states(self) -> tuple[SinkState, ...]:
        """How each sink gets along."""
        return tuple(line.state for line in self._lines)

    async def close(self) -> None:
        """Let each sink take what waits for it and close it; one that takes too long is left behind."""
        await asyncio.gather(*(line.close(self._patience) for line in self._lines))

    async def _held(self, sink: EventSink, tenant: str) -> Grants:
        try:
            return await self._policy.grants(in_tenant_of(sink.principal, tenant))
        except Exception:  # noqa: BLE001 (a policy that fails gives nothing: facts alone are told, and the run goes on)
            return _NOTHING


class _Waiting(NamedTuple):
    """An event on its way; of a withheld one nothing is kept but what its facts are read from."""

    run: str
    tenant: str
    seq: int
    draft: Draft
    withheld: bool


def _waiting(run: str, tenant: str, seq: int, draft: Draft, grants: Grants | None) -> _Waiting:
    withheld = grants is None or not event_label(draft).may_flow_to(grants)
    if withheld and draft.kind not in KINDS_WITH_FACTS:
        draft = Draft(draft.kind, "", "", draft.at)
    return _Waiting(run, tenant, seq, draft, withheld)


class _Line:
    """One sink with its queue and its thread, which starts with the first event."""

    def __init__(self, app: str, sink: EventSink, capacity: int) -> None:
        self.sink = sink
        self._app, self._capacity = app, capacity
        self._queue: queue.SimpleQueue[list[_Waiting] | None] = queue.SimpleQueue()
        self._counts = SinkState(sink.principal.id)
        self._put = self._taken = self._dropped = 0
        self._thread: threading.Thread | None = None
        self._putting = threading.Lock()
        self._closed = False

    @property
    def state(self) -> SinkState:
        return replace(self._counts, dropped=self._dropped, waiting=self._put - self._taken)

    def put(self, run: str, tenant: str, first: int, drafts: Sequence[Draft], grants: Grants | None) -> None:
        """Let events wait for the sink; those for which there is no room are dropped."""
        batch = [_waiting(run, tenant, seq, draft, grants) for seq, draft in enumerate(drafts, first)]
        with self._putting:
            self._start()
            kept = batch[: max(self._capacity - self._put + self._taken, 0)]
            self._put += len(kept)
            self._dropped += len(batch) - len(kept)
            if kept:
                self._queue.put(kept)

    def _start(self) -> None:
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._work, name=self._counts.name, daemon=True)
            self._thread.start()

    async def close(self, patience: float) -> None:
        with self._putting:
            self._closed = True
        if self._thread is None:
            await self.sink.close()
        else:
            await asyncio.to_thread(self._finish, self._thread, patience)

    def _finish(self, thread: threading.Thread, patience: float) -> None:
        self._queue.put(None)
        thread.join(patience)

    # On the sink's own thread

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            last = False
            while not last:
                batch, last = self._next()
                if batch:
                    runner.run(self._hand(batch))
                if not self._closed:
                    time.sleep(_PAUSE)
            runner.run(self._let_go())

    def _next(self) -> tuple[list[_Waiting], bool]:
        """Wait for an event, and take those that came with it; and whether it was the end."""
        batch: list[_Waiting] = []
        some = self._queue.get()
        while some is not None:
            self._taken += len(some)
            batch += some
            if len(batch) >= _BATCH:
                return batch, False
            try:
                some = self._queue.get_nowait()
            except queue.Empty:
                return batch, False
        return batch, True

    async def _hand(self, batch: list[_Waiting]) -> None:
        count, counts = len(batch), self._counts
        try:
            await self.sink.receive([self._told(each) for each in batch])
        except Exception as error:  # noqa: BLE001 (the edge to foreign code: no run hears of it)
            self._counts = replace(counts, failed=counts.failed + count, error=type(error).__name__)
        else:
            self._counts = replace(counts, delivered=counts.delivered + count)

    async def _let_go(self) -> None:
        try:
            await self.sink.close()
        except Exception as error:  # noqa: BLE001 (as above)
            self._counts = replace(self._counts, error=type(error).__name__)

    def _told(self, waiting: _Waiting) -> Told:
        run, tenant, seq, (kind, body, label, at), withheld = waiting
        facts = facts_of(kind, body)
        if withheld:
            body = label = ""
        return Told(self._app, tenant, run, seq, kind, at, facts, body, label)


__all__ = ["Delivery"]
