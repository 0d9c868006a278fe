"""Ingestion: every document comes in with its readers, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.documents import Document

from ringwall.data import (
    Ingestor,
    IngestReport,
    MemoryStore,
    Query,
    Readers,
    Retriever,
    front_matter_readers,
    read_folder,
)
from ringwall.errors import DocumentWithoutReaders, InvalidInput
from ringwall.principal import ACL, PUBLIC, Grants, Principal

ANA = Principal.user("ana").vouched_grants
STAFF = Principal.user("ben", "staff").vouched_grants
OPEN = ACL.of(PUBLIC)


async def ids(store: MemoryStore, readable: Grants, words: str = "trout") -> set[str]:
    return {match.chunk.document for match in await store.search(Query(words), readable, 10)}


def errors(report: IngestReport) -> dict[str, type[Exception]]:
    return {refused.document: type(refused.error) for refused in report.refused}


async def test_a_document_is_found_by_its_readers_and_by_nobody_else() -> None:
    store = MemoryStore()
    report = await Ingestor(store).ingest([("menu", "trout")], ACL.of("role:staff"))
    assert (report.passages, report.refused) == (1, ())
    assert await ids(store, STAFF) == {"menu"}
    assert await ids(store, ANA) == set()


def nobody_said(document: Document) -> ACL | None:
    return None


@pytest.mark.parametrize("readers", [None, nobody_said, front_matter_readers])
async def test_a_document_nobody_named_readers_for_is_refused(readers: Readers) -> None:
    store = MemoryStore()
    report = await Ingestor(store).ingest([("menu", "trout")], readers)
    assert errors(report) == {"menu": DocumentWithoutReaders}
    assert "'menu'" in str(report.refused[0].error)
    assert await ids(store, STAFF) == set()


async def test_readers_may_differ_from_document_to_document() -> None:
    def readers(document: Document) -> ACL:
        return ACL.of("role:staff" if document.metadata["internal"] else PUBLIC)

    documents = [
        Document(id="menu", page_content="trout", metadata={"internal": False}),
        Document(id="costs", page_content="trout", metadata={"internal": True, "nested": {"dropped": 1}}),
    ]
    store = MemoryStore()
    await Ingestor(store).ingest(documents, readers)
    assert await ids(store, ANA) == {"menu"}
    matches = await store.search(Query("trout"), STAFF, 5)
    assert {m.chunk.document: dict(m.chunk.metadata) for m in matches} == {
        "menu": {"internal": False},
        "costs": {"internal": True},
    }


async def test_a_new_version_replaces_the_old_one_whole() -> None:
    store = MemoryStore()
    ingestor = Ingestor(store)
    await ingestor.ingest([("menu", "trout\n\n" * 1000)], OPEN)
    await ingestor.ingest([("menu", "pike")], ACL.of("role:staff"))
    assert await ids(store, STAFF, "trout") == set()
    assert await ids(store, ANA, "pike") == set()
    assert await ids(store, STAFF, "pike") == {"menu"}


async def test_an_empty_document_is_reported_and_takes_the_place_of_what_was_there() -> None:
    store = MemoryStore()
    ingestor = Ingestor(store)
    await ingestor.ingest([("menu", "trout")], OPEN)
    report = await ingestor.ingest([("menu", " \n ")], OPEN)
    assert (report.empty, report.passages, report.refused) == (("menu",), 0, ())
    assert await ids(store, ANA) == set()


async def test_what_cannot_be_taken_is_refused_and_the_rest_goes_on() -> None:
    documents: list[Document | tuple[str, str]] = [
        ("menu", "trout"),
        ("menu", "trout again"),
        ("odd text", "trout \ud800"),
        ("odd \ud800", "trout"),
        ("", "trout"),
        Document(page_content="trout"),
        Document(page_content="trout", metadata={"source": "by its source"}),
    ]
    store = MemoryStore()
    report = await Ingestor(store).ingest(documents, OPEN)
    assert [r.document for r in report.refused] == ["menu", "odd text", "odd \ud800", "", ""]
    assert set(errors(report).values()) == {InvalidInput}
    assert await ids(store, ANA) == {"menu", "by its source"}


async def test_ten_megabytes_are_ingested_and_found() -> None:
    store = MemoryStore()
    text = "Nothing to see here, only some words. " * 270_000 + "Trout."
    report = await Ingestor(store).ingest([("long", text)], OPEN)
    assert report.passages > 10_000
    (match,) = await store.search(Query("trout"), ANA, 1)
    assert text[match.chunk.start : match.chunk.end] == match.chunk.text


class TestTenants:
    async def test_the_staff_of_one_tenant_finds_nothing_of_another(self) -> None:
        store = MemoryStore()
        for tenant in ("acme", "beta"):
            await Ingestor(store).ingest([("menu", "trout")], ACL.of("role:staff"), tenant=tenant)
        for tenant in ("acme", "beta"):
            ben = Principal.user("ben", "staff", tenant=tenant)
            assert await ids(store, ben.vouched_grants) == {f"{tenant}::menu"}

    @pytest.mark.parametrize("name", ["acme::menu", "beta::menu"])
    async def test_a_tenant_cannot_replace_anothers_document(self, name: str) -> None:
        report = await Ingestor(MemoryStore()).ingest([(name, "trout")], OPEN, tenant="beta")
        assert errors(report) == {name: InvalidInput}

    async def test_a_tenant_cannot_slip_a_document_into_anothers_searches(self) -> None:
        store = MemoryStore()
        readers = ACL.of("acme::role:staff", "role:staff")
        report = await Ingestor(store).ingest([("menu", "trout")], readers, tenant="beta")
        assert errors(report) == {"menu": InvalidInput}


class TestFrontMatter:
    async def test_readers_at_the_top_of_a_file_are_its_readers_and_no_part_of_its_text(self) -> None:
        store = MemoryStore()
        text = "---\ntitle: Costs: 2026\nreaders: [role:staff, user:ana@example.org]\n---\n# Trout\n"
        report = await Ingestor(store).ingest([("costs.md", text)], front_matter_readers)
        assert report.refused == ()
        (match,) = await store.search(Query("trout"), STAFF, 5)
        assert match.chunk.readers == ACL.of("role:staff", "user:ana@example.org")
        assert match.chunk.text == text[match.chunk.start : match.chunk.end] == "# Trout"
        assert await ids(store, ANA) == set()

    @pytest.mark.parametrize(
        "lines",
        [
            "readers: role:staff",
            "readers: 'role:staff'",
            "readers: ['role:staff']",
            "readers: [role:staff",
            "readers: []",
            "readers: [role:staff,]",
            "readers: [staff]",
            "readers: [role:staff, Public]",
            "readers: [role: staff]",
            "readers: [role:staff] # not yet",
            "readers: &a [role:staff]",
            "readers:\n  - role:staff",
            "readers: [role:staff]\nreaders: [public]",
            "readers: [role:staff]\nReaders: [public]",
            "readers:",
            "readers: [role:*]",
            "tags:\n  - fish\nreaders: [role:staff]",
        ],
    )
    @pytest.mark.parametrize("readers", [front_matter_readers, OPEN])
    async def test_anything_odd_is_refused(self, lines: str, readers: Readers) -> None:
        store = MemoryStore()
        report = await Ingestor(store).ingest([("a.md", f"---\n{lines}\n---\ntrout")], readers)
        assert errors(report) == {"a.md": InvalidInput}
        assert await ids(store, STAFF) == set()

    async def test_front_matter_without_an_end_is_refused(self) -> None:
        report = await Ingestor(MemoryStore()).ingest(
            [("a.md", "---\nreaders: [role:staff]\ntrout")], front_matter_readers
        )
        assert errors(report) == {"a.md": InvalidInput}

    async def test_a_file_that_names_its_readers_is_not_published_to_others_by_mistake(self) -> None:
        text = "---\nreaders: [role:staff]\n---\ntrout"
        report = await Ingestor(MemoryStore()).ingest([("costs.md", text)], OPEN)
        assert errors(report) == {"costs.md": InvalidInput}
        report = await Ingestor(MemoryStore()).ingest([("costs.md", text)], ACL.of("role:staff"))
        assert report.refused == ()

    @pytest.mark.parametrize("text", ["---\n\nA rule, then trout", "---\ntags:\n  - fish\n---\ntrout", "---"])
    async def test_a_text_that_names_no_readers_needs_no_front_matter_we_can_read(self, text: str) -> None:
        report = await Ingestor(MemoryStore()).ingest([("a.md", text)], OPEN)
        assert report.refused == ()


class TestFolder:
    async def test_text_files_are_read_with_their_path_as_id(self, tmp_path: Path) -> None:
        (tmp_path / "menus").mkdir()
        (tmp_path / "menus" / "fish.md").write_bytes(b"\xef\xbb\xbf# Trout\r\n\r\nFresh.")
        (tmp_path / "rules.TXT").write_text("trout")
        (tmp_path / "photo.png").write_bytes(b"trout")
        store = MemoryStore()
        report = await Ingestor(store).ingest(read_folder(tmp_path), OPEN)
        assert [done.document for done in report.ingested] == ["menus/fish.md", "rules.TXT"]
        assert await ids(store, ANA) == {"menus/fish.md", "rules.TXT"}

    async def test_a_file_that_is_not_utf_8_is_refused_and_the_rest_goes_on(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_bytes("Müsli trout".encode("latin-1"))
        (tmp_path / "b.txt").write_text("trout")
        store = MemoryStore()
        report = await Ingestor(store).ingest(read_folder(tmp_path), OPEN)
        assert errors(report) == {"a.txt": InvalidInput}
        assert "byte 0xfc at position 1" in str(report.refused[0].error)
        assert await ids(store, ANA) == {"b.txt"}

    async def test_a_link_out_of_the_folder_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "secret.md").write_text("trout")
        (tmp_path / "docs").mkdir()
        (tmp_path / "docs" / "link.md").symlink_to(tmp_path / "secret.md")
        (tmp_path / "docs" / "nowhere.md").symlink_to(tmp_path / "docs" / "gone.md")
        report = await Ingestor(MemoryStore()).ingest(read_folder(tmp_path / "docs"), OPEN)
        assert errors(report) == {"link.md": InvalidInput, "nowhere.md": InvalidInput}

    def test_a_folder_that_is_not_there_is_the_callers_mistake(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidInput, match="no folder"):
            list(read_folder(tmp_path / "none"))


class Letters:
    """An embedder that counts two letters: enough to tell trout from wine."""

    principal = None

    def __init__(self, spoil: Callable[[list[float]], list[float]] = lambda vector: vector) -> None:
        self._spoil = spoil

    def embed_query(self, text: str) -> list[float]:
        return self._spoil([float(text.count("t")), float(text.count("w"))])

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


class TestEmbeddings:
    async def test_passages_are_found_by_their_meaning(self) -> None:
        store = MemoryStore()
        await Ingestor(store, Letters()).ingest([("fish", "trout"), ("drinks", "wine")], OPEN)
        matches = await Retriever(store, Letters()).retrieve("www", ANA, 1)
        assert [match.chunk.document for match in matches] == ["drinks"]

    async def test_without_embeddings_they_are_found_by_their_words(self) -> None:
        store = MemoryStore()
        await Ingestor(store).ingest([("fish", "trout"), ("drinks", "wine")], OPEN)
        matches = await Retriever(store).retrieve("Is there wine?", ANA)
        assert [match.chunk.document for match in matches] == ["drinks"]

    async def test_a_vector_that_is_not_finite_refuses_the_document_and_keeps_its_old_version(self) -> None:
        store = MemoryStore()
        await Ingestor(store).ingest([("fish", "trout")], OPEN)
        spoilt = Letters(lambda vector: [float("nan"), *vector])
        report = await Ingestor(store, spoilt).ingest([("fish", "pike")], OPEN)
        assert errors(report) == {"fish": InvalidInput}
        assert await ids(store, ANA) == {"fish"}
