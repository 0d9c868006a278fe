"""Profiles and memories in an SQL database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from ringwall.errors import StoreError
from ringwall.label import Label
from ringwall.personalization.base import Memory, MemoryStore, Profile, ProfileStore
from ringwall.personalization.memory import most_relevant, refuse_foreign_memories, refuse_foreign_profile
from ringwall.principal import Grants, Principal
from ringwall_sql.database import BUSY_TIMEOUT, Database, restored, stored
from ringwall_sql.schema import Schema

_FORGETS: Final = ("secure_delete = ON",)  # what is deleted is overwritten

PROFILES: Final = Schema("profiles", "0001", sa.MetaData(), pragmas=_FORGETS)
MEMORIES: Final = Schema("memories", "0001", sa.MetaData(), pragmas=_FORGETS)

_PROFILES: Final = sa.Table(
    "profiles",
    PROFILES.tables,
    sa.Column("owner", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("language", sa.Text, nullable=False),
    sa.Column("preferences", sa.Text, nullable=False),
)

_MEMORIES: Final = sa.Table(
    "memories",
    MEMORIES.tables,
    # The newest memory has the highest number.
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("label", sa.Text, nullable=False),
    sa.UniqueConstraint("owner", "id"),
)

_PUT_PROFILE: Final = sa.text(
    "INSERT INTO profiles (owner, name, language, preferences) VALUES (:owner, :name, :language, :preferences) "
    "ON CONFLICT (owner) DO UPDATE SET "
    "name = excluded.name, language = excluded.language, preferences = excluded.preferences"
)
_TAKE_TURNS: Final = sa.text("SELECT pg_advisory_xact_lock(hashtextextended('memories of ' || :owner, 0))")


class SqlProfiles(ProfileStore):
    """Keeps profiles in SQLite (a path) or in any database that SQLAlchemy reaches by a URL.

    Several processes may use the same database, and the journal may lie in it too. Raises `StoreError` when
    the database is locked for longer than `busy_timeout` seconds, read-only, full or gone, and without `migrate`
    when its tables are of an older version of Ringwall; else they are brought up to date.
    """

    def __init__(self, url_or_path: str | Path, *, busy_timeout: float = BUSY_TIMEOUT, migrate: bool = True) -> None:
        self._database = Database(url_or_path, PROFILES, failure=StoreError, migrate=migrate, busy_timeout=busy_timeout)

    async def get(self, principal: Principal) -> Profile:
        def get() -> Profile:
            with self._database.reading() as connection:
                row = connection.execute(sa.select(_PROFILES).where(_owned(_PROFILES, principal))).one_or_none()
            if row is None:
                return Profile(principal.own_grant)
            _, name, language, preferences = row
            return Profile(principal.own_grant, restored(name), restored(language), tuple(json.loads(preferences)))

        return await self._database.run(get)

    async def put(self, principal: Principal, profile: Profile) -> None:
        refuse_foreign_profile(principal, profile)
        row = {
            "owner": stored(profile.owner),
            "name": stored(profile.name),
            "language": stored(profile.language),
            "preferences": json.dumps(profile.preferences),
        }

        def put() -> None:
            with self._database.writing() as connection:
                connection.execute(_PUT_PROFILE, row)

        await self._database.run(put)

    async def forget(self, principal: Principal) -> None:
        def forget() -> None:
            with self._database.writing() as connection:
                connection.execute(sa.delete(_PROFILES).where(_owned(_PROFILES, principal)))
            self._database.empty_log()

        await self._database.run(forget)

    async def close(self) -> None:
        await self._database.close()


class SqlMemories(MemoryStore):
    """Keeps memories in SQLite (a path) or in any database that SQLAlchemy reaches by a URL.

    At most `limit` for each owner: the oldest make room. Relevance is the number of words shared with what is
    asked about; of equally relevant memories the newest comes first. Several processes may use the same
    database. Raises `StoreError` when the database is locked for longer than `busy_timeout` seconds,
    read-only, full or gone, and without `migrate` when its tables are of an older version of Ringwall; else
    they are brought up to date.
    """

    def __init__(
        self,
        url_or_path: str | Path,
        *,
        limit: int = 1000,
        busy_timeout: float = BUSY_TIMEOUT,
        migrate: bool = True,
    ) -> None:
        self._limit = limit
        self._database = Database(url_or_path, MEMORIES, failure=StoreError, migrate=migrate, busy_timeout=busy_timeout)

    async def add(self, owner: Principal, memories: Sequence[Memory]) -> None:
        refuse_foreign_memories(owner, memories)
        newest = {memory.id: memory for memory in memories}
        rows = [_row(memory) for memory in newest.values()]
        if rows:
            await self._database.run(lambda: self._add(owner, rows))

    def _add(self, owner: Principal, rows: Sequence[dict[str, str]]) -> None:
        mine = _owned(_MEMORIES, owner)
        oldest_kept = (
            sa.select(_MEMORIES.c.number)
            .where(mine)
            .order_by(_MEMORIES.c.number.desc())
            .limit(1)
            .offset(self._limit - 1)
            .scalar_subquery()
        )
        with self._database.writing() as connection:
            self._take_turns(connection, owner)
            self._remove(connection, owner, [row["id"] for row in rows])
            connection.execute(sa.insert(_MEMORIES), rows)
            connection.execute(sa.delete(_MEMORIES).where(mine, _MEMORIES.c.number < oldest_kept))

    async def recall(self, owner: Principal, about: str, readable: Grants, k: int) -> list[Memory]:
        def recall() -> list[Memory]:
            query = sa.select(_MEMORIES.c.id, _MEMORIES.c.text, _MEMORIES.c.label)
            query = query.where(_owned(_MEMORIES, owner)).order_by(_MEMORIES.c.number.desc())
            with self._database.reading() as connection:
                rows = connection.execute(query).all()
            return most_relevant((_memory(owner, row) for row in rows), about, readable, k)

        return await self._database.run(recall)

    async def forget(self, owner: Principal, ids: Sequence[str] | None = None) -> None:
        def forget() -> None:
            with self._database.writing() as connection:
                self._take_turns(connection, owner)
                if ids is None:
                    connection.execute(sa.delete(_MEMORIES).where(_owned(_MEMORIES, owner)))
                else:
                    self._remove(connection, owner, [stored(id_) for id_ in ids])
            if ids is None:
                self._database.empty_log()

        await self._database.run(forget)

    async def close(self) -> None:
        await self._database.close()

    @staticmethod
    def _take_turns(connection: sa.Connection, owner: Principal) -> None:
        """Wait for others who change memories of this owner: what they have not committed is not seen."""
        if connection.dialect.name != "sqlite":  # where who writes is alone anyway
            connection.execute(_TAKE_TURNS, {"owner": stored(owner.own_grant)})

    @staticmethod
    def _remove(connection: sa.Connection, owner: Principal, ids: Sequence[str]) -> None:
        """Remove these; one statement run for each, since a database bounds the length of a list."""
        if ids:
            this = _MEMORIES.c.id == sa.bindparam("this")
            connection.execute(
                sa.delete(_MEMORIES).where(_owned(_MEMORIES, owner), this), [{"this": id_} for id_ in ids]
            )


def _owned(table: sa.Table, owner: Principal) -> sa.ColumnElement[bool]:
    return table.c.owner == stored(owner.own_grant)


def _row(memory: Memory) -> dict[str, str]:
    return {
        "owner": stored(memory.owner),
        "id": stored(memory.id),
        "text": stored(memory.text),
        "label": json.dumps(memory.label.to_json()),
    }


def _memory(owner: Principal, row: Sequence[Any]) -> Memory:
    id_, text, label = row
    return Memory(restored(id_), owner.own_grant, restored(text), Label.from_json(json.loads(label)))
