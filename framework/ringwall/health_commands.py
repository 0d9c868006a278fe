"""What `ringwall doctor --app` does: find an app, look at its parts, and say how they are."""

from __future__ import annotations

import sys

from pydantic_core import to_json
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ringwall.health import HealthReport
from ringwall.named_app import app_named


def examined(name: str) -> HealthReport:
    """Look at the app `module:name`, found from the present folder. Raises `ConfigurationError`."""
    app = app_named(name)
    with app:
        return app.run_sync(app.health())


def show(report: HealthReport, *, as_json: bool) -> None:
    """Print a report; exits with 1 if the app is not ready."""
    if as_json:
        sys.stdout.write(to_json({"ready": report.ready, "parts": report.parts, "sinks": report.sinks}).decode() + "\n")
    else:
        console = Console()
        console.print(_table(report))
        console.print("ready" if report.ready else "not ready")
    if not report.ready:
        raise SystemExit(1)


def _table(report: HealthReport) -> Table:
    table = Table("part", "what", "state", "ms", "why")
    for part in report.parts:
        style = "" if part.well else "bold red"
        cells = (part.part, part.name, str(part.state), f"{part.seconds * 1e3:.1f}", part.why)
        table.add_row(*(Text(cell, style=style) for cell in cells))
    for sink in report.sinks:
        counts = f"{sink.delivered} delivered, {sink.dropped} dropped, {sink.failed} failed, {sink.waiting} waiting"
        table.add_row("sink", Text(sink.name), Text(counts), "", Text(sink.error))
    return table


__all__ = ["examined", "show"]
