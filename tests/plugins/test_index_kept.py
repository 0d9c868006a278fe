"""The index in its folder: opened again, caught up, shared, damaged, and rid of what was deleted."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Collection, Container, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ringwall.data import Chunk, Condition, Match, MemoryStore, Query, Section, Sections
from ringwall.data.contract import QUESTION, chunk
from ringwall.principal import ACL, PUBLIC
from ringwall_index import Indexed
from ringwall_sql import SqlDocuments

READER = frozenset((PUBLIC,))
OPEN, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")


class Watched(SqlDocuments):
    """Tells what an index reads of it: how many chunks whole, and how many searches it leaves to the store."""

    read = 0
    searches = 0

    async def sections(self) -> Sections:
        versions, sizes, read = await super().sections()

        async def watched(names: Collection[int], known: Container[int]) -> AsyncIterator[Section]:
            async for section in read(names, known):
                self.read += len(section.chunks)
                yield section

        return Sections(versions, sizes, watched)

    async def search(self, query: Query, readable: frozenset[str], k: int) -> list[Match]:
        self.searches += 1
        return await super().search(query, readable, k)


def written(count: int, *, start: int = 0, readers: ACL = OPEN) -> list[Chunk]:
    """Chunks that all match `QUESTION`, each a little differently."""
    random = np.random.default_rng(start)
    return [
        replace(
            chunk(f"c{n:05}", readers, f"a table number {n} {'wine ' * (n % 4)}"),
            vector=tuple(random.standard_normal(3).tolist()),
            metadata={"page": n, "kind": ("menu", "wine", "list")[n % 3], "draft": n % 2 == 0},
        )
        for n in range(start, start + count)
    ]


async def ids(store: Indexed, k: int = 9) -> set[str]:
    return {match.chunk.id for match in await store.search(QUESTION, READER, k)}


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "documents.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


async def kept(database: Path, folder: Path, chunks: Sequence[Chunk]) -> None:
    store = Indexed(SqlDocuments(database), folder)
    await store.upsert(chunks)
    await store.build()
    await store.close()


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def is_private(folder: Path) -> bool:
    return folder.stat().st_mode & 0o077 == 0


def damage(folder: Path, name: str, harm: str) -> None:
    for path in folder.glob(f"*{name}"):
        content = path.read_bytes()
        path.unlink()
        if harm != "gone":
            path.write_bytes(content[:-7] if harm == "cut" else content[:-1] + bytes([content[-1] ^ 1]))


async def test_only_what_changed_is_read_again(database: Path) -> None:
    record = Watched(database)
    store = Indexed(record)
    await record.upsert(written(500))
    await store.build()
    assert record.read == 500
    await record.upsert(written(1, start=600))
    await record.set_readers(["c00007", "c00008"], STAFF)
    await record.delete(["c00009"])
    found = await ids(store, 600)
    assert found == {c.id for c in written(500) + written(1, start=600)} - {"c00007", "c00008", "c00009"}
    assert (record.read, record.searches) == (501, 0)
    await store.close()


async def test_what_is_gone_takes_no_place(database: Path) -> None:
    record = SqlDocuments(database)
    store = Indexed(record)
    await record.upsert(written(100))
    await store.build()
    best = await ids(store, 50)
    await record.delete(sorted(best)[:25])
    await record.set_readers(sorted(best)[25:], STAFF)
    assert len(await ids(store, 40)) == 40
    await store.close()


async def test_a_chunk_that_comes_back_as_it_was_is_found_again(database: Path) -> None:
    record = SqlDocuments(database)
    store = Indexed(record)
    near = replace(chunk("near", OPEN), vector=QUESTION.vector)
    await record.upsert([*written(20), near])
    await store.build()
    await record.delete(["near"])
    assert "near" not in await ids(store, 30)
    await record.upsert([near])
    expected = await record.search(QUESTION, READER, 30)
    found = await store.search(QUESTION, READER, 30)
    assert {m.chunk.id for m in found} == {m.chunk.id for m in expected}
    assert [m.score for m in found] == pytest.approx([m.score for m in expected], abs=1e-5)
    await store.close()


async def test_what_another_process_writes_is_found_by_the_next_search_and_what_it_hides_is_not(
    database: Path, folder: Path
) -> None:
    record = Watched(database)
    store = Indexed(record, folder)
    await record.upsert(written(300))
    await store.build()
    script = Path(__file__).with_name("writing_beside.py")
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, str(script), str(database), stdout=pipe)
    assert process.stdout is not None
    async for line in process.stdout:
        step, number = line.decode().split()
        found = await ids(store, 400)
        if step == "new" and f"new {number}" not in found:
            assert not await record.get([f"new {number}"], READER)  # hidden again already
        if step == "hid":
            assert f"new {number}" not in found
    assert await process.wait() == 0
    assert {id for id in await ids(store, 400) if id.startswith("new")} == {f"new {n}" for n in range(5, 10)}
    assert record.searches == 0
    assert 310 <= record.read < 2 * 300, "one that changed while it was read may be read once more, but never all"
    await store.close()


async def test_a_search_that_is_given_up_leaves_the_index_whole(database: Path) -> None:
    record = Watched(database)
    store = Indexed(record)
    await record.upsert(written(10))
    await store.build()
    for n in range(1, 12):
        await record.upsert(written(50, start=1000 * n))
        given_up = asyncio.create_task(ids(store))
        for _ in range(n):
            await asyncio.sleep(0)
        given_up.cancel()
        assert len(await ids(store, 1000)) == 10 + 50 * n
    assert (record.read, record.searches) == (560, 0)
    await store.close()


async def test_while_there_is_much_to_take_in_the_store_answers(database: Path) -> None:
    record = Watched(database)
    store = Indexed(record)
    await record.upsert(written(10))
    await store.build()
    await record.upsert(written(5000))
    assert len(await ids(store, 5)) == 5
    assert record.searches == 1
    await store.build()
    assert len(await ids(store, 5)) == 5
    assert record.searches == 1
    await store.close()


async def test_after_a_restart_nothing_is_read_but_what_changed(database: Path, folder: Path) -> None:
    await kept(database, folder, written(200))
    record = Watched(database)
    store = Indexed(record, folder)
    assert len(await ids(store, 300)) == 200
    assert (record.read, record.searches) == (0, 0)
    await record.upsert(written(1, start=900))
    assert "c00900" in await ids(store, 300)
    assert (record.read, record.searches) == (1, 0)
    await store.close()
    assert is_private(folder)


async def test_what_was_found_after_later_changes_is_found_after_a_restart(database: Path, folder: Path) -> None:
    await kept(database, folder, written(200))
    store = Indexed(SqlDocuments(database), folder)
    await store.upsert(written(50, start=180, readers=STAFF))
    query = replace(QUESTION, where=(Condition("kind", "in", ("menu", "new")),))
    readable = READER | {"role:staff"}
    before = await store.search(query, readable, 40)
    await store.close()
    record = Watched(database)
    store = Indexed(record, folder)
    assert await store.search(query, readable, 40) == before
    assert (record.read, record.searches) == (0, 0)
    await store.close()


@pytest.mark.parametrize("name", ["index.json", "vectors.npy", "letters.npy", "columns.npy", "about.npy"])
@pytest.mark.parametrize("harm", ["cut", "flipped", "gone"])
async def test_a_damaged_index_is_built_anew(
    database: Path, folder: Path, caplog: pytest.LogCaptureFixture, name: str, harm: str
) -> None:
    await kept(database, folder, written(50))
    damage(folder, name, harm)
    store = Indexed(SqlDocuments(database), folder)
    await store.build()
    assert len(await ids(store, 90)) == 50
    assert ("the index is built anew" in caplog.text) is (name != "index.json" or harm != "gone")
    await store.close()


async def test_the_index_of_another_store_is_of_no_use_and_leaves_nothing(database: Path, folder: Path) -> None:
    await kept(database, folder, written(80))
    other = Indexed(SqlDocuments(database.with_name("other.db")), folder)
    await other.upsert([chunk("other", OPEN)])
    await other.build()
    assert await ids(other, 90) == {"other"}
    await other.compact()
    assert b"c00007" not in everything_in(folder)
    await other.close()


async def test_what_was_deleted_is_in_no_file_after_compacting(database: Path, folder: Path) -> None:
    secret = Chunk("codes#0", "codes", "xylophone", ACL.of("user:zoe"), 0, 9, (0.6, 0.8, 0.0), {"title": "Zebra"})
    await kept(database, folder, [*written(30), secret])
    traces = (b"codes#0", b"user:zoe", b"Zebra", np.array([0.6, 0.8, 0.0], np.float32).tobytes())
    assert all(trace in everything_in(folder) for trace in traces)
    store, stale = (Indexed(SqlDocuments(database), folder) for _ in range(2))
    assert len(await ids(stale, 90)) == 30
    await stale.upsert(written(30, start=100))
    assert len(await ids(stale, 90)) == 60
    await store.delete(["codes"])
    await store.compact()
    await stale.close()  # had it open all the time, and brings nothing back
    assert not any(trace in everything_in(folder) for trace in traces)
    await store.close()
    assert not any(trace in everything_in(folder) for trace in traces)
    again = Indexed(SqlDocuments(database), folder)
    assert len(await ids(again, 90)) == 60
    await again.close()


async def test_one_of_those_who_share_a_folder_makes_the_index_for_all(database: Path, folder: Path) -> None:
    records = [Watched(database), Watched(database)]
    await records[0].upsert(written(100))
    one, two = (Indexed(record, folder) for record in records)
    await asyncio.gather(one.build(), two.build())
    assert len(await ids(one, 200)) == len(await ids(two, 200)) == 100
    await one.build()
    await two.build()
    assert sorted(record.read for record in records) == [0, 100]
    await one.close()
    await two.close()


async def test_a_folder_that_cannot_be_made_costs_a_line_in_the_log(
    database: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    store = Indexed(SqlDocuments(database), tmp_path / "file" / "index")
    await store.upsert(written(5))
    await store.build()
    assert len(await ids(store)) == 5
    assert "the index was not kept" in caplog.text
    await store.close()


async def test_vectors_of_another_dimension_are_taken_in_when_the_old_ones_are_gone(database: Path) -> None:
    store = Indexed(SqlDocuments(database))
    await store.upsert([chunk("a", OPEN)])
    await store.build()
    await store.replace(["a"], [replace(chunk("b", OPEN), vector=(1.0, 0.0))])
    await store.build()
    (match,) = await store.search(Query("table", (1.0, 0.0)), READER, 5)
    assert match.chunk.id == "b"
    await store.close()


WHERE = {
    "few": (Condition("page", "<", 40),),
    "one": (Condition("page", "==", 77),),
    "most": (Condition("page", ">=", 100.5),),
    "none": (Condition("page", "==", "77"),),
    "two": (Condition("kind", "in", ("menu", "wine")), Condition("draft", "==", True)),
    "not": (Condition("kind", "!=", "menu"),),
}


@pytest.mark.parametrize("where", WHERE.values(), ids=WHERE.keys())
async def test_conditions_leave_the_ranks_of_the_store_in_memory(where: tuple[Condition, ...]) -> None:
    chunks = [c.read_by(STAFF) if n % 5 == 0 else c for n, c in enumerate(written(1500))]
    memory, store = MemoryStore(), Indexed(MemoryStore())
    await memory.upsert(chunks)
    await store.upsert(chunks)
    await store.build()
    for query in (Query("table number wine", (1.0, 0.3, 0.5)), Query("wine 77"), Query("", (0.2, 1.0, 0.0))):
        asked = replace(query, where=where)
        expected = [m.score for m in await memory.search(asked, READER, 10)]
        found = await store.search(asked, READER, 10)
        assert [m.score for m in found] == pytest.approx(expected, abs=1e-5)
        assert all(asked.admits(m.chunk.metadata) and m.chunk.readers == OPEN for m in found)
    await store.close()


async def test_conditions_are_met_among_thousands(database: Path, folder: Path) -> None:
    random = np.random.default_rng(1)
    chunks = [
        replace(c, vector=tuple(random.standard_normal(24).tolist()), metadata={"page": n})
        for n, c in enumerate(written(9000))
    ]
    await kept(database, folder, chunks)
    store = Indexed(SqlDocuments(database), folder)
    query = random.standard_normal(24)
    cosines = {c.id: np.dot(query, c.vector or ()) / np.linalg.norm(c.vector or ()) for c in chunks}
    for below, recall in ((50, 1.0), (1500, 1.0), (6000, 0.9)):
        asked = Query("", tuple(query.tolist()), (Condition("page", "<", below),))
        found = {m.chunk.id for m in await store.search(asked, READER, 10)}
        right = sorted((c.id for c in chunks[:below]), key=lambda id: -cosines[id])[:10]
        assert len(found) == 10
        assert len(found & set(right)) >= 10 * recall
    await store.close()


async def test_searches_and_changes_go_on_while_it_is_compacted(database: Path, folder: Path) -> None:
    store = Indexed(SqlDocuments(database), folder)
    await store.upsert(written(100))
    await store.build()
    kept_first = (folder / "index.json").read_bytes()
    await store.upsert(written(4200, start=100))
    await store.build()
    hidden = 0
    while (folder / "index.json").read_bytes() == kept_first:
        await store.set_readers([f"c{hidden:05}"], STAFF)
        found = await store.search(Query(f"table {hidden} {hidden + 1}"), READER, 3)
        assert f"c{hidden:05}" not in {m.chunk.id for m in found}
        hidden += 1
    assert len(await ids(store, 5000)) == 4300 - hidden
    await store.close()
