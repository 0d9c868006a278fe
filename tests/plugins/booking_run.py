"""A booking in a process that may be killed at any moment: `python booking_run.py FOLDER ask|finish`."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing, suppress
from pathlib import Path

from ringwall import App, CallContext, Principal, Rules, ScriptedModel, call, tool
from ringwall.errors import JournalConflict, NotWaiting, UnknownRun
from ringwall_sql import SqlJournal

RULES = """
allow role:guest ask app:app
ask role:guest call tool:book
grant tool:book collection:questions
grant role:manager collection:questions
allow role:manager approve tool:book
"""
ANA, CARLA = Principal.user("ana", "guest"), Principal.user("carla", "manager")


def build(folder: Path) -> App:
    """The app, with its journal and its bookings in `folder`."""

    @tool(effect="write", idempotent=True)
    async def book(table: str, context: CallContext) -> str:
        """Book a table."""
        with closing(sqlite3.connect(folder / "bookings.db")) as connection, connection:
            connection.execute("create table if not exists bookings (key text primary key, name text)")
            connection.execute("insert or ignore into bookings values (?, ?)", (context.key, table))
        return "booked"

    model = ScriptedModel([call("book", table="7"), "Booked."])
    return App(policy=Rules(RULES), model=model, tools=[book], journal=SqlJournal(folder / "journal.db"))


async def go_through(folder: Path) -> None:
    """Ask, approve and resume, from wherever an earlier process was killed."""
    async with build(folder) as app:
        with suppress(JournalConflict):
            await app.ask("Book table 7", as_=ANA, run="r")
        with suppress(NotWaiting, UnknownRun):
            await app.approve("r", by=CARLA)
        result = await app.resume("r")
        if result.waiting:
            await app.approve("r", by=CARLA)
            await app.resume("r")
        await app.verify()


if __name__ == "__main__":
    asyncio.run(go_through(Path(sys.argv[1])))
