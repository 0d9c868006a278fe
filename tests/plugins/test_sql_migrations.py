"""Databases of older revisions: opened, brought up to date, and no worse than new ones."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from ringwall.data.base import Chunk, Query
from ringwall.errors import JournalUnavailable, StoreError
from ringwall.personalization.contract import ANA, EVERYTHING
from ringwall.principal import ACL
from ringwall_sql import SqlDocuments, SqlJournal, SqlMemories, SqlProfiles, upgrade
from ringwall_sql.schema import FIRST, Schema
from ringwall_sql.tables import SCHEMA as DOCUMENTS
from ringwall_sql.upgrading import SCHEMAS

BEFORE = Path(__file__).with_name("before_migrations.sql").read_text(encoding="utf-8")
"""What `LIBRARY`, a run of two events, Ana's profile and a memory of hers became before revisions were noted."""

READERS = {"menu": ACL.of("public"), "rota": ACL.of("role:staff"), "notes": ACL.of("role:staff", "user:ana")}
TEXTS = [
    "a table by the window",
    "red wine and a table in the garden",
    "the garden is closed",
    "日本 wine, \x00 and \ud800",
]
LIBRARY = [
    Chunk(f"{name}#{n}", name, text, readers, 0, len(text), (1.0, n - 1.5, len(name) / 4), {"year": 2020 + n})
    for name, readers in READERS.items()
    for n, text in enumerate(TEXTS)
]
QUERIES = [Query("wine at the table"), Query("garden", (0.0, 1.0, 0.5)), Query("", (1.0, 0.0, 0.0)), Query("日本")]
HELD = [frozenset(("public",)), frozenset(("public", "user:ana")), frozenset(("public", "role:staff"))]


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """One transaction of somebody who knows nothing of stores."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def migrate(connection: sa.Connection, schema: Schema, *, to: str) -> None:
    """Make tables where there are none, one migration after the other."""
    replace(schema, head=to).upgrade(connection, "base")


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}"
    url: str = request.getfixturevalue("postgresql")
    with connected(url) as connection:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
    return url


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """A database as it was before revisions were noted."""
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path)) as database:
        database.executescript(f"PRAGMA journal_mode = WAL; {BEFORE}")
    return path


@pytest.fixture
def old(empty: str, old_file: Path) -> str:
    """The URL of such a database, of either kind."""
    if empty.startswith("sqlite"):
        return f"sqlite:///{old_file}"
    fill(empty, old_file)
    return empty


def fill(url: str, old_file: Path) -> None:
    """Make a database in PostgreSQL what it would have been then."""
    with connected(f"sqlite:///{old_file}") as source, connected(url) as target:
        target.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
        for schema in SCHEMAS[:4]:  # the others came later
            migrate(target, schema, to=FIRST)
            schema.noted.drop(target)
        tables = sa.MetaData()
        tables.reflect(source)
        for table in tables.tables.values():
            copy(source, target, table)


def copy(source: sa.Connection, target: sa.Connection, table: sa.Table) -> None:
    """Copy all rows; vectors as pgvector reads them."""
    rows = [dict(row) for row in source.execute(sa.select(table)).mappings()]
    for row in rows:
        if "vector" in row:
            row["vector"] = json.dumps(memoryview(row["vector"]).cast("f").tolist())
    names = ", ".join(f'"{column.name}"' for column in table.columns)
    values = ", ".join(f"CAST(:{c.name} AS vector)" if c.name == "vector" else f":{c.name}" for c in table.columns)
    target.execute(sa.text(f"INSERT INTO {table.name} ({names}) VALUES ({values})"), rows)


async def answers(store: SqlDocuments) -> list[list[tuple[Chunk, float]]]:
    return [[(c, round(score, 5)) for c, score in await store.search(q, held, 9)] for q in QUERIES for held in HELD]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
@pytest.mark.filterwarnings("ignore:Did not recognize type 'vector'")
def test_the_migrations_make_the_tables_that_a_new_database_has(empty: str, schema: Schema) -> None:
    with connected(empty) as connection:
        migrate(connection, schema, to=schema.head)
        context = MigrationContext.configure(connection, opts={"version_table": schema.noted.name})
        assert compare_metadata(context, schema.tables) == []
        for name, table in schema.tables.tables.items():  # what Alembic does not compare
            primary_key = sa.inspect(connection).get_pk_constraint(name)["constrained_columns"]
            assert primary_key == [column.name for column in table.primary_key]
            if empty.startswith("sqlite"):
                (without,) = connection.exec_driver_sql(f"SELECT wr FROM pragma_table_list('{name}')").scalars()
                assert bool(without) is (table.dialect_options["sqlite"]["with_rowid"] is False)
        assert schema.revision(connection) == schema.head


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: schema.name)
def test_the_newest_migration_is_the_one_that_new_databases_are_stamped_with(schema: Schema) -> None:
    assert ScriptDirectory(schema.folder, version_locations=[schema.folder]).get_heads() == [schema.head]


async def test_an_old_database_answers_as_a_new_one(old: str, tmp_path: Path) -> None:
    store, new = SqlDocuments(old), SqlDocuments(tmp_path / "new.db")
    await new.upsert(LIBRARY)
    assert await answers(store) == await answers(new)
    assert await store.verify() == []
    await store.set_readers(["menu"], READERS["rota"])
    await store.upsert([replace(chunk, text="a new text") for chunk in LIBRARY[4:6]])
    await store.delete(["notes"])
    assert await store.verify() == []
    assert await store.search(QUERIES[0], HELD[0], 9) == []
    await store.close()
    await new.close()


async def test_what_else_lies_in_an_old_database_is_there(old: str) -> None:
    journal, profiles, memories = SqlJournal(old), SqlProfiles(old), SqlMemories(old)
    assert await journal.verify() == 2
    assert (await profiles.get(ANA)).name == "Ana"
    (recalled,) = await memories.recall(ANA, "wine", EVERYTHING, 1)
    assert recalled.text == "likes red wine"
    for store in (journal, profiles, memories):
        await store.close()


def test_a_database_is_brought_up_to_date_by_hand_and_then_left_alone(old: str, tmp_path: Path) -> None:
    assert upgrade(old) == dict.fromkeys(("documents", "journal", "profiles", "memories"), FIRST)
    assert upgrade(old)["documents"] == DOCUMENTS.head
    with pytest.raises(StoreError, match="nothing of Ringwall's"):
        upgrade(tmp_path / "other.db")


async def test_a_database_newer_than_the_code_is_not_opened(empty: str) -> None:
    await SqlDocuments(empty).close()
    await SqlJournal(empty).close()
    with connected(empty) as connection:
        for schema in SCHEMAS[:2]:
            connection.execute(sa.update(schema.noted).values(version_num="9999"))
    told = "are kept in revision 9999; expected: revision .*; next: use the version"
    with pytest.raises(StoreError, match=f"documents .* {told}"):
        SqlDocuments(empty)
    with pytest.raises(JournalUnavailable, match=f"journal .* {told}"):
        SqlJournal(empty)


OPEN = """
import asyncio, sys
from ringwall.data import Query
from ringwall_sql import SqlDocuments

async def main():
    print("ready", flush=True)
    input()
    store = SqlDocuments(sys.argv[1])
    print(len(await store.search(Query("table"), frozenset({"public"}), 9)))
    await store.close()

asyncio.run(main())
"""


def test_processes_that_open_an_old_database_at_once_all_succeed(old: str) -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", OPEN, old]
    processes = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    assert [process.communicate("go\n")[0] for process in processes] == ["2\n"] * 4


NO_ALEMBIC = """
import asyncio, sys
from ringwall_sql import SqlDocuments, SqlJournal, SqlMemories, SqlProfiles

for _ in range(2):
    for store in SqlDocuments, SqlJournal, SqlMemories, SqlProfiles:
        asyncio.run(store(sys.argv[1]).close())
assert "alembic" not in sys.modules
"""


def test_who_opens_a_new_or_a_current_database_does_not_wait_for_alembic(empty: str) -> None:
    subprocess.run([sys.executable, "-c", NO_ALEMBIC, empty], check=True)


def test_who_may_not_change_an_old_database_is_told_what_to_do(old_file: Path) -> None:
    told = rf"documents in '.*' are kept in revision {FIRST}; expected: revision .*; next: .*ringwall_sql.upgrade"
    before = old_file.read_bytes()
    with pytest.raises(StoreError, match=told):
        SqlDocuments(f"sqlite:///file:{old_file}?mode=ro&uri=true")
    with pytest.raises(StoreError, match=told):
        SqlDocuments(old_file, migrate=False)
    assert old_file.read_bytes() == before
    upgrade(old_file)
    asyncio.run(SqlDocuments(old_file, migrate=False).close())


def test_who_does_not_own_an_old_database_in_postgresql_is_told_what_to_do(postgresql: str, old_file: Path) -> None:
    """Its owner makes it new; then it can be searched."""
    fill(postgresql, old_file)
    with connected(postgresql) as connection:
        for statement in (
            "DROP ROLE IF EXISTS reader",
            "CREATE ROLE reader LOGIN",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader",
        ):
            connection.exec_driver_sql(statement)
    as_reader = sa.make_url(postgresql).set(username="reader").render_as_string(hide_password=False)
    with pytest.raises(StoreError, match=f"are kept in revision {FIRST}.*next: let somebody who may"):
        SqlDocuments(as_reader)
    upgrade(postgresql)
    asyncio.run(SqlDocuments(as_reader).close())
    with connected(postgresql) as connection:
        connection.exec_driver_sql("DROP OWNED BY reader")


def test_an_upgrade_that_fails_leaves_the_database_as_it_was(old_file: Path) -> None:
    with closing(sqlite3.connect(old_file)) as database:
        database.execute("CREATE TABLE chunk_words_by_readers (in_the_way INTEGER)")
        before = "\n".join(database.iterdump())
    with pytest.raises(StoreError):
        SqlDocuments(old_file)
    with closing(sqlite3.connect(old_file)) as database:
        assert "\n".join(database.iterdump()) == before
