"""Taking up what others left: runs whose process died, and runs whose questions were answered."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

from ringwall.deployment.journal import Draft, Journal, RunRecord, RunStatus
from ringwall.deployment.leases import Heart
from ringwall.errors import JournalError, RingwallError
from ringwall.schema import dumps

_LOOK_AGAIN: Final = 30.0  # seconds: what nobody answered in time shows in no event

GoOn = Callable[[str], Awaitable[object]]
"""Goes on with a run until it ends or waits; what goes wrong is in the run's events, and is raised."""


class Recovery:
    """Finds the runs to take up; `carry_on` is for those taken from the dead, `resume_answered` for waiting ones."""

    def __init__(self, journal: Journal, heart: Heart, carry_on: GoOn, resume_answered: GoOn) -> None:
        self._journal, self._heart = journal, heart
        self._carry_on, self._resume_answered = carry_on, resume_answered
        self._looked_at: dict[str, int] = {}
        self._look_again = 0.0

    async def sweep(self, limit: int) -> list[RunRecord]:
        """Take up to `limit` runs from the dead, see each to its end, and return where they stand."""
        runs = await self._take(limit)
        await asyncio.gather(*(_quietly(self._carry_on, run) for run in runs))
        return [await self._journal.record(run) for run in runs]

    async def work(self, every: float, concurrency: int) -> None:
        """Take up runs until cancelled; then put down those under way, between two calls, for others to take up."""
        going: dict[str, asyncio.Task[None]] = {}
        try:
            while True:
                with contextlib.suppress(JournalError):
                    for run in await self._take(concurrency - len(going)):
                        going[run] = asyncio.ensure_future(_quietly(self._carry_on, run))
                    for run in await self._changed_while_waiting(concurrency - len(going)):
                        going[run] = asyncio.ensure_future(_quietly(self._resume_answered, run))
                await asyncio.sleep(every)
                going = {run: task for run, task in going.items() if not task.done()}
        finally:
            await asyncio.gather(*(self._put_down(run, task) for run, task in going.items()))

    async def _take(self, limit: int) -> list[str]:
        if limit <= 0:
            return []
        worker = await self._heart.renewed()
        await self._heart.bury()
        resumed = Draft("run.resumed", dumps({"worker": worker.id}), "", time.time())
        return [*self._heart.left_behind(), *await self._journal.take(worker, [resumed], limit=limit)]

    async def _changed_while_waiting(self, limit: int) -> list[str]:
        """The waiting runs in which something happened since the last look; now and then all: time passes, too."""
        if time.monotonic() > self._look_again:
            self._looked_at.clear()
            self._look_again = time.monotonic() + _LOOK_AGAIN
        waiting = {record.run: record.length for record in await self._journal.runs(RunStatus.WAITING)}
        changed = [run for run, length in waiting.items() if self._looked_at.get(run) != length][: max(limit, 0)]
        self._looked_at = {run: length for run, length in self._looked_at.items() if run in waiting}
        self._looked_at.update((run, waiting[run]) for run in changed)
        return changed

    async def _put_down(self, run: str, task: asyncio.Task[None]) -> None:
        while not task.done():
            self._heart.put_down(run)
            await asyncio.wait([task], timeout=0.05)


async def _quietly(go_on: GoOn, run: str) -> None:
    with contextlib.suppress(RingwallError, asyncio.CancelledError):
        await go_on(run)
