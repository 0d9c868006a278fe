"""A library from the command line: filled, filled again, checked, and asked through an app."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ringwall import ACL, App, Principal, Rules, ScriptedModel, cli
from ringwall.data import Ingestor, Manifest, Query
from ringwall.data.care import copy, imported, verify
from ringwall.errors import ConfigurationError
from ringwall.library import Library
from ringwall_sql import SqlDocuments
from tests.core.letters import offered

Type = Callable[..., tuple[int, str, str]]
ECHO = ScriptedModel(lambda request: str(request.messages[-1].content))


@pytest.fixture
def ringwall(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Type `ringwall WORDS`; get the exit status, and what it said to whom."""

    def typed(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ringwall", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return int(left.value.code or 0), said.out, said.err

    return typed


@pytest.fixture
def house(tmp_path: Path) -> Path:
    folder = tmp_path / "house"
    (folder / "hr").mkdir(parents=True)
    (folder / "menu.md").write_text("# Fish\n\nTrout with sage.")
    (folder / "hr" / "wages.csv").write_text("who,wage\nAna,100\n")
    (folder / "rules").write_text("house/hr/** role:hr\nhouse/** public\n")
    return folder


def test_only_what_changed_is_done_again(ringwall: Type, house: Path, tmp_path: Path) -> None:
    typed = ("ingest", house, "--library", tmp_path / "library", "--rules", house / "rules")
    assert ringwall(*typed)[:2] == (0, "2 ingested, 0 unchanged, 0 relabelled, 0 removed, 0 refused; 2 passages\n")
    (house / "menu.md").write_text("Pike.")
    assert "1 ingested, 1 unchanged" in ringwall(*typed)[1]
    (house / "rules").write_text("house/** public\n")
    assert "0 ingested, 1 unchanged, 1 relabelled" in ringwall(*typed)[1]
    (house / "menu.md").unlink()
    assert "1 unchanged, 0 relabelled, 0 removed" in ringwall(*typed, "--keep-missing")[1]
    assert "1 unchanged, 0 relabelled, 1 removed" in ringwall(*typed)[1]
    assert ringwall("data", "verify", tmp_path / "library")[:2] == (0, "1 documents, 1 passages, 0 findings\n")


def test_a_file_that_nobody_may_read_is_refused_and_named(ringwall: Type, house: Path, tmp_path: Path) -> None:
    (house / "rules").write_text("house/hr/** role:hr\n")
    status, out, _ = ringwall("ingest", house, "--library", tmp_path / "library", "--rules", house / "rules")
    assert status == 1
    assert "refused 'house/menu.md': document 'house/menu.md' has no readers" in out
    assert "1 ingested, 0 unchanged, 0 relabelled, 0 removed, 1 refused" in out


def test_without_any_rule_nothing_is_ingested(ringwall: Type, house: Path, tmp_path: Path) -> None:
    status, out, _ = ringwall("ingest", house, "--library", tmp_path / "library")
    assert (status, "0 ingested" in out, "2 refused" in out) == (1, True, True)


def test_rules_are_asked_the_nearest_to_the_file_first(ringwall: Type, house: Path, tmp_path: Path) -> None:
    (house / "own.md").write_text("---\nreaders: [user:ana]\n---\ntrout")
    (house / "hr.readers").write_text("role:hr")
    words = ("--library", tmp_path / "library", "--front-matter", "--beside", "--readers", "public")
    assert ringwall("ingest", house, *words)[0] == 0
    lines = ringwall("data", "export", tmp_path / "library")[1].splitlines()
    assert {(c := imported(line)).document: set(c.readers) for line in lines} == {
        "house/menu.md": {"public"},
        "house/own.md": {"user:ana"},
        "house/hr/wages.csv": {"role:hr"},
    }


def test_a_library_is_asked_through_an_app(ringwall: Type, house: Path, tmp_path: Path) -> None:
    ringwall("ingest", house, "--library", tmp_path / "library", "--rules", house / "rules")
    library = Library(tmp_path / "library")
    rules = Rules("allow user:* ask app:app")
    with App(policy=rules, model=ECHO, documents=library.store, embeddings=library.embeddings) as app:
        for who, reads in ((Principal.user("ana"), False), (Principal.user("ben", "hr"), True)):
            answer = app.ask_sync("What is the wage of Ana?", as_=who)
            assert ("100" in answer.text) is reads


async def test_whoever_searches_has_an_index_in_the_librarys_folder(tmp_path: Path) -> None:
    filling = Library.fill(tmp_path / "library")
    assert filling.embeddings is not None
    ingestor = Ingestor(filling.store, filling.embeddings)
    await ingestor.ingest([("old.md", "Trout.")], ACL.of("public"))
    library = Library(tmp_path / "library")
    index = tmp_path / "library" / "documents.db.index"
    for _ in range(10_000):  # it is made while the store answers
        await library.store.search(Query("trout"), frozenset(("public",)), 1)
        if index.is_dir():
            break
    assert index.is_dir()
    await ingestor.ingest([("new.md", "Pike.")], ACL.of("public"))
    question = Query("pike", tuple(filling.embeddings.embed_query("pike")))
    found = await library.store.search(question, frozenset(("public",)), 1)
    assert [match.chunk.document for match in found] == ["new.md"]
    assert await library.store.search(question, frozenset(("role:hr",)), 1) == []
    await filling.close()
    await library.close()


def test_without_the_extra_the_store_searches_and_doctor_says_so(
    ringwall: Type, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "through the index" in ringwall("doctor")[1]
    ringwall("ingest", house, "--library", tmp_path / "library", "--rules", house / "rules")
    monkeypatch.setitem(sys.modules, "faiss", None)
    for module in [name for name in sys.modules if name.startswith("ringwall_index")]:
        monkeypatch.delitem(sys.modules, module)
    assert "ringwall[index]" in ringwall("doctor")[1]
    library = Library(tmp_path / "library")
    with App(policy=Rules("allow user:* ask app:app"), model=ECHO, documents=library.store) as app:
        app.ask_sync("What is there?", as_=Principal.user("ana"))
    assert not list((tmp_path / "library").glob("*.index"))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("ingest", "house", "--embeddings", "none"), "ConfigurationError: the library in"),
        (("ingest", "house", "--embeddings", "nothing"), "ConfigurationError: the library in"),
        (("ingest", "house", "--rules", "nowhere"), "InvalidInput: the readers in"),
        (("data", "verify", "house"), "ConfigurationError: no library in"),
        (("data", "export", "house"), "ConfigurationError: no library in"),
    ],
)
def test_a_mistake_is_one_line(
    ringwall: Type, house: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], error: str
) -> None:
    monkeypatch.chdir(house.parent)
    ringwall("ingest", "house", "--readers", "public")
    status, _, err = ringwall(*words)
    assert (status, err.startswith(error)) == (1, True)


def test_two_at_once_are_one_too_many(ringwall: Type, house: Path, tmp_path: Path) -> None:
    with closing(Manifest(tmp_path / "library" / "manifest.db")):
        status, _, err = ringwall("ingest", house, "--library", tmp_path / "library", "--readers", "public")
    assert (status, err.startswith("StoreError: the manifest")) == (1, True)


def cut_short(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def overwritten(file: Path) -> None:
    """Another page than the first is lost: the one with the words that stand in the passages."""
    content = file.read_bytes()
    page = content.index(b"pasta") // 4096 * 4096
    file.write_bytes(content[:page] + b"\xff" * 4096 + content[page + 4096 :])


def no_database(file: Path) -> None:
    file.write_bytes(b"minutes of the meeting " * 500)


@pytest.mark.parametrize("name", ["documents.db", "manifest.db"])
@pytest.mark.parametrize("damage", [cut_short, overwritten, no_database])
def test_a_damaged_library_says_so_and_a_copy_of_its_backup_is_the_way_back(
    ringwall: Type, house: Path, tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    (house / "pasta.md").write_text("Tonight: pasta.")
    library, spare = tmp_path / "library", tmp_path / "spare"
    ingest = ("ingest", house, "--library", library, "--readers", "public")
    ringwall(*ingest)
    ringwall("data", "backup", library, spare)
    damage(library / name)
    status, out, err = ringwall("data", "verify", library)
    assert status == 1
    assert "damaged" in out + err or "not an SQLite database" in err
    library.rename(tmp_path / "aside")
    shutil.copytree(spare, library)
    assert ringwall("data", "verify", library)[0] == 0
    assert "0 ingested, 3 unchanged" in ringwall(*ingest)[1]


def test_what_is_missing_in_the_store_is_found(ringwall: Type, house: Path, tmp_path: Path) -> None:
    library = tmp_path / "library"
    ringwall("ingest", house, "--library", library, "--readers", "public")
    with closing(sqlite3.connect(library / "manifest.db")) as database, database:
        database.execute("update documents set passages = 7 where name like '%menu%'")
        database.execute("delete from documents where name like '%wages%'")
    status, out, _ = ringwall("data", "verify", library)
    assert status == 1
    assert "'house/menu.md' has 1 passages, not 7" in out
    assert "'house/hr/wages.csv' is in the store and was not ingested" in out


def test_a_backup_is_a_library_that_knows_what_it_holds(ringwall: Type, house: Path, tmp_path: Path) -> None:
    library, spare = tmp_path / "library", tmp_path / "spare"
    ringwall("ingest", house, "--library", library, "--rules", house / "rules")
    assert ringwall("data", "backup", library, spare)[:2] == (0, "2 passages\n")
    assert ringwall("data", "verify", spare)[:2] == (0, "2 documents, 2 passages, 0 findings\n")
    assert "0 ingested, 2 unchanged" in ringwall("ingest", house, "--library", spare, "--rules", house / "rules")[1]
    assert ringwall("data", "export", spare)[1] == ringwall("data", "export", library)[1]
    status, _, err = ringwall("data", "backup", library, spare)
    assert (status, err.startswith("ConfigurationError: no backup to")) == (1, True)


def test_a_library_gets_another_embedder(
    ringwall: Type, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(offered(tmp_path / "site")))
    library = tmp_path / "library"
    typed = ("ingest", house, "--library", library, "--rules", house / "rules")
    ringwall(*typed)
    assert ringwall("data", "reembed", library, "--embeddings", "vowels")[:2] == (0, "2 passages embedded\n")
    assert ringwall("data", "reembed", library, "--embeddings", "vowels")[:2] == (0, "0 passages embedded\n")
    assert ringwall("data", "verify", library)[:2] == (0, "2 documents, 2 passages, 0 findings\n")
    assert "0 ingested, 2 unchanged" in ringwall(*typed)[1]
    assert ringwall("data", "backup", library, tmp_path / "spare")[0] == 0
    assert ringwall("data", "export", tmp_path / "spare")[1] == ringwall("data", "export", library)[1]
    assert "0 ingested, 2 unchanged" in ringwall(*typed[:3], tmp_path / "spare", *typed[4:])[1]
    status, _, err = ringwall(*typed, "--embeddings", "wordllama")
    assert (status, "change it with `ringwall data reembed`" in " ".join(err.split())) == (1, True)


async def test_a_library_is_copied_and_given_other_vectors(ringwall: Type, house: Path, tmp_path: Path) -> None:
    class Two:
        principal = None

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [[1.0, float(len(text))] for text in texts]

        def embed_query(self, text: str) -> list[float]:
            return [1.0, float(len(text))]

    library = Library.fill(tmp_path / "library")
    ingestor = Ingestor(library.store, library.embeddings)
    await ingestor.ingest([("a", "trout"), ("b", "pike")], ACL.of("public"))
    target = SqlDocuments(tmp_path / "copy.db")
    assert await copy(library.store, target, embeddings=Two()) == 2
    assert [c.vector async for batch in target.scan() for c in sorted(batch, key=lambda c: c.id)] == [(1, 5), (1, 4)]
    assert (await verify(target)).findings == ()
    await target.close()
    await library.close()


def test_a_line_of_an_export_is_json(ringwall: Type, house: Path, tmp_path: Path) -> None:
    ringwall("ingest", house, "--library", tmp_path / "library", "--readers", "public", "role:hr")
    for line in ringwall("data", "export", tmp_path / "library")[1].splitlines():
        assert json.loads(line)["readers"] == ["public"]


def test_a_folder_without_a_library_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no library"):
        Library(tmp_path)


def test_an_embedder_that_needs_to_be_told_more_is_not_a_librarys(
    ringwall: Type, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer = tmp_path / "offers" / "offers-1.dist-info"
    offer.mkdir(parents=True)
    (offer / "METADATA").write_text("Metadata-Version: 2.1\nName: offers\nVersion: 1\n")
    (offer / "entry_points.txt").write_text("[ringwall.embeddings]\nfar = ringwall_hosted:HostedEmbeddings\n")
    monkeypatch.syspath_prepend(offer.parent)
    asked = ("ingest", house, "--library", tmp_path / "library", "--readers", "public", "--embeddings", "far")
    status, _, err = ringwall(*asked)
    assert (status, "the embedder 'far' needs to be told more than its name" in err) == (1, True)
    assert not (tmp_path / "library" / "embeddings").exists()
