"""Taking care of a store: what is over goes, what is wrong is found, an export can be read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ringwall.data import Chunk, Ingestor, Manifest, MemoryStore, Scalar
from ringwall.data.care import copy, exported, imported, retire, verify
from ringwall.principal import ACL, PUBLIC

OPEN = ACL.of(PUBLIC)


def dated(id: str, date: str, vector: tuple[float, ...] | None = None) -> Chunk:
    metadata: dict[str, Scalar] = {"date": date}
    return Chunk(id, id.partition("#")[0], "trout 'é'\n", OPEN, 0, 9, vector, metadata)


async def held(store: MemoryStore) -> dict[str, Chunk]:
    return {chunk.id: chunk async for batch in store.scan() for chunk in batch}


async def test_a_document_goes_whole_when_one_passage_is_over(tmp_path: Path) -> None:
    store, manifest = MemoryStore(), Manifest(tmp_path / "manifest.db")
    await Ingestor(store, manifest=manifest).ingest([("kept", "pike")], OPEN)
    await store.upsert([dated("old#0", "2020"), dated("old#1", "2025"), dated("new#0", "2025")])
    gone = await retire(store, lambda chunk: str(chunk.metadata.get("date", "9")) < "2024", manifest=manifest)
    assert (gone, sorted(await held(store))) == (("old",), ["kept#0", "new#0"])
    assert manifest.begun() == []
    manifest.close()


async def test_an_export_is_read_back_as_it_was() -> None:
    store, back = MemoryStore(), MemoryStore()
    await store.upsert([dated("a#0", "2020", (0.1, -1.0)), replace(dated("b#0", "2021"), readers=ACL.of("role:x"))])
    await back.upsert([imported(line) async for line in exported(store)])
    assert await held(back) == await held(store)


async def test_vectors_on_some_passages_only_and_odd_ranges_are_found() -> None:
    store = MemoryStore()
    await store.upsert([dated("a#0", "2020", (1.0, 0.0)), dated("b#0", "2020"), replace(dated("c#0", ""), end=-1)])
    checked = await verify(store)
    assert (checked.documents, checked.chunks) == (3, 3)
    assert set(checked.findings) == {"vectors of several dimensions: 2 of none, 1 of 2", "'c#0' has the range 0 to -1"}


async def test_a_copy_holds_the_same() -> None:
    store, target = MemoryStore(), MemoryStore()
    await store.upsert([dated(f"a#{n}", "2020") for n in range(2500)])
    assert await copy(store, target) == 2500
    assert await held(target) == await held(store)
