"""The assistant books dinner, under supervision: what `ringwall demo` runs.

Everything here is real: the documents, the local model and its words, the policy, the databases, and the `kill -9`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from rich.console import Console
from rich.table import Table

from assistant import ANA, BEN, CARLA, PIPELINE, build, ingest, policy
from booking import booking_tool, bookings
from ringwall import (
    ACL,
    App,
    Decision,
    Policy,
    Principal,
    Rules,
    RunResult,
    ScriptedModel,
    call,
)
from ringwall.deployment.runlog import event_body
from ringwall.principal import Grants

STAFF_ONLY: Final = "4711"
BOOKING: Final = "Book a table for 4 at Trattoria Lucia on Friday at 19:30."
NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass
class Figures:
    """What the last screen reports."""

    decisions: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    model_ms: float = 0.0
    searches_ms: list[float] = field(default_factory=list)


class Recorded(Policy):
    """A policy that counts what it was asked and what it answered: behaviour is added by wrapping."""

    def __init__(self, inner: Policy, figures: Figures) -> None:
        self._inner, self._figures = inner, figures

    async def decide(
        self, principal: Principal, action: str, resource: str, context: Mapping[str, str] = NOTHING
    ) -> Decision:
        decision = await self._inner.decide(principal, action, resource, context)
        who = principal.id if principal.id.startswith("user:") else f"{principal.id.partition(':')[0]}:…"
        self._figures.decisions[f"{who} {action} {resource}: {decision.verdict}"] += 1
        return decision

    async def grants(self, principal: Principal) -> Grants:
        return await self._inner.grants(principal)

    @property
    def version(self) -> str:
        return self._inner.version


class Demo:
    """The show, act by act, in one folder of its own."""

    def __init__(self, folder: Path, console: Console) -> None:
        self.folder, self.console, self.figures = folder, console, Figures()

    async def before_the_booking(self) -> None:
        async with build(self.folder, rules=Recorded(policy(), self.figures)) as app:
            await self.read_the_library(app)
            await self.ask_as_each(app)
            await self.meet_the_hijacker(app)

    async def read_the_library(self, app: App) -> None:
        self.console.rule("1. Read the library: each page says who may read it")
        began = time.perf_counter()
        report = await ingest(app)
        took = (time.perf_counter() - began) * 1e3
        for done in report.ingested:
            self.console.print(f"  {done.document}")
        for refused in report.refused:
            self.console.print(f"  [red]refused[/] {refused.document}: {refused.error}")
        self.console.print(f"  {report.passages} passages in {took:.0f} ms\n")

    async def ask_as_each(self, app: App) -> None:
        self.console.rule("2. The same question from a guest and from staff")
        question = "What is the code of the wine cellar door?"
        guest = await self.ask(app, question, ANA)
        await self.show_that_nothing_leaked(app, guest)
        await self.ask(app, question, BEN)
        self.console.rule("3. A private note is for one person")
        await self.ask(app, "What is Ana allergic to?", ANA)
        await self.ask(app, "What is Ana allergic to?", BEN)

    async def ask(self, app: App, question: str, who: Principal) -> RunResult:
        self.console.print(f"[bold]{who.id}[/] asks: {question}")
        self.console.print("  ", end="")
        result = None
        async for piece in app.stream(question, as_=who, intent=()):
            if isinstance(piece, RunResult):
                result = piece
            else:
                self.console.print(piece.replace("\n", " "), end="", style="green", markup=False, highlight=False)
        assert result is not None
        sources = ", ".join(sorted({c.document for c in result.citations})) or "nothing"
        self.console.print(f"\n  [dim]the model was shown: {sources}[/]\n")
        await self.collect(app, result.run, who)
        return result

    async def collect(self, app: App, run: str, who: Principal) -> None:
        for event in await app.events(run, as_=who):
            body = event_body(event) if event.body else {}
            if event.kind == "model.replied":
                self.figures.tokens += body["completion_tokens"]
                self.figures.model_ms += body["ms"]
            elif event.kind == "data.searched":
                self.figures.searches_ms.append(body["ms"])

    async def show_that_nothing_leaked(self, app: App, result: RunResult) -> None:
        events = await app.journal.read(result.run)
        seen = sum(STAFF_ONLY in event.body for event in events)
        verdict = "[bold green]never[/]" if not seen else f"[bold red]{seen} times[/]"
        self.console.print(f"  The staff's code stands in the {len(events)} events of this run: {verdict}\n")

    async def meet_the_hijacker(self, app: App) -> None:
        self.console.rule("4. A page from the web gives orders")
        await self.ask(app, "Which terraces in town are the best?", ANA)
        self.console.print("  Suppose a model obeyed that page to the letter. [dim](a scripted one, to be sure)[/]")
        orders = call("book_table", restaurant="Zum Anker", guests=20, day="Monday", time="12:00")
        obedient = ScriptedModel([orders, "I could not book it."])
        worst = App(
            name="dinner",
            policy=Recorded(policy(), self.figures),
            documents=app.documents,
            embeddings=app.embeddings,
            model=obedient,
            tools=[booking_tool(self.folder / "bookings.db")],
            pipeline=PIPELINE,
        )
        result = await worst.ask("Which terraces in town are the best?", as_=ANA)
        for event in await worst.events(result.run, as_=ANA):
            if event.kind == "call.refused":
                self.console.print(f"  [bold red]{event_body(event)['text']}[/]\n")

    def book_across_a_crash(self) -> None:
        self.console.rule("5. Book, wait for a yes, crash, and book once")
        self.console.print(f"[bold]{ANA.id}[/] presses “Book”: {BOOKING}")
        run = self.child("propose", until="waiting")
        self.console.print("  [bold red]kill -9[/] while it waits\n")
        self.child("finish", run)
        booked = bookings(self.folder / "bookings.db")
        for restaurant, guests, day, at in booked:
            self.console.print(f"  In the database: {restaurant}, {guests} guests, {day} at {at}")
        self.console.print(f"  Bookings made: [bold green]{len(booked)}[/]\n")

    def child(self, step: str, run: str = "", *, until: str = "") -> str:
        """Run a step in a process of its own; kill it with SIGKILL when it says `until`. Returns the last word said."""
        command = [sys.executable, __file__, "--step", step, "--folder", str(self.folder), "--run", run]
        last = ""
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said, _, last = line.rstrip().partition("\t")
                self.console.print(f"  [dim]process {process.pid}[/] {said} {last}", highlight=False)
                if said == until:
                    os.kill(process.pid, signal.SIGKILL)
        if not until and process.returncode:
            raise SystemExit(f"the step {step!r} failed")
        return last

    async def report(self) -> None:
        self.console.rule("6. The report")
        async with build(self.folder) as app:
            count = await app.verify()
            for record in await app.journal.runs():
                if record.owner == ANA.own_grant:
                    await self.collect(app, record.run, ANA)
        table = Table(show_header=False, box=None, pad_edge=False)
        for what, times in sorted(self.figures.decisions.items()):
            table.add_row("asked of the policy", f"{what} ({times}x)")
        table.add_row("audit", f"{count} events, every chain verified")
        seconds = self.figures.model_ms / 1e3
        table.add_row("model", f"{self.figures.tokens / seconds:.0f} tokens/s, prompts included")
        searches = sorted(self.figures.searches_ms)
        table.add_row("retrieval", f"{searches[len(searches) // 2]:.1f} ms (median of {len(searches)})")
        table.add_row("governance", f"{await governed_run_us():.0f} µs for a whole governed run around a null model")
        self.console.print(table)


async def governed_run_us(runs: int = 300) -> float:
    """The price of a governed run when the model takes no time: µs of CPU, the best of ten rounds."""
    rules = Rules("allow user:* ask app:app")
    app = App(policy=rules, model=ScriptedModel(["Yes."]))
    await app.ingest([(f"page-{n}", f"Page {n} about dinner.") for n in range(4)], ACL.of("public"))
    best = float("inf")
    for _ in range(10):
        began = time.process_time()
        for _ in range(runs // 10):
            await app.ask("What about dinner?", as_=ANA)
        best = min(best, (time.process_time() - began) / (runs // 10))
    await app.close()
    return best * 1e6


async def propose(folder: Path) -> None:
    """The first process: ask, and wait. It is killed before it can do anything else."""
    app = build(folder)
    result = await app.ask(BOOKING, as_=ANA, intent=["book_table"])
    for question in result.waiting:
        print(f"proposes\t{question.tool} {question.arguments}", flush=True)
        print(f"holds, because\t{question.reason}", flush=True)
    print(f"waiting\t{result.run}", flush=True)
    await asyncio.sleep(3600)


async def finish(folder: Path, run: str) -> None:
    """The second process: a manager says yes, and the run goes on where it was."""
    async with build(folder) as app:
        for question in await app.waiting(as_=CARLA):
            await app.approve(question.run, by=CARLA, call=question.call)
            print(f"{CARLA.id} approves\t{question.arguments}", flush=True)
        result = await app.resume(run)
        print(f"answers\t{result.text.strip()}", flush=True)
        again = await app.resume(run)
        print(f"asked to resume once more, answers\t{again.text.strip()}", flush=True)


def show(folder: Path) -> None:
    """All six acts."""
    console = Console()
    began = time.perf_counter()
    demo = Demo(folder, console)
    asyncio.run(demo.before_the_booking())
    demo.book_across_a_crash()
    asyncio.run(demo.report())
    console.print(f"[dim]{time.perf_counter() - began:.0f} s in all; no key, no account, no network.[/]")


def main() -> None:
    """Play the demo, or one step of it in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--step", choices=["show", "propose", "finish"], default="show")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--run", default="")
    options = parser.parse_args()
    if options.step == "show":
        with tempfile.TemporaryDirectory(prefix="ringwall-demo-") as folder:
            show(options.folder or Path(folder))
    elif options.step == "propose":
        asyncio.run(propose(options.folder))
    else:
        asyncio.run(finish(options.folder, options.run))


if __name__ == "__main__":
    main()
