"""Taking care of a store: what is over goes, what is wrong is found, an export can be read back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ringwall.data import Chunk, Ingestor, Manifest, MemoryStore, Scalar
from ringwall.data.care import catch_up, copy, exported, imported, retire, verify
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


class Lengths:
    """An embedder that counts what it was given."""

    principal = None

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += texts
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0, float(len(text))]


async def test_what_is_there_is_not_done_again_and_what_is_gone_goes() -> None:
    source, target, embeddings = MemoryStore(), MemoryStore(), Lengths()
    await source.upsert([replace(dated(f"{d}#{n}", "2020"), text=f"trout {d} {n}") for d in "abcd" for n in range(3)])
    assert await catch_up(source, target, embeddings) == 12
    assert await catch_up(source, target, embeddings) == 0
    embeddings.texts.clear()
    await source.replace(["a"], [replace(dated("a#0", "2020"), text="trout a 0")])  # shorter than it was
    await source.delete(["b"])
    await source.set_readers(["c"], ACL.of("role:x"))
    await source.upsert([replace(dated("d#1", "2021"), text="pike")])
    while await catch_up(source, target, embeddings):
        pass
    assert sorted(embeddings.texts) == ["pike", "trout a 0", "trout c 0", "trout c 1", "trout c 2"]
    expected = {id: replace(c, vector=(1.0, float(len(c.text)))) for id, c in (await held(source)).items()}
    assert await held(target) == expected
