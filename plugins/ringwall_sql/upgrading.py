"""Bring a database up to date by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ringwall.errors import StoreError
from ringwall_sql import tables, writer
from ringwall_sql.database import Database
from ringwall_sql.ledger import LEDGER
from ringwall_sql.stores import MEMORIES, PROFILES

SCHEMAS: Final = (tables.SCHEMA, writer.SCHEMA, PROFILES, MEMORIES, LEDGER)


def upgrade(url_or_path: str | Path) -> Mapping[str, str]:
    """Bring the documents, journal, profiles, memories and ledger in a database up to date.

    Returns the revision that each of those which lie there was of. Whoever opens a store does the same; call this
    where they may not, or open with `migrate=False`. Raises `StoreError`, and has then changed nothing of the kind
    that it names.
    """
    found: dict[str, str] = {}
    for schema in SCHEMAS:
        database = Database(url_or_path, schema, failure=StoreError, create=False)
        database.engine.dispose()
        if database.found is not None:
            found[schema.name] = database.found
    if not found:
        raise StoreError(
            "nothing of Ringwall's is in this database", expected="documents, a journal, profiles, memories or a ledger"
        )
    return found
