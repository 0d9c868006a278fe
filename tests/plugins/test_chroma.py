"""Chroma: the contract, and what a folder must survive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from ringwall.data import Chunk, DocumentStore, Query
from ringwall.data.contract import QUESTION, StoreOfRecordContract, chunk
from ringwall.errors import ConfigurationError, InvalidInput, StoreError
from ringwall.principal import ACL, PUBLIC, Principal
from ringwall_chroma import ChromaStore

ANA = Principal.user("ana").vouched_grants
BEN = Principal.user("ben", "staff").vouched_grants
OPEN, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")


class TestChromaStore(StoreOfRecordContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[DocumentStore]:
        store = ChromaStore(tmp_path / "documents")
        yield store
        await store.close()


async def ids(store: DocumentStore, readable: frozenset[str], k: int = 10) -> set[str]:
    return {match.chunk.id for match in await store.search(QUESTION, readable, k)}


async def test_a_folder_opened_again_has_its_chunks_and_their_readers(tmp_path: Path) -> None:
    first = ChromaStore(tmp_path)
    await first.upsert([chunk("open", OPEN), chunk("staff's", STAFF), chunk("moved", OPEN)])
    await first.set_readers(["moved"], STAFF)
    await first.close()
    again = ChromaStore(tmp_path)
    assert await ids(again, ANA) == {"open"}
    assert await ids(again, BEN) == {"open", "staff's", "moved"}
    with pytest.raises(InvalidInput, match="2 dimensions"):
        await again.upsert([replace(chunk("new", OPEN), vector=(1.0, 0.0))])
    await again.close()


async def test_two_stores_in_memory_know_nothing_of_each_other() -> None:
    one, other = ChromaStore(), ChromaStore()
    await one.upsert([chunk("a", OPEN)])
    assert await ids(other, ANA) == set()
    await other.close()
    assert await ids(one, ANA) == {"a"}
    await one.close()


async def test_what_chroma_cannot_keep_or_look_for_is_refused() -> None:
    store = ChromaStore()
    with pytest.raises(InvalidInput, match="no vector"):
        await store.upsert([chunk("a", OPEN), Chunk("b", "b", "text", OPEN)])
    await store.upsert([chunk("a", OPEN)])
    with pytest.raises(InvalidInput, match="UTF-8"):
        await store.set_readers(["a"], ACL.of("role:\ud800"))
    with pytest.raises(InvalidInput, match="without a vector"):
        await store.search(Query("table"), ANA, 5)
    await store.close()


async def test_more_chunks_than_chroma_takes_at_once_are_stored_and_deleted() -> None:
    store = ChromaStore()
    chunks = [chunk(f"a#{n}", OPEN, "table", "a") for n in range(5_500)]
    await store.upsert([replace(c, vector=(1.0, n * 0.01, 0.0)) for n, c in enumerate(chunks)])
    await store.set_readers(["a"], STAFF)
    assert await ids(store, ANA) == set()
    assert len(await ids(store, BEN)) == 10
    await store.delete(["a"])
    assert await ids(store, BEN) == set()
    await store.close()


@pytest.mark.parametrize("hidden", [False, True])
async def test_equal_vectors_that_cut_the_index_into_pieces_hide_nothing(*, hidden: bool) -> None:
    store = ChromaStore()
    await store.upsert([chunk(f"a{n}", OPEN) for n in range(1_500)])
    if hidden:
        await store.upsert([chunk("hidden", STAFF)])
    assert len(await ids(store, ANA, 2_000)) == 1_500
    await store.close()


async def test_a_folder_belongs_to_one_store_at_a_time(tmp_path: Path) -> None:
    store = ChromaStore(tmp_path)
    with pytest.raises(StoreError, match="in use"):
        ChromaStore(tmp_path)
    await store.close()
    await ChromaStore(tmp_path).close()


async def test_a_store_whose_process_was_killed_opens_with_all_it_acknowledged(tmp_path: Path) -> None:
    fill_and_be_killed(tmp_path)
    store = ChromaStore(tmp_path)
    assert await ids(store, ANA) == set()
    assert len(await ids(store, BEN)) == 10
    await store.close()


def fill_and_be_killed(folder: Path) -> None:
    """Fill a store in a process of its own, and kill that process once it has said so."""
    code = f"""
import asyncio
from ringwall.data.contract import chunk
from ringwall.principal import ACL
from ringwall_chroma import ChromaStore

async def main():
    store = ChromaStore({str(folder)!r})
    await store.upsert([chunk(str(n), ACL.of("role:staff")) for n in range(10)])
    print("stored", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"stored\n"
        child.kill()


@pytest.mark.parametrize("path", ["a file", "not a database"])
def test_what_is_no_store_is_refused_when_opened(tmp_path: Path, path: str) -> None:
    (tmp_path / "a file").write_text("a file, not a folder")
    (tmp_path / "not a database").mkdir()
    (tmp_path / "not a database" / "chroma.sqlite3").write_bytes(b"garbage" * 2000)
    with pytest.raises(StoreError):
        ChromaStore(tmp_path / path)


async def test_a_closed_store_says_so_and_may_be_closed_again(tmp_path: Path) -> None:
    store = ChromaStore(tmp_path)
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.search(QUESTION, ANA, 5)


async def test_the_event_loop_runs_on_while_chroma_works() -> None:
    store = ChromaStore()
    storing = asyncio.create_task(store.upsert([chunk(str(n), OPEN) for n in range(2000)]))
    turns = 0
    while not storing.done():
        await asyncio.sleep(0)
        turns += 1
    await storing
    assert turns > 10
    await store.close()


# ---- on a server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Chroma server of its own, in a process."""
    folder = tmp_path_factory.mktemp("server")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    chroma = Path(sys.executable).with_name("chroma")
    command = [str(chroma), "run", "--path", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


class TestOnAServer(StoreOfRecordContract):
    @pytest_asyncio.fixture
    async def store(self, server: str) -> AsyncIterator[DocumentStore]:
        store = ChromaStore(server=server, collection=f"c{uuid.uuid4().hex}")
        yield store
        await store.close()


async def test_what_one_process_hides_on_a_server_another_does_not_find(server: str) -> None:
    one, other = (ChromaStore(server=server, collection="shared") for _ in range(2))
    await one.upsert([chunk("a", OPEN), chunk("b", ACL.of("collection:new"))])
    assert await ids(other, ANA) == {"a"}
    assert await ids(other, frozenset(("collection:new",))) == {"b"}
    revision = await other.revision()
    await one.set_readers(["a"], STAFF)
    assert await ids(other, ANA) == set()
    assert await other.revision() != revision
    for store in one, other:
        await store.close()


@pytest.mark.parametrize("server", ["localhost:8000", "ftp://localhost", "http://"])
def test_a_server_that_is_no_url_is_refused(server: str) -> None:
    with pytest.raises(ConfigurationError, match="server"):
        ChromaStore(server=server)


def test_a_folder_and_a_server_are_one_too_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="one of the two"):
        ChromaStore(tmp_path, server="http://localhost:8000")


def test_a_server_that_does_not_answer_is_a_store_error() -> None:
    with pytest.raises(StoreError, match="open the database"):
        ChromaStore(server="http://127.0.0.1:1")
