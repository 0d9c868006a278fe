"""Documents in SQLite and in PostgreSQL."""

from __future__ import annotations

import asyncio
import math
import random
import resource
import sqlite3
import subprocess
import sys
from array import array
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ringwall.data.base import Chunk, Condition, Match, Query, Scalar, StoreOfRecord, Vector
from ringwall.data.contract import QUESTION, StoreOfRecordContract, chunk
from ringwall.data.memory import MemoryStore
from ringwall.errors import InvalidInput, StoreError
from ringwall.principal import ACL, PUBLIC
from ringwall_sql import SqlDocuments, SqlJournal

pytestmark = pytest.mark.asyncio

EVERYONE = ACL.of(PUBLIC)
STAFF = ACL.of("role:staff")
PUBLICLY = frozenset((PUBLIC,))
AS_STAFF = frozenset((PUBLIC, "role:staff"))

Open = Callable[..., SqlDocuments]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "documents.db"


@pytest_asyncio.fixture
async def open_sqlite(path: Path) -> AsyncIterator[Open]:
    """Opens a store on the same file each time, and closes them all."""
    opened: list[SqlDocuments] = []

    def open_(**options: Any) -> SqlDocuments:
        opened.append(SqlDocuments(path, **options))
        return opened[-1]

    yield open_
    for store in opened:
        await store.close()


@pytest_asyncio.fixture
async def open_postgresql(postgresql: str) -> AsyncIterator[Open]:
    """Opens a store on the same database each time, and closes them all."""
    opened: list[SqlDocuments] = []

    def open_(**options: Any) -> SqlDocuments:
        opened.append(SqlDocuments(postgresql, **options))
        return opened[-1]

    yield open_
    for store in opened:
        await store.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def open_store(request: pytest.FixtureRequest) -> Open:
    """Opens a store on the same database each time, of either kind."""
    open_: Open = request.getfixturevalue(f"open_{request.param}")
    return open_


class TestOnSqlite(StoreOfRecordContract):
    @pytest.fixture
    def store(self, open_sqlite: Open) -> StoreOfRecord:
        return open_sqlite()


class TestOnPostgresql(StoreOfRecordContract):
    @pytest.fixture
    def store(self, open_postgresql: Open) -> StoreOfRecord:
        return open_postgresql()


_words = st.lists(
    st.sampled_from(["wine", "garden", "table", "tables", "secret", "running", "runs", "the", "Who", "é", "日本", "x"]),
    max_size=12,
)
_years: st.SearchStrategy[Scalar] = st.sampled_from(
    [2023, 2024, 2024.0, 2024.5, "2024", "é'\"\\", True, False, 1, 0, 0.0, -0.0, -3, 10**16, 1e16, 2**70, math.inf, ""]
)
_conditions = st.builds(
    lambda operator, values: Condition("year", operator, values if operator == "in" else values[0]),
    st.sampled_from(["==", "!=", "in"]),
    st.lists(_years, min_size=1, max_size=3).map(tuple),
) | st.builds(
    lambda operator, value: Condition("year", operator, value),
    st.sampled_from(["<", "<=", ">", ">="]),
    _years.filter(lambda value: not isinstance(value, bool)),
)
_vectors = st.none() | st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=3, max_size=3).map(tuple)


@st.composite
def _libraries(draw: st.DrawFn) -> list[Chunk]:
    return [
        Chunk(
            id := f"{n % 4}#{n}",
            id[0],
            " ".join(draw(_words)),
            ACL(draw(st.sets(st.sampled_from((PUBLIC, "role:staff", "user:ana")), min_size=1))),
            vector=draw(_vectors),
            metadata={"year": draw(_years)},
        )
        for n in range(draw(st.integers(0, 14)))
    ]


async def same_as_in_memory(
    store: SqlDocuments,
    library: Sequence[Chunk],
    words: Sequence[str],
    vector: Vector | None,
    k: int,
    where: tuple[Condition, ...],
) -> None:
    memory = MemoryStore()
    await store.replace([str(n) for n in range(4)], library)
    await memory.upsert(library)
    for readable in (AS_STAFF, PUBLICLY, frozenset(("user:ana",))):
        query = Query(" ".join(words), vector, where)
        expected, found = await memory.search(query, readable, k), await store.search(query, readable, k)
        assert [m.score for m in found] == pytest.approx([m.score for m in expected], abs=1e-5)
        scores = {chunk.id: score for chunk, score in await memory.search(query, readable, 99)}
        assert len({m.chunk.id for m in found}) == len(expected)
        if k >= 99:
            assert {m.chunk.id for m in found} == set(scores)
        if vector is None:
            assert [m.chunk.id for m in found] == [m.chunk.id for m in expected]


_SAME = {
    "library": _libraries(),
    "words": _words,
    "vector": _vectors,
    "k": st.sampled_from([1, 3, 6, 99]),
    "where": st.lists(_conditions, max_size=2).map(tuple),
}
_lenient = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], derandomize=True
)


@settings(_lenient, max_examples=100)
@given(**_SAME)
async def test_a_search_finds_on_sqlite_what_it_finds_in_memory(
    open_sqlite: Open,
    library: list[Chunk],
    words: list[str],
    vector: Vector | None,
    k: int,
    where: tuple[Condition, ...],
) -> None:
    await same_as_in_memory(_only(open_sqlite), library, words, vector, k, where)


@settings(_lenient, max_examples=30)
@given(**_SAME)
async def test_a_search_finds_on_postgresql_what_it_finds_in_memory(
    open_postgresql: Open,
    library: list[Chunk],
    words: list[str],
    vector: Vector | None,
    k: int,
    where: tuple[Condition, ...],
) -> None:
    await same_as_in_memory(_only(open_postgresql), library, words, vector, k, where)


_STORES: dict[Open, SqlDocuments] = {}


def _only(open_: Open) -> SqlDocuments:
    """One store for all examples of a test."""
    if open_ not in _STORES:
        _STORES.clear()
        _STORES[open_] = open_()
    return _STORES[open_]


def library(size: int, readers: ACL = EVERYONE, *, document: str = "d") -> list[Chunk]:
    """Chunks of one document, each with a vector of its own."""
    chooser = random.Random(size)
    return [
        replace(
            chunk(f"{document}#{n}", readers, f"table number{n} by the window", document),
            vector=tuple(chooser.uniform(-1, 1) for _ in range(8)),
        )
        for n in range(size)
    ]


def ids(matches: Sequence[Match]) -> set[str]:
    return {match.chunk.id for match in matches}


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's transaction that keeps everybody else from writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


async def test_what_is_stored_is_there_when_it_is_opened_again(open_store: Open) -> None:
    store = open_store()
    await store.upsert([replace(chunk("a", STAFF), metadata={"year": 2024})])
    revision = await store.revision()
    await store.close()
    again = open_store()
    (match,) = await again.search(QUESTION, AS_STAFF, 5)
    assert match.chunk.vector == (1.0, 0.0, 0.0)
    assert await again.search(QUESTION, PUBLICLY, 5) == []
    assert await again.revision() == revision
    with pytest.raises(StoreError, match="closed"):
        await store.search(QUESTION, AS_STAFF, 5)


async def test_a_change_made_through_another_store_holds_from_the_next_search_on(open_store: Open) -> None:
    one, other = open_store(), open_store()
    await one.upsert([chunk("a", EVERYONE), chunk("b", EVERYONE)])
    assert ids(await other.search(QUESTION, PUBLICLY, 5)) == {"a", "b"}
    revision = await other.revision()
    await one.set_readers(["a"], STAFF)
    assert ids(await other.search(QUESTION, PUBLICLY, 5)) == {"b"}
    assert await other.get(["a"], PUBLICLY) == []
    await one.delete(["b"])
    assert await other.search(QUESTION, PUBLICLY, 5) == []
    assert await other.revision() != revision
    await one.upsert([replace(chunk("a", EVERYONE), vector=(0.0, 1.0, 0.0))])
    (match,) = await other.search(Query("", (0.0, 1.0, 0.0)), PUBLICLY, 5)
    assert match.score == pytest.approx(1.0)


async def test_two_stores_that_change_one_database_by_turns_both_find_what_it_holds(open_store: Open) -> None:
    stores, memory, chooser = [open_store(), open_store()], MemoryStore(), random.Random(7)
    readers = [EVERYONE, STAFF, ACL.of("user:ana"), ACL.of("user:ana", "role:staff")]
    for _ in range(40):
        document, acl = chooser.choice("abcd"), chooser.choice(readers)
        changed = [
            replace(c, text=f"table {chooser.choice(['wine', 'garden'])} {chooser.random()}", readers=acl)
            for c in library(chooser.randrange(1, 9), document=document)
        ]
        change = chooser.choice(["upsert", "upsert", "replace", "delete", "set_readers"])
        for store in (chooser.choice(stores), memory):
            if change == "upsert":
                await store.upsert(changed)
            elif change == "replace":
                await store.replace([document], changed)
            elif change == "delete":
                await store.delete([document])
            else:
                await store.set_readers([document], acl)
        query = Query("wine table", tuple(chooser.uniform(-1, 1) for _ in range(8)))
        for readable in (PUBLICLY, AS_STAFF, frozenset(("user:ana",))):
            expected = [(m.chunk.id, m.chunk.readers) for m in await memory.search(query, readable, 6)]
            for store in stores:
                assert [(m.chunk.id, m.chunk.readers) for m in await store.search(query, readable, 6)] == expected
    assert await stores[0].verify() == []


async def test_many_chunks_of_the_same_readers_are_found_moved_scanned_and_deleted(open_store: Open) -> None:
    store = open_store()
    many = library(2500)
    await store.upsert(many[:1500])
    await store.upsert(many[1000:])
    for n in (0, 1023, 1024, 2499):
        (best, *_) = await store.search(Query(f"number{n}", many[n].vector), PUBLICLY, 3)
        assert best.chunk.id == f"d#{n}"
    assert len(await store.search(Query("table"), PUBLICLY, 5000)) == 2500
    await store.set_readers(["d"], STAFF)
    assert await store.search(Query("table"), PUBLICLY, 5) == []
    scanned = [chunk async for batch in store.scan() for chunk in batch]
    assert {c.id for c in scanned} == {c.id for c in many}
    assert {c.readers for c in scanned} == {STAFF}
    assert await store.verify() == []
    await store.upsert(library(30, document="e"))
    await store.delete(["d"])
    assert len(await store.search(Query("table"), AS_STAFF, 5000)) == 30
    assert await store.verify() == []
    assert await store.documents() == ["e"]


async def test_readers_may_hold_and_documents_may_name_any_number_of_grants(open_store: Open) -> None:
    store = open_store()
    many = [f"collection:{n}" for n in range(40_000)]
    await store.upsert([chunk("a", ACL(many[:2000])), chunk("b", STAFF), chunk("c", ACL(["x" * 5000, "\ud800\x00"]))])
    assert ids(await store.search(QUESTION, frozenset(many), 5)) == {"a"}
    assert ids(await store.search(QUESTION, frozenset(["\ud800\x00"]), 5)) == {"c"}
    assert [c.id for c in await store.get(["c", "b"], frozenset(["x" * 5000]))] == ["c"]


async def test_documents_are_listed_by_the_beginning_of_their_ids(open_store: Open) -> None:
    store = open_store()
    await store.upsert([chunk(id, STAFF) for id in ("menu/b", "menu/a", "menu%", "wine", "\ud800")])
    assert await store.documents("menu/") == ["menu/a", "menu/b"]
    assert await store.documents("menu%") == ["menu%"]
    assert len(await store.documents()) == 5
    await store.delete(["wine"])
    assert await store.documents("wine") == []


async def test_what_replaces_a_document_is_there_at_once_or_not_at_all(open_store: Open) -> None:
    store = open_store()
    await store.upsert([chunk("a#0", EVERYONE, document="a"), chunk("a#1", EVERYONE, document="a")])
    with pytest.raises(InvalidInput):
        await store.replace(["a"], [replace(chunk("a#2", EVERYONE, document="a"), vector=(float("nan"),))])
    assert ids(await store.search(QUESTION, PUBLICLY, 5)) == {"a#0", "a#1"}
    await store.replace(["a"], [chunk("a#2", EVERYONE, document="a")])
    assert ids(await store.search(QUESTION, PUBLICLY, 5)) == {"a#2"}
    assert await store.verify() == []


async def test_vectors_of_another_size_are_refused_until_the_last_of_the_old_is_gone(open_store: Open) -> None:
    store = open_store()
    await store.upsert([chunk("a", EVERYONE)])
    await store.build_index()
    longer = replace(chunk("b", EVERYONE), vector=(1.0, 0.0, 0.0, 0.0))
    with pytest.raises(InvalidInput, match="dimensions"):
        await store.upsert([longer])
    with pytest.raises(InvalidInput, match="dimensions"):
        await store.search(Query("table", longer.vector), PUBLICLY, 5)
    await store.replace(["a"], [longer])
    assert ids(await store.search(Query("table", longer.vector), PUBLICLY, 5)) == {"b"}
    assert await store.verify() == []


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (0, 2**63)])
async def test_a_place_that_no_database_can_hold_is_refused(open_store: Open, start: int, end: int) -> None:
    store = open_store()
    with pytest.raises(InvalidInput, match="63 bits"):
        await store.upsert([chunk("a", EVERYONE), replace(chunk("b", EVERYONE), start=start, end=end)])
    assert await store.search(QUESTION, PUBLICLY, 5) == []


async def test_a_store_may_lie_in_the_journals_database(open_sqlite: Open, path: Path) -> None:
    journal = SqlJournal(path)
    store = open_sqlite()
    await store.upsert([chunk("a", EVERYONE)])
    assert await journal.verify() == 0
    await journal.close()
    assert await store.verify() == []


async def test_a_locked_store_can_be_searched_and_says_that_it_cannot_be_changed(open_sqlite: Open, path: Path) -> None:
    store = open_sqlite(busy_timeout=0.1)
    await store.upsert([chunk("a", EVERYONE)])
    with locked(path):
        with pytest.raises(StoreError, match=r"locked.*next: end what holds the lock"):
            await store.set_readers(["a"], STAFF)
        assert ids(await store.search(QUESTION, PUBLICLY, 5)) == {"a"}
    await store.set_readers(["a"], STAFF)
    assert await store.search(QUESTION, PUBLICLY, 5) == []


async def test_who_waits_too_long_for_another_writer_in_postgresql_is_told(
    open_postgresql: Open, postgresql_server: sa.Engine
) -> None:
    store = open_postgresql(busy_timeout=0.1)
    await store.upsert([chunk("a", EVERYONE)])
    with postgresql_server.execution_options(isolation_level="READ COMMITTED").begin() as other:
        other.exec_driver_sql("UPDATE chunk_store SET changes = changes")
        with pytest.raises(StoreError, match="locked"):
            await store.set_readers(["a"], STAFF)
        assert ids(await store.search(QUESTION, PUBLICLY, 5)) == {"a"}
    await store.set_readers(["a"], STAFF)
    assert await store.search(QUESTION, PUBLICLY, 5) == []


async def test_a_full_disk_is_reported_and_leaves_what_was_stored(open_sqlite: Open, path: Path) -> None:
    store = open_sqlite()
    await store.upsert([chunk("a", EVERYONE)])
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    written_ahead = path.with_name(f"{path.name}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (written_ahead + 5000, unlimited[1]))
    try:
        with pytest.raises(StoreError, match=r"next: .* disk"):
            await store.upsert([chunk(f"b{n}", EVERYONE, "x" * 10_000) for n in range(20)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert ids(await store.search(QUESTION, PUBLICLY, 99)) == {"a"}
    await store.upsert([chunk("b", EVERYONE)])
    assert await store.verify() == []


def bytes_of(path: Path) -> bytes:
    """What the database's files hold, the log included."""
    return b"".join(file.read_bytes() for file in path.parent.glob(f"{path.name}*"))


def rewrite(path: Path, content: bytes) -> None:
    """Put something else into the file."""
    path.write_bytes(content)


async def test_what_is_no_database_or_a_damaged_one_cannot_be_opened(open_sqlite: Open, path: Path) -> None:
    rewrite(path, b"minutes of the meeting " * 1000)
    with pytest.raises(StoreError, match=r"not an SQLite database; next: put it aside"):
        open_sqlite()
    rewrite(path, b"")
    store = open_sqlite()
    await store.upsert(library(200))
    await store.close()
    whole = bytes_of(path)
    rewrite(path, whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"damaged; next: put it aside and restore a backup"):
        open_sqlite()
    rewrite(path, whole[:4096] + b"\xff" * 200_000 + whole[204_096:])
    with pytest.raises(StoreError, match=r"damaged; next: put it aside"):
        open_sqlite()


async def test_damage_in_the_midst_of_the_file_is_found(open_sqlite: Open, path: Path) -> None:
    store = open_sqlite()
    await store.upsert(library(500))
    await store.close()
    whole = bytes_of(path)
    middle = whole.index(b"number250 by the window") // 4096 * 4096
    rewrite(path, whole[:middle] + b"\xff" * 4096 + whole[middle + 4096 :])
    store = open_sqlite()
    with pytest.raises(StoreError, match="damaged"):
        await store.search(Query("table"), PUBLICLY, 600)
    assert any("damaged" in finding for finding in await store.verify())


FAULTS = {
    "UPDATE chunk_shelves SET acl = 99 WHERE number = 1": "has no readers",
    "DELETE FROM chunk_documents": "has no document",
    "DELETE FROM acl_grants WHERE acl = 1": "not those who may open",
    "INSERT INTO acl_grants VALUES ('someone', 77)": "unknown",
    "UPDATE chunk_shelves SET count = count + 1": "says it has",
    "UPDATE chunk_vectors SET vector = x'0000'": "dimensions",
    "UPDATE chunk_vectors SET acl = 77": "other readers",
    "DELETE FROM chunks WHERE id = 'b'": "belongs to no chunk",
    "UPDATE chunk_words SET acl = 77 WHERE word = 'tabl' AND shelf = 1": "other readers than the shelf",
    "DELETE FROM chunk_words WHERE word = 'tabl'": "not to be found by as many words",
}


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_check_tells_what_is_wrong(open_sqlite: Open, path: Path, fault: str) -> None:
    store = open_sqlite()
    await store.upsert([chunk("a", EVERYONE), chunk("b", STAFF)])
    assert await store.verify() == []
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(fault)
    assert any(FAULTS[fault] in finding for finding in await store.verify())


async def test_what_is_deleted_is_in_no_file_once_the_store_is_compacted(open_sqlite: Open, path: Path) -> None:
    store = open_sqlite()
    secret = Chunk("memo#0", "memo-id", "the zyzzogeton is planned", STAFF, vector=(0.123456, 0.654321, 0.111))
    await store.upsert([secret])
    await store.upsert([replace(c, vector=(1.0, 0.0, 0.0)) for c in library(300)])
    (stored,) = await store.get(["memo#0"], AS_STAFF)
    assert b"zyzzogeton" in bytes_of(path)
    size = len(bytes_of(path))
    await store.delete(["memo-id", "d"])
    await store.compact()
    left = bytes_of(path)
    assert len(left) < size
    for trace in (b"zyzzogeton", b"memo-id", b"memo#0", b"role:staff", _floats(stored.vector)):
        assert trace not in left
    assert await store.verify() == []


async def test_what_is_deleted_leaves_no_words_behind_even_if_they_are_cut_differently_now(
    open_sqlite: Open, path: Path
) -> None:
    store = open_sqlite()
    await store.upsert([chunk("a", EVERYONE, "zyzzogeton"), chunk("b", EVERYONE)])
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE chunks SET text = 'other words' WHERE id = 'a'")
    await store.delete(["a"])
    await store.compact()
    assert b"zyzzogeton" not in bytes_of(path)
    assert await store.verify() == []


def _floats(vector: Vector | None) -> bytes:
    return array("f", vector or ()).tobytes()


async def test_compacting_while_somebody_reads_says_so(open_sqlite: Open, path: Path) -> None:
    store = open_sqlite(busy_timeout=0.1)
    await store.upsert([chunk("a", EVERYONE)])
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM chunks").fetchall()
        await store.delete(["a"])
        with pytest.raises(StoreError, match=r"compact it again|locked"):
            await store.compact()
    await store.compact()


WRITE_FOREVER = """
import asyncio, sys
from ringwall.data import Chunk
from ringwall.principal import ACL
from ringwall_sql import SqlDocuments

async def main():
    store = SqlDocuments(sys.argv[1])
    for version in range(int(sys.argv[2]), 10_000):
        readers = ACL.of("public" if version % 2 else "role:staff")
        await store.upsert([
            Chunk(f"d#{n}", "d", f"table version{version} number{n}", readers, vector=(1.0, version % 7, n))
            for n in range(200)
        ])
        print(version, flush=True)

asyncio.run(main())
"""


def run_python(program: str, *arguments: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", program, *map(str, arguments)], stdin=pipe, stdout=pipe, text=True)


async def test_a_process_that_reads_sees_each_change_of_one_that_writes_whole(open_sqlite: Open, path: Path) -> None:
    store = open_sqlite()
    writer = run_python(WRITE_FOREVER, path, 0)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "0\n"
    seen = set()
    for _ in range(40):
        hidden = await store.search(QUESTION, PUBLICLY, 300)
        assert len(hidden) in (0, 200)
        matches = await store.search(Query("table", (1.0, 0.0, 0.0)), AS_STAFF, 300)
        assert len(matches) == 200
        (version,) = {match.chunk.text.split()[1] for match in matches}
        seen.add(version)
    writer.kill()
    writer.communicate()
    assert len(seen) > 1


async def test_kill_9_in_the_middle_of_a_change_leaves_all_of_it_or_nothing(open_sqlite: Open, path: Path) -> None:
    acknowledged = -1
    for _ in range(4):
        writer = run_python(WRITE_FOREVER, path, acknowledged + 1)
        assert writer.stdout is not None
        for _ in range(random.randrange(1, 4)):
            acknowledged = int(writer.stdout.readline())
        await asyncio.to_thread(writer.poll)
        writer.kill()
        rest = [line for line in writer.communicate()[0].splitlines(keepends=True) if line.endswith("\n")]
        acknowledged = int(rest[-1]) if rest else acknowledged
        store = open_sqlite()
        matches = await store.search(Query("table", (1.0, 0.0, 0.0)), AS_STAFF, 300)
        (version,) = {match.chunk.text.split()[1] for match in matches}
        assert len(matches) == 200
        assert version in (f"version{acknowledged}", f"version{acknowledged + 1}")
        assert await store.verify() == []
        acknowledged = int(version.removeprefix("version"))


OPEN = """
import asyncio, sys
from ringwall.data import Chunk
from ringwall.principal import ACL
from ringwall_sql import SqlDocuments

async def main():
    store = SqlDocuments(sys.argv[1])
    for n in range(5):
        await store.upsert([Chunk(f"{sys.argv[2]}#{n}", sys.argv[2], "a table", ACL.of("public"))])
    await store.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_processes_may_create_and_fill_one_database_at_the_same_time(
    request: pytest.FixtureRequest, path: Path, kind: str
) -> None:
    place = str(path) if kind == "sqlite" else request.getfixturevalue("postgresql")
    processes = [run_python(OPEN, place, name) for name in "abc"]
    assert [process.communicate()[0] for process in processes] == [""] * 3
    assert [process.returncode for process in processes] == [0] * 3
    store = SqlDocuments(place)
    assert len(await store.search(Query("table"), PUBLICLY, 99)) == 15
    assert await store.verify() == []
    await store.close()


class TestWithAnIndex:
    """PostgreSQL, with more to read than is compared one by one."""

    @pytest_asyncio.fixture
    async def store(self, postgresql: str) -> AsyncIterator[SqlDocuments]:
        # The planner would rather sort so few.
        url = sa.make_url(postgresql).update_query_dict({"options": "-c enable_sort=off"})
        store = SqlDocuments(url.render_as_string(hide_password=False), exact_below=100)
        await store.upsert(library(1500, EVERYONE, document="open"))
        await store.upsert(library(700, STAFF, document="hidden"))
        await store.build_index()
        yield store
        await store.close()

    async def test_finds_what_is_nearest_and_nothing_hidden(
        self, store: SqlDocuments, open_postgresql: Open, postgresql_server: sa.Engine
    ) -> None:
        exact = open_postgresql()
        shared = 0
        for n in range(20):
            query = Query("", library(700)[n].vector)  # as it stands in the hidden document, too
            found = ids(await store.search(query, PUBLICLY, 10))
            assert len(found) == 10
            assert all(id.startswith("open") for id in found)
            shared += len(found & ids(await exact.search(query, PUBLICLY, 10)))
        assert shared >= 190
        await store.close()  # then the server has counted
        used = sa.text("SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 'chunk_vectors_near'")
        with postgresql_server.connect() as connection:
            assert connection.execute(used).scalar_one() > 0

    async def test_finds_as_many_as_are_asked_for(self, store: SqlDocuments) -> None:
        query = Query("table", library(1)[0].vector)
        assert len(await store.search(query, PUBLICLY, 1400)) == 1400
        assert len(await store.search(query, AS_STAFF, 5000)) == 2200
        await store.set_readers(["open"], ACL.of("user:ana"))
        assert await store.search(query, PUBLICLY, 10) == []
        assert len(await store.search(query, frozenset(("role:staff",)), 10)) == 10
        zeros = [replace(c, vector=(0.0,) * 8, text="") for c in library(150, document="zeros")]
        await store.upsert(zeros)
        assert len(await store.search(Query("", query.vector), PUBLICLY, 120)) == 120

    async def test_finds_what_is_changed_deleted_and_meets_conditions(self, store: SqlDocuments) -> None:
        odd = replace(library(1, document="odd")[0], metadata={"kind": "odd"}, text="unlike all others")
        await store.upsert([odd])
        query = Query("others", library(900)[899].vector, (Condition("kind", "==", "odd"),))
        assert ids(await store.search(query, PUBLICLY, 5)) == {"odd#0"}
        await store.delete(["open"])
        assert ids(await store.search(Query("", odd.vector), PUBLICLY, 5)) == {"odd#0"}
        assert await store.verify() == []
        await store.compact()
        assert ids(await store.search(Query("", odd.vector), PUBLICLY, 5)) == {"odd#0"}
