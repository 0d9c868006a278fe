"""The tool that acts in the world: it writes a booking into a real database, and never the same one twice."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ringwall import CallContext, Tool, tool

Restaurant = Literal["Trattoria Lucia", "Sakura", "Zum Anker"]
Day = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
Guests = Annotated[int, Field(ge=1, le=20)]
Time = Annotated[str, Field(pattern=r"^[0-2][0-9]:[0-5][0-9]$")]

_TABLE = """create table if not exists bookings
    (key text primary key, owner text, restaurant text, guests integer, day text, time text)"""


def booking_tool(database: Path) -> Tool:
    """A tool that books into `database`. The call's key is the row's: a second try of the same call changes nothing."""

    @tool(effect="write", idempotent=True)
    def book_table(restaurant: Restaurant, guests: Guests, day: Day, time: Time, context: CallContext) -> str:
        """Book a table at a restaurant."""
        row = (context.key, context.principal, restaurant, guests, day, time)
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(_TABLE)
            connection.execute("insert or ignore into bookings values (?, ?, ?, ?, ?, ?)", row)
        return f"Booked: {restaurant}, {guests} guests, {day} at {time}."

    return book_table


def bookings(database: Path) -> list[tuple[str, int, str, str]]:
    """The bookings so far: restaurant, guests, day, time."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(_TABLE)
        return connection.execute("select restaurant, guests, day, time from bookings").fetchall()
