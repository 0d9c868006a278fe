"""Workers on Ray: actors that are given batches, and replaced when they die."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

import ray

from ringwall.data.workers import Workers
from ringwall.errors import ConfigurationError, WorkerDied
from ringwall_ray.crew import Crew

T = TypeVar("T")
U = TypeVar("U")

_AHEAD: Final = 4
"""Batches for each worker that are begun before the first of them is asked for."""


class RayWorkers(Workers):
    """`count` actors on Ray, each with one processor.

    `address` is that of a cluster, whose machines find the same packages and the same files under the same paths;
    it is given what is ingested. Without one, Ray is started on this machine, for whoever has the token that it writes
    into this user's home.

    Ray starts when there is first something to do, in some eight seconds. If this process has started it already,
    that one is used, and left running by `close`. Raises `ConfigurationError` when Ray or a worker cannot be started.
    """

    def __init__(self, count: int, *, address: str = "") -> None:
        if count < 1:
            raise ConfigurationError(f"{count} workers", expected="at least 1")
        self._count, self._address = count, address
        # Ray's processes end with the thread that started them: it must not be one of a loop's, which ends before.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ringwall-ray")
        self._is_ours = False

    async def each(
        self, work: Callable[[Sequence[T]], Sequence[U]], batches: AsyncIterator[Sequence[T]]
    ) -> AsyncGenerator[tuple[Sequence[T], Sequence[U | WorkerDied]], None]:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._start)
        crew = Crew[T, U](work, self._count)
        begun: deque[tuple[Sequence[T], asyncio.Task[Sequence[U | WorkerDied]]]] = deque()
        try:
            await crew.start()
            async for batch in batches:
                begun.append((batch, asyncio.create_task(crew.do(batch))))
                if len(begun) >= _AHEAD * self._count:
                    yield await _first(begun)
            while begun:
                yield await _first(begun)
        finally:
            for _, task in begun:
                task.cancel()
            await asyncio.gather(*(task for _, task in begun), return_exceptions=True)
            crew.end()

    async def close(self) -> None:
        if self._is_ours:
            self._is_ours = False
            await asyncio.get_running_loop().run_in_executor(self._thread, ray.shutdown)
        self._thread.shutdown()

    def _start(self) -> None:
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it tells its makers nothing
        try:
            ray.init(
                self._address or "local",
                num_cpus=None if self._address else self._count,
                include_dashboard=None if self._address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ray.exceptions.RayError, ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            raise ConfigurationError(
                f"Ray does not start: {error}", hint="look at what `ray status` says of the cluster"
            ) from error
        self._is_ours = True


async def _first(
    begun: deque[tuple[Sequence[T], asyncio.Task[Sequence[U | WorkerDied]]]],
) -> tuple[Sequence[T], Sequence[U | WorkerDied]]:
    batch, task = begun.popleft()
    return batch, await task
