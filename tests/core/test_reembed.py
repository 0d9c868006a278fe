"""A library gets another embedder while it is being searched, written to, killed and read by others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from ringwall import ACL, App, Principal, Rules, ScriptedModel
from ringwall.data import Chunk, Ingestor, Query, Retriever
from ringwall.data.care import verify
from ringwall.data.generations import Settled
from ringwall.errors import ConfigurationError, InvalidInput, StoreError
from ringwall.library import Library
from ringwall.principal import PUBLIC
from tests.core.letters import Consonants, Vowels, offered

EVERYONE, STAFF = ACL.of(PUBLIC), ACL.of("role:staff")
READER = frozenset((PUBLIC,))
DOCUMENTS = [(f"d{n}", f"{word} number {n}") for n in range(30) for word in ("trout", "pike", "anchovies")[n % 3 :][:1]]
VOWELS, CONSONANTS = Vowels(), Consonants()


@pytest.fixture(autouse=True)
def letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(offered(tmp_path / "site")))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    async def fill() -> None:
        library = Library.fill(tmp_path / "library", embeddings="vowels")
        await Ingestor(library.store, library.embeddings, manifest=library.manifest).ingest(DOCUMENTS, EVERYONE)
        await library.close()

    asyncio.run(fill())
    return tmp_path / "library"


async def vectors(library: Library) -> dict[str, tuple[float, ...] | None]:
    return {chunk.text: chunk.vector async for batch in library.store.scan() for chunk in batch}


def of(embeddings: Vowels | Consonants, documents: list[tuple[str, str]]) -> dict[str, tuple[float, ...] | None]:
    return {text: tuple(embeddings.embed_query(text)) for _, text in documents}


def stores(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("documents*.db")}


async def reembedded(folder: Path, embeddings: str = "consonants") -> int:
    filling = Library.fill(folder)
    try:
        return await filling.reembed(embeddings)
    finally:
        await filling.close()


async def test_every_passage_gets_a_vector_of_the_new_one_and_nothing_else_changes(folder: Path) -> None:
    library = Library(folder)
    before = {replace(chunk, vector=None) async for batch in library.store.scan() for chunk in batch}
    assert await reembedded(folder) == 30
    assert {replace(chunk, vector=None) async for batch in library.store.scan() for chunk in batch} == before
    assert await vectors(library) == of(CONSONANTS, DOCUMENTS)
    await library.close()
    again = Library.fill(folder, embeddings="consonants")
    assert (await verify(again.store, again.manifest)).findings == ()
    report = await Ingestor(again.store, again.embeddings, manifest=again.manifest).ingest(DOCUMENTS, EVERYONE)
    assert (len(report.unchanged), len(report.ingested)) == (30, 0)
    assert await again.reembed("consonants") == 0
    assert await again.reembed("vowels") == 30
    await again.close()


async def test_who_has_it_open_uses_the_new_pair_at_the_next_search(folder: Path) -> None:
    library, other = Library(folder), Library(folder)
    assert library.embeddings is not None
    assert library.embeddings.embed_query("trout") == VOWELS.embed_query("trout")
    await reembedded(folder)
    assert library.embeddings.embed_query("trout") == CONSONANTS.embed_query("trout")
    for opened in (library, other):
        best = await Retriever(opened.store, opened.embeddings).retrieve("anchovies number 2", READER, 1)
        assert best[0].chunk.text == "anchovies number 2"
    await library.close()
    await other.close()


async def test_a_question_embedded_before_the_change_never_meets_the_new_store(folder: Path) -> None:
    library = Library(folder)
    assert library.embeddings is not None
    text = "pike number 1"
    old = tuple(library.embeddings.embed_query(text))
    assert old == tuple(VOWELS.embed_query(text))
    await reembedded(folder)
    found = await library.store.search(Query(text, old), READER, 3)
    anew = await library.store.search(Query(text, tuple(CONSONANTS.embed_query(text))), READER, 3)
    assert [(m.chunk.id, m.score) for m in found] == [(m.chunk.id, m.score) for m in anew]
    with pytest.raises(InvalidInput, match="embed it again"):
        await library.store.search(Query("", old), READER, 3)
    new = tuple(library.embeddings.embed_query(text))
    assert (await library.store.search(Query("", new), READER, 3))[0].score == pytest.approx(1.0)
    await library.close()


async def test_a_passage_embedded_before_the_change_is_stored_with_a_vector_of_the_new_one(folder: Path) -> None:
    library = Library(folder)
    assert library.embeddings is not None
    vector = tuple(library.embeddings.embed_documents(["perch"])[0])
    await reembedded(folder)
    await library.store.upsert([Chunk("new", "new", "perch", EVERYONE, vector=vector)])
    assert await vectors(library) == of(CONSONANTS, [*DOCUMENTS, ("new", "perch")])
    await library.close()


async def test_what_is_written_meanwhile_is_in_it_and_who_was_taken_away_stays_away(folder: Path) -> None:
    writer, filling = Library(folder), Library.fill(folder)
    stages = iter(range(100))

    def meanwhile(passages: int) -> None:
        """While the first look is going on, on another thread, as another process would."""
        if next(stages) == 0:
            other = asyncio.new_event_loop()

            async def write() -> None:
                await writer.store.set_readers(["d0"], STAFF)
                await writer.store.delete(["d1"])
                await writer.store.replace(["d2"], [Chunk("d2#0", "d2", "perch", EVERYONE, vector=(0.0,) * 6)])

            other.run_until_complete(write())
            other.close()

    def told(passages: int) -> None:
        thread = threading.Thread(target=meanwhile, args=(passages,))
        thread.start()
        thread.join()

    await filling.reembed("consonants", told=told)
    held = {c.id: c async for batch in filling.store.scan() for c in batch}
    assert "d1#0" not in held
    assert (held["d0#0"].readers, held["d2#0"].text) == (STAFF, "perch")
    assert held["d2#0"].vector == tuple(CONSONANTS.embed_query("perch"))
    assert "d0" not in {m.chunk.document for m in await filling.store.search(Query("trout number 0"), READER, 99)}
    await filling.close()
    await writer.close()


async def test_the_old_store_is_removed_when_the_last_process_has_left_it(folder: Path) -> None:
    library = Library(folder)
    await reembedded(folder)
    assert stores(folder) == {"documents.db", "documents.1.db"}  # somebody may be reading there
    await library.store.search(Query("trout"), READER, 1)
    assert not list(folder.glob("documents.db*"))  # noqa: ASYNC240
    await library.close()
    await reembedded(folder, "vowels")
    assert stores(folder) == {"documents.2.db"}


async def test_who_reads_ends_where_it_began(folder: Path) -> None:
    library = Library(folder)
    scan = library.store.scan()
    first = await anext(aiter(scan))
    await reembedded(folder)
    await library.store.search(Query("trout"), READER, 1)
    assert "documents.db" in stores(folder)
    assert [c.vector for batch in [first, *[b async for b in scan]] for c in batch] == list(
        of(VOWELS, DOCUMENTS).values()
    )
    await library.store.revision()
    assert stores(folder) == {"documents.1.db"}
    await library.close()


async def test_an_app_goes_on_answering(folder: Path) -> None:
    library = Library(folder)
    echo = ScriptedModel(lambda request: str(request.messages[-1].content))
    async with App(
        policy=Rules("allow user:* ask app:app"), model=echo, documents=library.store, embeddings=library.embeddings
    ) as app:
        asked = asyncio.create_task(reembedded(folder))
        count = 0
        while not asked.done() or count < 3:
            answer = await app.ask("pike number 1", as_=Principal.user("ana"))
            assert "pike number 1" in answer.text
            count += 1
        await asked
        await library.store.set_readers(["d1"], STAFF)
        answer = await app.ask("Is there pike number 1?", as_=Principal.user("ana"))
        assert "d1" not in {citation.document for citation in answer.citations}


async def test_without_vectors_before_there_are_some_afterwards(tmp_path: Path) -> None:
    plain = Library.fill(tmp_path / "plain", embeddings="none")
    assert plain.embeddings is None
    await Ingestor(plain.store, None, manifest=plain.manifest).ingest(DOCUMENTS, EVERYONE)
    await plain.reembed("vowels")
    await plain.store.upsert([Chunk("new", "new", "perch", EVERYONE)])  # by who knows of no embedder
    assert await vectors(plain) == of(VOWELS, [*DOCUMENTS, ("new", "perch")])
    await plain.close()


async def test_what_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, filling = Library(folder), Library.fill(folder)
    with pytest.raises(ConfigurationError, match="exclusively"):
        await reading.reembed("consonants")
    for name in ("none", "nothing"):
        with pytest.raises(ConfigurationError):
            await filling.reembed(name)
    with pytest.raises(StoreError, match="in use"):
        Library.fill(folder)
    monkeypatch.setattr(Consonants, "principal", Principal("embedder:hosted"), raising=False)
    with pytest.raises(ConfigurationError, match="in this process"):
        await filling.reembed("consonants")
    await filling.close()
    await reading.close()
    (folder / "embeddings").write_text("vowels ../../documents.1.db")
    with pytest.raises(StoreError, match="damaged"):
        Library(folder)


async def test_an_embedder_that_sends_texts_elsewhere_is_not_taken_on_unasked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = Library(folder)
    await reembedded(folder)
    monkeypatch.setattr(Consonants, "principal", Principal("embedder:hosted"), raising=False)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="open the library anew"):
            await library.store.search(Query("trout", tuple(VOWELS.embed_query("trout"))), READER, 1)
    await library.close()
    anew = Library(folder)
    assert getattr(anew.embeddings, "principal", None) == Principal("embedder:hosted")
    await anew.close()


async def test_what_was_begun_for_another_embedder_is_begun_anew_and_swept(folder: Path) -> None:
    Settled("vowels", "documents.1.db", "a", "b").plan(folder)
    (folder / "documents.1.db").write_bytes(b"")
    await reembedded(folder)
    assert stores(folder) == {"documents.2.db"}


def test_killed_at_any_moment_and_done_again_it_is_as_if_undisturbed_while_another_process_searches(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.core.killed_reembedding", "3", str(tmp_path / "lives")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    killed, searches = map(int, done.stdout.split())
    assert killed > 0
    assert searches > 100
