"""Vectors in fewer bytes: what comes back, what is told apart, and what is refused."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from ringwall.data.base import Chunk, Query, StoreOfRecord
from ringwall.data.care import copy
from ringwall.data.contract import StoreOfRecordContract
from ringwall.data.memory import MemoryStore
from ringwall.errors import ConfigurationError, StoreError
from ringwall.principal import ACL, PUBLIC
from ringwall_sql import SqlDocuments
from ringwall_sql.packing import PRECISIONS, Precision, dimension_of, matrix, packed, precision_of, unpacked

EVERYONE = ACL.of(PUBLIC)
SIZES: dict[Precision, int] = {"float32": 1024, "float16": 517, "int8": 261, "binary": 37}
ERRORS: dict[Precision, float] = {"float32": 0.0, "float16": 2**-11, "int8": 0.51 / 127}
_values = st.floats(-(2.0**60), 2.0**60, width=32).map(lambda x: 0.0 if abs(x) < 2.0**-60 else x)
_vectors = st.lists(_values, min_size=1, max_size=70).map(tuple)


class TestHalfPrecision(StoreOfRecordContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[StoreOfRecord]:
        store = SqlDocuments(tmp_path / "documents.db", vectors="float16")
        yield store
        await store.close()


@given(_vectors, st.sampled_from(PRECISIONS))
def test_every_vector_says_what_it_is_kept_in_and_comes_back(vector: tuple[float, ...], precision: Precision) -> None:
    kept = packed(vector, precision)
    assert (precision_of(kept), dimension_of(kept)) == (precision, len(vector))
    back, largest = unpacked(kept), max(map(abs, vector))
    if precision == "binary":
        mean = np.float32(np.abs(np.array(vector)).mean())
        assert back == tuple(-mean if x < 0 else mean for x in vector)
    else:
        assert back == pytest.approx(vector, abs=largest * ERRORS[precision], rel=1e-6)
    assert packed(back, precision) == kept or precision == "binary" or precision == "float16"
    assert np.array_equal(matrix([kept, kept]), np.array([back, back], np.float32))


@given(st.binary(max_size=50))
def test_bytes_that_are_no_vector_are_none(kept: bytes) -> None:
    assert (precision_of(kept) is None) is (len(kept) % 4 != 0 and dimension_of(kept) == 0)


def chunks(count: int = 200) -> list[Chunk]:
    chooser = random.Random(5)
    return [
        Chunk(f"d#{n}", f"d{n % 7}", f"trout {n}", EVERYONE, vector=tuple(chooser.gauss(0, 1) for _ in range(256)))
        for n in range(count)
    ]


@pytest.mark.parametrize("precision", PRECISIONS)
async def test_it_takes_so_many_bytes_and_finds_the_nearest(tmp_path: Path, precision: Precision) -> None:
    store, memory, held = SqlDocuments(tmp_path / "a.db", vectors=precision), MemoryStore(), chunks()
    await store.upsert(held)
    async for batch in store.scan():
        await memory.upsert(batch)
    assert await store.verify() == []
    await store.set_readers(["d3"], ACL.of("role:staff"))
    await memory.set_readers(["d3"], ACL.of("role:staff"))
    for n in range(0, 200, 11):
        query, readable = Query("", held[n].vector), frozenset(("role:staff", PUBLIC))
        found, expected = await store.search(query, readable, 5), await memory.search(query, readable, 5)
        assert [m.chunk.id for m in found] == [m.chunk.id for m in expected]
        assert found[0].chunk.id == held[n].id
        assert [m.score for m in found] == pytest.approx([m.score for m in expected], abs=1e-5)
    await store.close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        assert database.execute("SELECT DISTINCT length(vector) FROM chunk_vectors").fetchall() == [(SIZES[precision],)]


@pytest.mark.parametrize("there", PRECISIONS)
async def test_another_precision_is_refused_and_none_takes_what_is_there(tmp_path: Path, there: Precision) -> None:
    store = SqlDocuments(tmp_path / "a.db", vectors=there)
    await store.upsert(chunks(3))
    await store.close()
    for other in set(PRECISIONS) - {there}:
        with pytest.raises(StoreError, match=f"kept in {there}, not {other}"):
            SqlDocuments(tmp_path / "a.db", vectors=other)
    again = SqlDocuments(tmp_path / "a.db")
    await again.upsert([Chunk("new", "new", "pike", EVERYONE, vector=chunks(1)[0].vector)])
    assert await again.verify() == []
    await again.close()
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        assert database.execute("SELECT DISTINCT length(vector) FROM chunk_vectors").fetchall() == [(SIZES[there],)]


async def test_of_two_that_opened_an_empty_database_the_first_to_write_settles_it(tmp_path: Path) -> None:
    one, two = SqlDocuments(tmp_path / "a.db", vectors="int8"), SqlDocuments(tmp_path / "a.db")
    await one.upsert(chunks(3))
    with pytest.raises(StoreError, match="kept in int8, not float32"):
        await two.upsert(chunks(3))
    assert len(await two.search(Query("trout", chunks(1)[0].vector), frozenset((PUBLIC,)), 5)) == 3
    await one.delete([f"d{n}" for n in range(7)])
    await two.upsert(chunks(3))  # nothing is left of the other
    await one.close()
    await two.close()


async def test_a_copy_may_be_kept_in_less(tmp_path: Path) -> None:
    whole, small = SqlDocuments(tmp_path / "a.db"), SqlDocuments(tmp_path / "b.db", vectors="int8")
    await whole.upsert(chunks())
    assert await copy(whole, small) == 200
    await whole.close()
    await small.close()


def test_what_there_is_not_is_refused(tmp_path: Path, postgresql: str) -> None:
    with pytest.raises(ConfigurationError, match="float32, float16, int8, binary"):
        SqlDocuments(tmp_path / "a.db", vectors="int4")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="expected: one of: float32"):
        SqlDocuments(postgresql, vectors="int8")
    asyncio.run(SqlDocuments(postgresql, vectors="float32").close())
