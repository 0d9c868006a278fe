"""Which tables lie in a database, of which revision, and how they become those of today."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import sqlalchemy as sa

FIRST: Final = "0001"
"""The revision of tables that were made before revisions were written down."""


@dataclass(frozen=True)
class Schema:
    """Tables that belong together. Several schemas may lie in one database: each has a line of migrations of its own.

    `head` is the revision of `tables`; revisions are numbers of four digits. The migrations are in the folder
    `migrations/<name>`, a file each. `extension` is what PostgreSQL needs for the tables, `pragmas` what each
    connection to SQLite is told.
    """

    name: str
    head: str
    tables: sa.MetaData
    extension: str = ""
    pragmas: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where the migrations are."""
        return Path(__file__).parent / "migrations" / self.name

    @property
    def noted(self) -> sa.Table:
        """Where the revision is written down, as Alembic does it."""
        column = sa.Column("version_num", sa.String(32), primary_key=True)
        return sa.Table(f"ringwall_{self.name}_version", sa.MetaData(), column)

    def revision(self, connection: sa.Connection) -> str | None:
        """The revision of the tables that are there; None if none is."""
        there = sa.inspect(connection)
        if there.has_table(self.noted.name):
            return connection.execute(sa.select(self.noted)).scalar()
        return FIRST if any(map(there.has_table, self.tables.tables)) else None

    def create(self, connection: sa.Connection) -> None:
        """Make the tables of today; there are none yet."""
        self.tables.create_all(connection, checkfirst=False)
        self.noted.create(connection)
        connection.execute(sa.insert(self.noted), {"version_num": self.head})

    def upgrade(self, connection: sa.Connection, there: str) -> None:
        """Make the tables of today of those of revision `there`, with what is in them."""
        from alembic.migration import MigrationContext  # not before it is needed: most who open are up to date
        from alembic.operations import Operations
        from alembic.script import ScriptDirectory

        scripts = ScriptDirectory(self.folder, version_locations=[self.folder])
        context = MigrationContext.configure(connection, opts={"version_table": self.noted.name})
        with Operations.context(context):
            for script in reversed(list(scripts.iterate_revisions(self.head, there))):
                script.module.upgrade()
        context.stamp(scripts, self.head)
