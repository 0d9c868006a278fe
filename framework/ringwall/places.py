"""Where a journal lies, as the command line is told: in an SQLite file, an exported one, or a database with a URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import typer

from ringwall import plugins
from ringwall.deployment.export import ExportedJournal, is_exported
from ringwall.deployment.journal import Journal


def place(text: str) -> str:
    """The path of a file that is there, or a URL. Raises `typer.BadParameter`, which tells no password."""
    text = text.removeprefix("sqlite:///")
    if is_url(text):
        return text
    if not Path(text).is_file():
        named = "it" if "@" in text else repr(text)  # a URL with a slip may have a password before the @
        raise typer.BadParameter(f"{named} is no file, and no URL such as postgresql+psycopg://host/database")
    return text


def is_url(text: str) -> bool:
    """Whether this names a database, not a file."""
    return "://" in text


JournalPlace = Annotated[str, typer.Argument(help="The journal's SQLite file, or its database's URL.", parser=place)]
EvidencePlace = Annotated[
    str, typer.Argument(help="The journal's SQLite file or its database's URL, or a file of an export.", parser=place)
]


@asynccontextmanager
async def opened(where: str) -> AsyncIterator[Journal]:
    """The journal in a file or a database; it is made nowhere. Raises `JournalUnavailable`, `ConfigurationError`."""
    journal: Journal = plugins.find("deployment", "sql")(where, create=False)
    try:
        yield journal
    finally:
        await journal.close()


@asynccontextmanager
async def evidence(where: str) -> AsyncIterator[Journal | ExportedJournal]:
    """A journal, or one that was exported: whichever is there. Raises what `opened` does."""
    if not is_url(where) and is_exported(Path(where)):
        yield ExportedJournal(Path(where))
    else:
        async with opened(where) as journal:
            yield journal


__all__ = ["EvidencePlace", "JournalPlace", "evidence", "is_url", "opened", "place"]
