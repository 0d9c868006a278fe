"""What `ringwall prompts` does: list, add, compare and move the versions of prompts."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

from pydantic_core import to_json
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ringwall.errors import InvalidInput
from ringwall.personalization.compose import PromptTemplate
from ringwall.personalization.prompts import PromptRegistry
from ringwall.staging import Stage


def listed(registry: Path, *, as_json: bool) -> None:
    """Print all versions with their stages."""
    versions = PromptRegistry(registry).versions()
    if as_json:
        sys.stdout.write(to_json(versions, indent=2).decode() + "\n")
        return
    table = Table("prompt", "version", "stage", "note")
    for each in versions:
        stage = f"{each.stage} {each.percent:g} %" if each.stage is Stage.CANARY else str(each.stage)
        table.add_row(*(Text(cell) for cell in (each.template.name, each.template.version, stage, each.note)))
    Console().print(table)


def history(registry: Path) -> None:
    """Print what was done, oldest first."""
    for change in PromptRegistry(registry).history():
        at = datetime.fromtimestamp(change.at, UTC).isoformat(" ", "seconds")
        _say(f"{at} {change.name}@{change.version} {change.stage} {change.note}".rstrip())


def add(registry: Path, name: str, version: str, system: Path, note: str) -> None:
    """Add a version whose instruction stands in a file; the rest is as in the default prompt."""
    try:
        text = system.read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{system} cannot be read: {error}", expected="a text file in UTF-8") from error
    PromptRegistry(registry).add(PromptTemplate(name, version, text), note=note)
    _say(f"{name}@{version} is a draft")


def diff(registry: Path, name: str, old: str, new: str) -> None:
    """Print what changed between two versions."""
    _say(PromptRegistry(registry).diff(name, old, new))


def move(registry: Path, name: str, version: str, stage: Stage, percent: float, note: str) -> None:
    """Bring a version to a stage."""
    PromptRegistry(registry).move(name, version, stage, percent=percent, note=note)
    _say(f"{name}@{version}: {stage}" + (f" for {percent:g} %" if percent else ""))


def _say(text: str) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)


__all__ = ["add", "diff", "history", "listed", "move"]
