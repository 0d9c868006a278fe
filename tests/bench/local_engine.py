"""The local engine beside its peers: `python tests/bench/local_engine.py`, a JSON line for each figure, a verdict last.

All get the same GGUF (the bundled model, or `--model`), the same chats, the same threads, and choose greedily. Each is
started in a process of its own, one after the other, and ended before the next begins; a round starts them all, and the
next one in the opposite order. The peers:

- `llama-cpp-python`: `llama_cpp.Llama` in process, which answers one chat after the other;
- `its-server`: `python -m llama_cpp.server`, over HTTP;
- `llama-server`: llama.cpp's own server (of the wheel `xllamacpp`), called in process, a slot for each chat of a burst;
- `bare-loop`: `llama_decode` in a loop, as the floor.

The figures: bursts of chats under one public system prompt, the first after the start and warm ones; one chat alone;
a second question over the same long context; prompt lookup where answers repeat their prompt, and where they do not.
In all but the last ours does not guess. Look at the ratios: they hold on a busy machine too, if it is evenly so.
It takes some 25 minutes on two quiet cores. With `--tuned PATH` ours also answers warm bursts with another GGUF, made
of the same model. Exits with 1 when short.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Final

import chats
from engine_figures import Report, Target, line, ratio, speed, wait
from engine_roster import FLOOR, ITS_SERVER, LLAMA_SERVER, ONE_BY_ONE, OURS, TUNED, Burst, Engine, EngineError
from environments import InstallError
from ringwall_llama.provider import bundled_model

ASKED_AT_ONCE: Final = (OURS, LLAMA_SERVER, ONE_BY_ONE, ITS_SERVER, FLOOR)

FIGURES: Final = ("bursts", "alone", "second", "lookup")

FIRST_OVER_SERVER: Final = 3.0
WARM_OVER_SERVER: Final = 1.0
WARM_OVER_ONE_BY_ONE: Final = 1.25
TUNED_OVER_SERVER: Final = 2.0
ALONE_OVER_FLOOR: Final = 0.95
SECOND_OVER_FIRST: Final = 0.15
LOOKUP_WHERE_COPIED: Final = 1.0
LOOKUP_ELSEWHERE: Final = 0.95


@dataclass(frozen=True, slots=True)
class Bench:
    """How everything is measured, and where it is told."""

    model: Path
    threads: int
    rounds: int
    warm: int
    questions: int
    tokens: int | None
    patience: float
    report: Report = field(default_factory=Report)

    def engine(self, name: str, **options: Any) -> Engine:
        return Engine(name, self.model, threads=self.threads, patience=self.patience, **options)

    def cut(self, asked: Sequence[chats.Chat]) -> list[chats.Chat]:
        """With `--tokens` all answers are cut off there."""
        return [replace(chat, tokens=self.tokens or chat.tokens) for chat in asked]

    @contextlib.contextmanager
    def noting(self, name: str) -> Iterator[None]:
        """A peer that fails leaves its figures out, and the verdict says so."""
        try:
            yield
        except (EngineError, InstallError) as error:
            self.report.errors[name] = str(error)
            print(f"{name}: {error}", file=sys.stderr)

    def in_turn(self, names: Sequence[str]) -> Iterator[str]:
        """Everybody's name, a round after the other, there and back."""
        for number in range(self.rounds):
            yield from names if number % 2 == 0 else reversed(names)


# --- Bursts -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Bursts:
    """One engine's: the first after each start, and the warm ones that followed."""

    first: list[Burst] = field(default_factory=list)
    warm: list[Burst] = field(default_factory=list)


def every_size(bench: Bench, *, sizes: Sequence[int], tuned: Path | None) -> None:
    for size in sizes:
        bursts(bench, size, tuned)


def bursts(bench: Bench, size: int, tuned: Path | None) -> None:
    found = {name: Bursts() for name in (*ASKED_AT_ONCE, *([TUNED] if tuned else []))}
    about: dict[str, str] = {}
    for name in bench.in_turn(list(found)):
        with bench.noting(name), _started(bench, name, size, tuned) as engine:
            about[name] = engine.about
            found[name].first.append(engine.ask(bench.cut(chats.burst(0, size))))
            found[name].warm += [engine.ask(bench.cut(chats.burst(n, size))) for n in range(1, bench.warm + 1)]
    first = {name: each.first for name, each in found.items()}
    warm = {name: each.warm for name, each in found.items()}
    bench.report.add(
        f"first burst of {size}",
        {"engines": {name: line(each) for name, each in first.items()}, "compiled_for": about},
        _over(first, OURS, LLAMA_SERVER, f"first burst of {size}", FIRST_OVER_SERVER),
        *(_sooner(first, peer, f"first burst of {size}") for peer in (ITS_SERVER, LLAMA_SERVER)),
    )
    bench.report.add(
        f"warm bursts of {size}",
        {
            "engines": {name: line(each) for name, each in warm.items()},
            "over_the_bare_loop": ratio(speed(warm[OURS]), speed(warm[FLOOR])),
        },
        _over(warm, OURS, LLAMA_SERVER, f"warm bursts of {size}", WARM_OVER_SERVER),
        _over(warm, OURS, ONE_BY_ONE, f"warm bursts of {size}", WARM_OVER_ONE_BY_ONE),
        *([_over(warm, TUNED, LLAMA_SERVER, f"warm bursts of {size}", TUNED_OVER_SERVER)] if tuned else []),
        *(_sooner(warm, peer, f"warm bursts of {size}") for peer in (ITS_SERVER, LLAMA_SERVER)),
    )


def _started(bench: Bench, name: str, size: int, tuned: Path | None) -> Engine:
    if name == TUNED:
        assert tuned is not None
        bench = replace(bench, model=tuned)
    return bench.engine(name, slots=size)


def _over(found: dict[str, list[Burst]], one: str, other: str, what: str, least: float) -> Target:
    return Target(f"{what}: tokens/s, {one} over {other}", ratio(speed(found[one]), speed(found[other])), least=least)


def _sooner(found: dict[str, list[Burst]], peer: str, what: str) -> Target:
    figure = ratio(wait(found[OURS], 95), wait(found[peer], 95))
    return Target(f"{what}: p95 time to first token, {OURS} over {peer}", figure, most=1.0)


# --- One chat -----------------------------------------------------------------------------------------


def alone(bench: Bench) -> None:
    """One chat after the other, from the question to the end of the answer, and the pace of the answer alone."""
    found: dict[str, list[Burst]] = {name: [] for name in (OURS, ONE_BY_ONE, LLAMA_SERVER, FLOOR)}
    for name in bench.in_turn(list(found)):
        with bench.noting(name), bench.engine(name) as engine:
            engine.ask(bench.cut([chats.alone(0)]))  # the kernels are warm, and memory is touched
            found[name] += [engine.ask(bench.cut([chats.alone(n)])) for n in range(1, bench.questions + 1)]
    pace = {name: median(map(_pace, each)) if each else None for name, each in found.items()}
    bench.report.add(
        "one chat",
        {"engines": {name: {**line(each), "pace": pace[name]} for name, each in found.items()}},
        _over(found, OURS, FLOOR, "one chat", ALONE_OVER_FLOOR),
    )


def _pace(burst: Burst) -> float:
    """Tokens a second from the first on."""
    answer = burst.answers[0]
    return round((answer.tokens - 1) / max(answer.last - answer.first, 1e-9), 2)


def second_question(bench: Bench) -> None:
    found: dict[str, list[float]] = {name: [] for name in (OURS, ONE_BY_ONE, LLAMA_SERVER)}
    for name in found:
        with bench.noting(name), bench.engine(name) as engine:
            engine.ask([chats.alone(0)])
            for number in range(bench.questions):
                first, second = (engine.ask([chat]).firsts[0] for chat in chats.two_questions(number))
                found[name].append(second / first)
    ratios = {name: round(median(each), 4) if each else None for name, each in found.items()}
    bench.report.add(
        "second question over the same context",
        {"ttft_over_the_first": ratios},
        Target("second question: time to first token over the first's", ratios[OURS], most=SECOND_OVER_FIRST),
    )


# --- Prompt lookup ------------------------------------------------------------------------------------


def lookup(bench: Bench) -> None:
    """With and without guesses, in turn, where answers copy and where they do not, one at a time and eight at once."""
    copied = [[chats.copying(n)] for n in range(bench.questions)]
    _lookup(bench, "lookup, answers that copy", copied, LOOKUP_WHERE_COPIED)
    ordinary = [[chats.alone(n)] for n in range(bench.questions)]
    _lookup(bench, "lookup, ordinary answers", ordinary, LOOKUP_ELSEWHERE)
    _lookup(bench, "lookup, ordinary answers, eight at once", [chats.burst(n, 8) for n in range(2)], LOOKUP_ELSEWHERE)


def _lookup(bench: Bench, what: str, asked: list[list[chats.Chat]], least: float) -> None:
    found: dict[str, list[Burst]] = {"with": [], "without": []}
    for name in bench.in_turn(list(found)):
        with bench.noting(OURS), bench.engine(OURS, slots=8, lookup=name == "with") as engine:
            engine.ask([replace(asked[0][0], question="Hello.", tokens=2)])
            found[name] += [engine.ask(bench.cut(each)) for each in asked]
    guessed, right = (sum(burst.counted[name] for burst in found["with"]) for name in ("guessed", "right"))
    bench.report.add(
        what,
        {
            "engines": {name: line(each) for name, each in found.items()},
            "guessed": guessed,
            "right": ratio(right, guessed),
            "of_all_tokens": ratio(right, sum(burst.tokens for burst in found["with"])),
        },
        Target(f"{what}: tokens/s, with over without", ratio(*map(speed, found.values())), least=least),
    )


# --- The command --------------------------------------------------------------------------------------


def main() -> None:
    """Measure, tell, and exit with 1 when short."""
    arguments = _arguments()
    figures: dict[str, Callable[[Bench], None]] = {
        "bursts": partial(every_size, sizes=arguments.sizes, tuned=arguments.tuned),
        "alone": alone,
        "second": second_question,
        "lookup": lookup,
    }
    bench = Bench(
        arguments.model or bundled_model(),
        arguments.threads,
        arguments.rounds,
        arguments.warm,
        arguments.questions,
        arguments.tokens,
        arguments.patience,
    )
    for name in arguments.only:
        figures[name](bench)
    setting = {"model": bench.model.name, "threads": bench.threads, "rounds": bench.rounds, "tokens": bench.tokens}
    sys.exit(0 if bench.report.end(**setting) == "met" else 1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=FIGURES, help="these figures")
    parser.add_argument("--model", type=Path, help="a GGUF file; by default the bundled one")
    parser.add_argument("--tuned", type=Path, help="another GGUF file, for ours alone")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8, 16], help="of the bursts")
    parser.add_argument("--rounds", type=int, default=3, help="starts of each engine")
    parser.add_argument("--warm", type=int, default=3, help="bursts after the first of each start")
    parser.add_argument("--questions", type=int, default=5, help="asked one by one")
    parser.add_argument("--tokens", type=int, help="of all answers, for a try")
    parser.add_argument("--patience", type=float, default=900.0, help="seconds until an engine is held to hang")
    return parser.parse_args()


if __name__ == "__main__":
    main()
