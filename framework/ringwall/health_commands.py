"""What `ringwall doctor --app` does: find an app, look at its parts, and say how they are."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from pydantic_core import to_json
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ringwall.app import App
from ringwall.errors import ConfigurationError
from ringwall.health import HealthReport


def examined(name: str) -> HealthReport:
    """Look at the app `module:name`, found from the present folder. Raises `ConfigurationError`."""
    app = _app(name)
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


def _app(name: str) -> App:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ConfigurationError(f"{name!r} names no app", expected="MODULE:NAME, as in `main:app`")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(import_module(module), attribute)
    except Exception as error:  # whatever the module does when it is imported
        raise ConfigurationError(f"{name!r} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if not isinstance(found, App):
        raise ConfigurationError(f"{name!r} is a {type(found).__name__}", expected="a `ringwall.App`")
    return found


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
