"""What a framework costs: CPU µs, wall µs and function calls of a run whose model costs nothing.

    python tests/bench/overhead.py [--quick] [--rounds N] [--peers a,b | --no-peers]

Measures Ringwall, bare Python and four peers: Semantic Kernel, Microsoft's agent-framework, Haystack, and
LangChain with LangGraph. Each peer gets an environment of its own, built on first use under `.bench/`. All
processes live at once but work one at a time, taking turns at every run in every round, so that the
machine's noise falls on all alike.

Runs: `rag` (four documents retrieved, a prompt, an answer), `agent` (the model proposes a tool, the tool
runs, the model answers), `agent_sqlite_normal` and `agent_sqlite_full` (the same turn made durable in a
SQLite file in WAL mode at that `synchronous` setting). Bursts: 100 concurrent runs with a model that sleeps
50 ms.

Prints one JSON line a subject and a last one with ratios, targets and the verdict. Best case is the first
percentile. Exit code 1: a target was missed, or a subject could not be measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import environments
import roster
from environments import InstallError
from figures import Measured, line, summary
from roster import Process, SubjectError


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure: whom, how often, and for how many seconds each time."""

    peers: tuple[str, ...]
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One thing to measure of one subject: `sample`, `burst` or `calls` of a run."""

    process: Process
    measure: str
    run: str

    def take(self, measured: Measured, *, seconds: float) -> None:
        """Measure, and add the result to what is known of the subject."""
        match self.measure:
            case "sample":
                measured.add_samples(self.run, self.process.sample(self.run, seconds=seconds))
            case "burst":
                measured.add_bursts(self.run, self.process.burst(self.run, seconds=seconds))
            case "calls":
                measured.calls[self.run] = self.process.calls(self.run)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everyone, print the lines, and return the exit code."""
    plan = parse(arguments)
    with progress() as bar:
        everyone = measure(plan, bar)
    for measured in everyone.values():
        print(json.dumps(line(measured), ensure_ascii=False))
    last = summary(everyone)
    print(json.dumps(last, ensure_ascii=False))
    return int(last["verdict"] == "short")


def parse(arguments: Sequence[str] | None) -> Plan:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure the overhead of governed runs beside other frameworks.")
    parser.add_argument("--quick", action="store_true", help="two short rounds: a look, not a measurement")
    parser.add_argument("--rounds", type=int, help="how often everyone takes a turn (default: 6, quick: 2)")
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--peers", type=_peers, default=roster.PEERS, help=f"some of {','.join(roster.PEERS)}")
    whom.add_argument("--no-peers", dest="peers", action="store_const", const=(), help="Ringwall and bare Python only")
    given = parser.parse_args(arguments)
    return Plan(given.peers, given.rounds or (2 if given.quick else 6), 0.2 if given.quick else 1.0)


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    for name in names:
        if name not in roster.PEERS:
            raise argparse.ArgumentTypeError(f"no peer is called {name!r}; there are {', '.join(roster.PEERS)}")
    return names


def progress() -> Progress:
    """Show a bar on a terminal, nothing in a pipe; standard output belongs to the figures."""
    columns = (TextColumn("{task.description:<40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def measure(plan: Plan, bar: Progress) -> dict[str, Measured]:
    """Build what is missing, start everyone, and let them take turns."""
    environments.create_cache()
    everyone = {name: Measured(name) for name in (roster.BARE, roster.RINGWALL, *plan.peers)}
    with ExitStack() as stack:
        processes = [process for each in everyone.values() if (process := start(each, stack, bar))]
        take_turns(list(turns(processes, plan.rounds)), everyone, plan, bar)
    return everyone


def start(measured: Measured, stack: ExitStack, bar: Progress) -> Process | None:
    """Start a subject's process, its environment built if need be; write down why if that fails."""
    task = bar.add_task(f"start {measured.name}", total=1)
    try:
        if measured.name in roster.PEERS and not environments.is_ready(measured.name):
            bar.update(task, description=f"install {measured.name} (once)")
            environments.build(measured.name)
        process = roster.subject(measured.name).start()
    except (InstallError, SubjectError) as error:
        measured.error = str(error)
        return None
    finally:
        bar.remove_task(task)
    stack.callback(process.close)
    measured.python, measured.packages = process.python, process.packages
    return process


def turns(processes: Sequence[Process], rounds: int) -> Iterator[Turn]:
    """Order the turns: each round, each run, every subject; the calls, which do not vary, once at the end."""
    runs = list(dict.fromkeys(run for process in processes for run in process.runs))
    bursts = list(dict.fromkeys(run for process in processes for run in process.bursts))
    for _ in range(rounds):
        yield from (Turn(each, "sample", run) for run in runs for each in processes if run in each.runs)
        yield from (Turn(each, "burst", run) for run in bursts for each in processes if run in each.bursts)
    yield from (Turn(each, "calls", run) for each in processes for run in each.runs)


def take_turns(order: Sequence[Turn], everyone: dict[str, Measured], plan: Plan, bar: Progress) -> None:
    """Take each turn; a subject that fails loses the rest of its turns, and says so in its line."""
    task = bar.add_task("measure", total=len(order))
    for turn in order:
        measured = everyone[turn.process.name]
        bar.update(task, advance=1, description=f"{turn.measure} {turn.run} of {measured.name}")
        if measured.error:
            continue
        try:
            turn.take(measured, seconds=plan.seconds)
        except SubjectError as error:
            measured.error = str(error)


if __name__ == "__main__":
    sys.exit(main())
