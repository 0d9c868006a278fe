"""Whatever happens to documents, readers, policy and process: every store answers as a plain model does."""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from ringwall import ACL, MemoryStore, Principal, Rules
from ringwall.data import Chunk, Condition, DocumentStore, Match, Query, StoreOfRecord
from ringwall_chroma import ChromaStore
from ringwall_index import Indexed
from ringwall_sql import SqlDocuments

Opens = Callable[[Path], DocumentStore]

GRANTS = ("public", "role:staff", "collection:red", "user:ana")
ANA = Principal.user("ana")
DOCUMENTS = tuple("abcd")
QUERY = Query("trout in the lake", (1.0, 0.5, 0.25))

_readers = st.sets(st.sampled_from(GRANTS), min_size=1, max_size=2).map(ACL)
_texts = st.lists(st.sampled_from(["trout", "lake", "pike", "pond", "the"]), min_size=1, max_size=6).map(" ".join)
_vectors = st.tuples(*[st.sampled_from([0.0, 0.5, -0.5, 1.0])] * 3)
_years = st.integers(2020, 2023)


class Machine(RuleBasedStateMachine):
    """One store, and beside it the plainest thing that could be right."""

    opens: Opens

    @initialize()
    def begin(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.store = self.opens(Path(self.folder.name))
        self.chunks: dict[str, Chunk] = {}
        self.policy = Rules("")

    def teardown(self) -> None:
        self.loop.run_until_complete(self.store.close())
        self.loop.close()
        self.folder.cleanup()

    @rule(
        document=st.sampled_from(DOCUMENTS),
        n=st.integers(0, 2),
        readers=_readers,
        text=_texts,
        vector=_vectors,
        year=_years,
    )
    def write(self, document: str, n: int, readers: ACL, text: str, vector: tuple[float, ...], year: int) -> None:
        chunk = Chunk(f"{document}#{n}", document, text, readers, 0, len(text), vector, {"year": year})
        self.chunks[chunk.id] = chunk
        self.loop.run_until_complete(self.store.upsert([chunk]))

    @rule(documents=st.sets(st.sampled_from(DOCUMENTS), max_size=2))
    def delete(self, documents: set[str]) -> None:
        self.chunks = {id: c for id, c in self.chunks.items() if c.document not in documents}
        self.loop.run_until_complete(self.store.delete(sorted(documents)))

    @rule(documents=st.sets(st.sampled_from(DOCUMENTS), max_size=2), readers=_readers)
    def relabel(self, documents: set[str], readers: ACL) -> None:
        changed = {id: c.read_by(readers) for id, c in self.chunks.items() if c.document in documents}
        self.chunks |= changed
        self.loop.run_until_complete(self.store.set_readers(sorted(documents), readers))

    @rule(held=st.sets(st.sampled_from(("role:staff", "collection:red"))))
    def grant(self, held: set[str]) -> None:
        shapes = {"role:staff": "member user:ana role:staff", "collection:red": "grant user:ana collection:red"}
        self.policy.replace("\n".join(shapes[grant] for grant in held))

    @rule()
    def restart(self) -> None:
        if not isinstance(self.store, MemoryStore):
            self.loop.run_until_complete(self.store.close())
            self.store = self.opens(Path(self.folder.name))

    @rule(k=st.integers(1, 12), year=st.none() | _years)
    def search(self, k: int, year: int | None) -> None:
        self.loop.run_until_complete(self.compare(k, year))

    async def compare(self, k: int, year: int | None) -> None:
        grants = await self.policy.grants(ANA)
        query = QUERY if year is None else replace(QUERY, where=(Condition("year", ">=", year),))
        readable = {id: c for id, c in self.chunks.items() if c.readers.admits(grants)}
        fitting = {id for id, c in readable.items() if query.admits(c.metadata)}
        found = {m.chunk.id: m.score for m in await self.store.search(query, grants, k)}
        assert found.keys() <= fitting
        best = await self.best(query, list(readable.values()), k)
        assert sorted(found.values()) == pytest.approx(sorted(best.values()), abs=1e-6)
        worst = min(found.values(), default=0.0)
        sure = {id for id, score in best.items() if score > worst + 1e-6}  # those at the end may be any of their equals
        assert {id: found.get(id) for id in sure} == pytest.approx({id: best[id] for id in sure}, abs=1e-6)
        assert {c.id for c in await self.store.get(list(self.chunks), grants)} == set(readable)

    async def best(self, query: Query, readable: list[Chunk], k: int) -> dict[str, float]:
        """What a store finds that holds nothing else."""
        alone = MemoryStore()
        await alone.upsert(readable)
        return {m.chunk.id: m.score for m in await alone.search(query, frozenset(GRANTS), k)}


class ByVector(Machine):
    """A store that ranks by vectors alone."""

    async def best(self, query: Query, readable: list[Chunk], k: int) -> dict[str, float]:
        assert query.vector is not None
        scores = {c.id: _cosine(query.vector, c.vector or ()) for c in readable if query.admits(c.metadata)}
        return dict(sorted(scores.items(), key=lambda item: -item[1])[:k])


def _cosine(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / ((math.hypot(*a) * math.hypot(*b)) or 1.0)


class Indexing(Machine):
    """Beside a store an index in a folder of its own, and somebody else who writes into the store behind it."""

    record: Callable[[Path], StoreOfRecord]

    @rule(document=st.sampled_from(DOCUMENTS), readers=_readers, text=_texts, vector=_vectors, year=_years)
    def write_behind(self, document: str, readers: ACL, text: str, vector: tuple[float, ...], year: int) -> None:
        chunks = [Chunk(f"{document}#{n}", document, text, readers, 0, n, vector, {"year": year}) for n in (1, 2)]
        self.chunks = {id: c for id, c in self.chunks.items() if c.document != document}
        self.chunks |= {chunk.id: chunk for chunk in chunks}
        self.behind(lambda store: store.replace([document], chunks))

    @rule(document=st.sampled_from(DOCUMENTS), readers=_readers)
    def relabel_behind(self, document: str, readers: ACL) -> None:
        self.chunks |= {id: c.read_by(readers) for id, c in self.chunks.items() if c.document == document}
        self.behind(lambda store: store.set_readers([document], readers))

    @rule()
    def compact(self) -> None:
        assert isinstance(self.store, Indexed)
        self.loop.run_until_complete(self.store.compact())

    def behind(self, change: Callable[[StoreOfRecord], Coroutine[Any, Any, None]]) -> None:
        store = self.record(Path(self.folder.name))
        self.loop.run_until_complete(change(store))
        self.loop.run_until_complete(store.close())


class Eager(Indexed):
    """Waits for the index before each search, so that it is the index that answers."""

    async def search(self, query: Query, readable: frozenset[str], k: int) -> list[Match]:
        await self.build()
        return await super().search(query, readable, k)


def indexing(record: Callable[[Path], StoreOfRecord]) -> type[Machine]:
    return type("IndexingThis", (Indexing,), {"record": staticmethod(record)})


def in_sqlite(folder: Path) -> SqlDocuments:
    return SqlDocuments(folder / "documents.db")


@cache
def in_memory(folder: Path) -> MemoryStore:
    """One store for each folder, whoever opens it."""
    return MemoryStore()


MACHINES: dict[str, tuple[type[Machine], Opens, int]] = {
    "memory": (Machine, lambda folder: MemoryStore(), 100),
    "sqlite": (Machine, in_sqlite, 30),
    "index beside memory": (indexing(in_memory), lambda folder: Eager(in_memory(folder), folder / "index"), 15),
    "index beside sqlite": (indexing(in_sqlite), lambda folder: Eager(in_sqlite(folder), folder / "index"), 15),
    "chroma": (ByVector, lambda folder: ChromaStore(folder / "documents"), 12),
}


@pytest.mark.parametrize("store", MACHINES)
def test_a_store_answers_as_a_plain_model_does(store: str) -> None:
    answers_as_a_plain_model_does(*MACHINES[store])


def test_a_store_in_postgresql_answers_as_a_plain_model_does(postgresql: str, postgresql_server: sa.Engine) -> None:
    def opens(folder: Path) -> DocumentStore:
        """Each folder's documents lie in a schema of their own."""
        with postgresql_server.connect() as connection:
            connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS vector")
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {folder.name}")
        url = sa.make_url(postgresql).update_query_dict({"options": f"-c search_path={folder.name},public"})
        return SqlDocuments(url.render_as_string(hide_password=False))

    answers_as_a_plain_model_does(Machine, opens, 15)


@pytest.mark.parametrize("store", ["memory", "sqlite", "index beside memory"])
async def test_a_vector_at_right_angles_counts_nothing(store: str, tmp_path: Path) -> None:
    _, opens, _ = MACHINES[store]
    there = opens(tmp_path)
    await there.upsert([Chunk("a", "a", "trout", ACL.of("public"), vector=(0.0, -0.5, 1.0))])
    assert [match.score for match in await there.search(QUERY, frozenset(GRANTS), 1)] == [1.0]
    await there.close()


def answers_as_a_plain_model_does(machine: type[Machine], opens: Opens, examples: int) -> None:
    of_this = type("OfThis", (machine,), {"opens": staticmethod(opens)})
    run_state_machine_as_test(of_this, settings=settings(max_examples=examples, stateful_step_count=15, deadline=None))
