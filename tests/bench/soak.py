"""The local engine under mixed load: `python tests/bench/soak.py --minutes 30`; a JSON line a lap, a verdict last.

One `LlamaCpp` with as many cells as its window, so that room has to be made all the time. Requests of all kinds come
and go, some in bursts, some left, late, or never read; a lap ends when all are done, and then the process is looked
at: resident memory (`rss_mb`), and what is left of it once the allocator has given back what nobody uses (`held_mb`:
a leak is what cannot be given back), threads, file descriptors, and what the engine says of its KV cells. At the end
one request needs the whole window: what is in use then, beyond its own cells, was lost.

Exits with 1 on a hang (no request came to an end for so long), on an answer with what is not its request's, on any
other error, and on growth: of held memory by more than `MAX_GROWTH_MB` between the first figures and the last, of
threads or file descriptors by more than two, of lost cells at all. The first figures are those after a few laps, when
caches are full.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import faulthandler
import gc
import json
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from itertools import cycle
from random import Random
from typing import Any, Final

import psutil

from ringwall.errors import RingwallError
from ringwall.model import Sampling, collect
from ringwall_llama import LlamaCpp
from soak_requests import CODES, KINDS, OTHERS, Ask, CrossTalk, Ticket, choose, margin

WINDOW: Final = 4096
SLOTS: Final = 8
IN_FLIGHT: Final = 20
BURST: Final = 16
MARGIN: Final = 1.5
"""By how much a code must be preferred: the last digits of logits, which is all that may differ, are far smaller."""

MAX_GROWTH_MB: Final = 12.0
MAX_MORE: Final = 2
"""Threads, and file descriptors."""

_SETTLING_LAPS: Final = 2


@dataclass(frozen=True, slots=True)
class Figures:
    """The process, and the engine, when nothing is asked."""

    seconds: float
    rss_mb: float
    held_mb: float
    threads: int
    descriptors: int
    running: int
    waiting: int
    kept: int
    cells_used: int


@dataclass(slots=True)
class Soak:
    """One engine, what was asked of it, and what went wrong."""

    model: LlamaCpp
    chance: Random
    patience: float
    began: float = field(default_factory=time.monotonic)
    codes: tuple[str, ...] = CODES
    done: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    silent: list[Any] = field(default_factory=list)

    async def learn_codes(self) -> int:
        """Keep the codes that the model surely finds in its prompt when it is asked alone; how many there are."""
        margins = {}
        for code in CODES:
            margins[code] = await margin(self.model, self._ticket(code))
            _alive(self.patience)
        self.codes = tuple(code for code in CODES if margins[code] >= MARGIN)
        return len(self.codes)

    async def fill(self) -> None:
        """Have all memory in use once, so that what grows from there on is a leak."""
        request = self._ticket(self.codes[0]).request("lake " * (WINDOW - 700), grammar='root ::= "x"')
        await collect(self.model.stream(request))
        _alive(self.patience)

    async def lap(self, requests: int) -> None:
        """So many requests, and a burst in between; then everybody is done or gone."""
        codes = cycle(self.chance.sample(self.codes, len(self.codes)))
        room = asyncio.Semaphore(IN_FLIGHT)

        async def one(ask: Ask) -> None:
            async with room:
                await self._ask(ask, self._ticket(next(codes)))

        asks = [self.chance.choice(KINDS) for _ in range(requests)]
        await asyncio.gather(*map(one, asks[: requests // 2]))
        await asyncio.gather(*(self._ask(choose, self._ticket(next(codes))) for _ in range(BURST)))
        await asyncio.gather(*map(one, asks[requests // 2 :]))
        for stream in self.silent:
            await stream.aclose()
        self.silent.clear()
        await self._idle()

    async def lost_cells(self) -> int:
        """Cells in use beyond those of the only sequence for which there is room."""
        flush = self._ticket(self.codes[0]).request("Flush.", system="All of it.", grammar='root ::= "x"')
        prompt = (await collect(self.model.stream(flush))).usage.prompt
        whole = replace(flush, sampling=Sampling(max_tokens=WINDOW - prompt))
        usage = (await collect(self.model.stream(whole))).usage
        await self._idle()
        return max(0, self.model.load.cells_used - usage.prompt - usage.completion)

    def figures(self) -> Figures:
        process, load = psutil.Process(), self.model.load
        resident = _resident_mb(process)
        _give_back()
        with process.oneshot():
            return Figures(
                round(time.monotonic() - self.began, 1),
                resident,
                _resident_mb(process),
                process.num_threads(),
                process.num_fds(),
                load.running,
                load.waiting,
                load.kept,
                load.cells_used,
            )

    def _ticket(self, code: str) -> Ticket:
        others = self.chance.sample([other for other in self.codes if other != code], OTHERS)
        return Ticket(code, tuple(others), Random(self.chance.random()), self.silent)

    async def _ask(self, ask: Ask, ticket: Ticket) -> None:
        try:
            self.done[await asyncio.wait_for(ask(self.model, ticket), self.patience)] += 1
        except CrossTalk as error:
            self._fault(f"cross-talk: {ask.__name__}: {error}")
        except TimeoutError:
            self._fault(f"hang: {ask.__name__} did not end in {self.patience} s")
        except (RingwallError, StopAsyncIteration) as error:
            self._fault(f"{ask.__name__}: {type(error).__name__}: {error}")
        _alive(self.patience)

    def _fault(self, fault: str) -> None:
        self.faults.append(fault)
        print(fault, file=sys.stderr, flush=True)

    async def _idle(self) -> None:
        """Wait until the engine has let go of everybody."""
        until = time.monotonic() + self.patience
        while self.model.load.running or self.model.load.waiting:
            if time.monotonic() > until:
                self._fault(f"hang: nobody asks, and the engine has {self.model.load}")
                return
            await asyncio.sleep(0.01)


def _resident_mb(process: psutil.Process) -> float:
    return round(process.memory_info().rss / 2**20, 1)


def _give_back() -> None:
    """Have Python and, where it is glibc's, the allocator let go of what nobody uses."""
    gc.collect()
    if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
        trim(0)


def _alive(patience: float) -> None:
    """Something came to an end. If nothing does for twice as long, say where everybody stands and exit with 1."""
    faulthandler.dump_traceback_later(2 * patience, exit=True)


def growth(first: Figures, last: Figures) -> list[str]:
    """What grew beyond its bound."""
    grown = []
    if last.held_mb - first.held_mb > MAX_GROWTH_MB:
        grown.append(f"leak: held memory grew from {first.held_mb} to {last.held_mb} MB")
    if last.threads - first.threads > MAX_MORE:
        grown.append(f"leak: threads grew from {first.threads} to {last.threads}")
    if last.descriptors - first.descriptors > MAX_MORE:
        grown.append(f"leak: file descriptors grew from {first.descriptors} to {last.descriptors}")
    return grown


async def run(arguments: argparse.Namespace) -> bool:
    """Soak; whether nothing went wrong."""
    model = LlamaCpp(context=WINDOW, cells=WINDOW, slots=SLOTS, threads=arguments.threads)
    soak = Soak(model, Random(arguments.seed), arguments.patience)
    _alive(arguments.patience)
    codes = await soak.learn_codes()
    _say("codes", of=len(CODES), used=codes)
    if codes <= OTHERS:
        soak.faults.append(f"the model finds {codes} codes in its prompts: too few to tell answers apart")
        return _verdict(soak, [], 0)
    await soak.fill()
    laps: list[Figures] = []
    while len(laps) <= _SETTLING_LAPS or soak.figures().seconds < arguments.minutes * 60:
        await soak.lap(arguments.lap)
        laps.append(soak.figures())
        _say("lap", number=len(laps), **asdict(laps[-1]), done=dict(soak.done), faults=len(soak.faults))
        if len(soak.faults) > 20:
            break
    lost = await soak.lost_cells()
    _say("spent", **asdict(model.spent))
    await model.close()
    return _verdict(soak, laps[_SETTLING_LAPS:], lost)


def _verdict(soak: Soak, laps: list[Figures], lost: int) -> bool:
    faults = [*soak.faults, *(growth(laps[0], laps[-1]) if laps else ())]
    if lost:
        faults.append(f"leak: {lost} KV cells are held by nobody")
    ends = {"first": asdict(laps[0]), "last": asdict(laps[-1])} if laps else {}
    _say(None, verdict="short" if faults else "met", **ends, lost_cells=lost, done=dict(soak.done), faults=faults[:20])
    return not faults


def _say(figure: str | None, **of: Any) -> None:
    print(json.dumps({**({"figure": figure} if figure else {}), **of}), flush=True)


def main() -> None:
    """Soak, tell, and exit with 1 when something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lap", type=int, default=80, help="requests of a lap, beside its burst")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds until a request is held to hang")
    parser.add_argument("--seed", type=int, default=1)
    sys.exit(0 if asyncio.run(run(parser.parse_args())) else 1)


if __name__ == "__main__":
    main()
