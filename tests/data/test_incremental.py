"""Ingesting again: only what changed is done, whatever happened in between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ringwall.data import (
    Chunk,
    Ingested,
    Ingestor,
    IngestReport,
    Manifest,
    MemoryStore,
    Pending,
    Refused,
    front_matter_readers,
)
from ringwall.data.readers import ByPath
from ringwall.errors import InvalidInput, StoreError
from ringwall.principal import ACL, PUBLIC

OPEN, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")


class Counting:
    """An embedder that counts the texts it is given."""

    principal = None

    def __init__(self, dimension: int = 2) -> None:
        self.texts: list[str] = []
        self.dimension = dimension

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.texts += [
            text for text in texts if not text.startswith("# A heading")
        ]  # by which embedders are told apart
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float("nan") if "NaN" in text else float(len(text)), *[1.0] * (self.dimension - 1)]


class House:
    """A store, its manifest, and an embedder that tells what it was asked."""

    def __init__(self, manifest: Manifest) -> None:
        self.store, self.manifest, self.embedder = MemoryStore(), manifest, Counting()

    async def ingest(
        self, documents: Sequence[Document | tuple[str, str] | Pending | Refused], readers: object = OPEN, **more: str
    ) -> IngestReport:
        self.embedder.texts.clear()
        return await Ingestor(self.store, self.embedder, manifest=self.manifest).ingest(
            iter(documents),
            readers,  # type: ignore[arg-type]
            **more,
        )

    async def holds(self) -> dict[str, tuple[str, ACL]]:
        scanned = [c async for batch in self.store.scan() for c in batch]
        return {c.document: (c.text, c.readers) for c in scanned}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    manifest = Manifest(tmp_path / "manifest.db")
    yield House(manifest)
    manifest.close()


async def test_what_did_not_change_is_neither_embedded_nor_stored_again(house: House) -> None:
    await house.ingest([("a", "trout"), ("b", "pike")])
    revision = await house.store.revision()
    report = await house.ingest([("a", "trout"), ("b", "pike")])
    assert [done.document for done in report.unchanged] == ["a", "b"]
    assert (house.embedder.texts, await house.store.revision()) == ([], revision)


async def test_only_what_changed_is_done(house: House) -> None:
    await house.ingest([("a", "trout"), ("b", "pike")])
    report = await house.ingest([("a", "trout"), ("b", "carp"), ("c", "eel")])
    assert report.ingested == (Ingested("b", 1), Ingested("c", 1))
    assert set(house.embedder.texts) == {"carp", "eel"}
    assert {name: text for name, (text, _) in (await house.holds()).items()} == {"a": "trout", "b": "carp", "c": "eel"}


async def test_other_readers_are_given_without_embedding_again(house: House) -> None:
    await house.ingest([("a", "trout"), ("b", "pike")])
    report = await house.ingest([("a", "trout"), ("b", "pike")], ByPath([("a", STAFF), ("**", OPEN)]))
    assert [(done.document, done.readers) for done in report.relabelled] == [("a", STAFF)]
    assert house.embedder.texts == []
    assert await house.holds() == {"a": ("trout", STAFF), "b": ("pike", OPEN)}


async def test_what_its_source_does_not_have_any_more_is_removed_if_the_source_is_told_whole(house: House) -> None:
    await house.ingest([("hr/a", "trout"), ("hr/b", "pike"), ("it/c", "eel")])
    kept = await house.ingest([("hr/a", "trout")])
    assert kept.removed == ()
    report = await house.ingest([("hr/a", "trout")], all_of="hr/")
    assert [gone.document for gone in report.removed] == ["hr/b"]
    assert (await house.holds()).keys() == {"hr/a", "it/c"}


async def test_a_tenant_that_is_told_whole_loses_its_own_documents_only(house: House) -> None:
    await house.ingest([("public", "trout")], tenant="acme")
    await house.ingest([("public", "pike")], tenant="beta")
    await house.ingest([("public", "eel")])
    await house.ingest([], tenant="acme", all_of="")
    assert (await house.holds()).keys() == {"beta::public", "public"}
    await house.ingest([], all_of="")
    assert (await house.holds()).keys() == {"beta::public"}


async def test_a_refused_document_is_not_missing(house: House) -> None:
    await house.ingest([("a", "trout")])
    report = await house.ingest([Refused("a", InvalidInput("no longer UTF-8"))], all_of="")
    assert (report.removed, list(await house.holds())) == ((), ["a"])


async def test_what_lies_in_a_folder_that_cannot_be_looked_into_is_not_missing(house: House) -> None:
    await house.ingest([("hr/a", "trout"), ("hr/x/b", "pike"), ("hr/xc", "eel")])
    report = await house.ingest([Refused("hr/x/", InvalidInput("not permitted"))], all_of="hr/")
    assert sorted(gone.document for gone in report.removed) == ["hr/a", "hr/xc"]


async def test_all_of_a_source_needs_a_manifest_that_lasts() -> None:
    with pytest.raises(InvalidInput, match="manifest"):
        await Ingestor(MemoryStore()).ingest([], OPEN, all_of="")


async def test_what_is_known_is_not_even_read(house: House) -> None:
    read: list[str] = []

    def pending(name: str, content: str) -> Pending:
        def text() -> Document:
            read.append(name)
            return Document(id=name, page_content=f"{content} trout")

        return Pending(name, content, text)

    rules = ByPath([("**", OPEN)])
    await house.ingest([pending("a", "1"), pending("b", "1")], rules)
    read.clear()
    report = await house.ingest([pending("a", "1"), pending("b", "2")], rules)
    assert (read, len(report.unchanged), len(report.ingested)) == (["b"], 1, 1)


async def test_wider_readers_never_pass_over_what_the_document_says_itself(house: House) -> None:
    """The text of a known document is looked at again before its readers change."""
    text = "---\nreaders: [role:staff]\n---\ntrout"
    document = Pending("a", "1", lambda: Document(id="a", page_content=text))
    await house.ingest([document], STAFF)
    report = await house.ingest([document], OPEN)
    assert [refused.document for refused in report.refused] == ["a"]
    assert (await house.holds())["a"][1] == STAFF
    assert (await house.ingest([document], front_matter_readers)).unchanged


async def test_another_embedder_does_all_again(house: House) -> None:
    await house.ingest([("a", "trout")])
    house.store, house.embedder = MemoryStore(), Counting(dimension=3)
    assert (await house.ingest([("a", "trout")])).ingested == (Ingested("a", 1),)


async def test_another_splitter_does_all_again(house: House) -> None:
    await house.ingest([("a", "trout")])
    again = Ingestor(house.store, house.embedder, lambda text: [], manifest=house.manifest)
    assert (await again.ingest([("a", "trout")], OPEN)).ingested == (Ingested("a", 0),)


async def test_a_store_that_was_emptied_is_filled_again(house: House) -> None:
    await house.ingest([("a", "trout"), ("b", "pike")])
    await house.store.delete(["b"])
    report = await house.ingest([("a", "trout"), ("b", "pike")])
    assert ([d.document for d in report.ingested], [d.document for d in report.unchanged]) == (["b"], ["a"])


async def test_equal_passages_are_embedded_once_and_each_keeps_its_own_readers(house: House) -> None:
    await house.ingest([("a", "trout"), ("b", "trout")], ByPath([("a", STAFF), ("**", OPEN)]))
    assert house.embedder.texts == ["trout"]
    assert await house.holds() == {"a": ("trout", STAFF), "b": ("trout", OPEN)}


async def test_a_vector_that_is_no_number_refuses_its_document_alone(house: House) -> None:
    report = await house.ingest([("a", "trout"), ("b", "NaN"), ("c", "eel")])
    assert [refused.document for refused in report.refused] == ["b"]
    assert (await house.holds()).keys() == {"a", "c"}


async def test_two_ingestions_into_one_library_are_one_too_many(tmp_path: Path, house: House) -> None:
    with pytest.raises(StoreError, match="in use"):
        Manifest(tmp_path / "manifest.db")


def test_a_manifest_that_is_none_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "manifest.db").write_bytes(b"no database " * 100)
    with pytest.raises(StoreError, match="damaged"):
        Manifest(tmp_path / "manifest.db")


class Breaks(MemoryStore):
    """A store that fails at the nth change, before or after it took effect."""

    def __init__(self) -> None:
        super().__init__()
        self.left = -1

    async def upsert(self, chunks: Sequence[Chunk]) -> None:
        await self._then(lambda: super(Breaks, self).upsert(chunks))

    async def delete(self, documents: Sequence[str]) -> None:
        await self._then(lambda: super(Breaks, self).delete(documents))

    async def _then(self, change: Callable[[], object]) -> None:
        self.left -= 1
        if self.left == 0:
            raise StoreError("the disk is full")
        await change()  # type: ignore[misc]


_versions = st.dictionaries(st.sampled_from("abcd"), st.sampled_from(["trout", "pike", "eel", ""]), max_size=4)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=st.lists(st.tuples(_versions, st.sampled_from([OPEN, STAFF]), st.integers(0, 4)), max_size=4))
async def test_whatever_fails_in_between_the_next_ingestion_makes_it_right(
    tmp_path_factory: pytest.TempPathFactory, versions: list[tuple[dict[str, str], ACL, int]]
) -> None:
    manifest = Manifest(tmp_path_factory.mktemp("m") / "manifest.db")
    house = House(manifest)
    house.store = breaks = Breaks()
    for version, readers, fails_at in [*versions, *((v, r, 0) for v, r, _ in versions[-1:])]:
        breaks.left = fails_at
        try:
            await house.ingest(list(version.items()), readers, all_of="")
        except StoreError:
            continue
        assert await house.holds() == {name: (text, readers) for name, text in version.items() if text}
    manifest.close()
