"""Ingestion over Ray leaves what ingestion in one process leaves, whoever dies on the way."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from threading import Lock

import pytest
import ray
from langchain_core.documents import Document

from ringwall import cli
from ringwall.data import Ingestor, IngestReport, Manifest, Pending, Readers, Refused, Workers, front_matter_readers
from ringwall.data.care import copy, exported
from ringwall.errors import ConfigurationError, WorkerDied
from ringwall.principal import ACL, PUBLIC
from ringwall_files import find_files
from ringwall_ray import RayWorkers
from ringwall_sql import SqlDocuments
from tests.plugins.ray_work import Broken, Letters, deadly, doubled

OPEN = ACL.of(PUBLIC)


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    """Two workers on a Ray that is started once, for all tests here."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray") as folder:
        patch.setenv("RAY_raylet_start_wait_time_s", "180")
        patch.setenv("RAY_TMPDIR", folder)
        workers = RayWorkers(2)
        asyncio.run(start(workers))
        yield workers
        asyncio.run(workers.close())


async def start(workers: Workers) -> None:
    async def one() -> AsyncIterator[Sequence[int]]:
        yield [1]

    assert [done async for done in workers.each(doubled, one())] == [([1], [2])]


async def ingested(
    folder: Path,
    documents: Iterable[Document | tuple[str, str] | Pending | Refused],
    *,
    workers: Workers | None = None,
    readers: Readers = OPEN,
) -> tuple[list[str], IngestReport]:
    """All that a store holds that is filled with these, and what became of each."""
    store, manifest = SqlDocuments(f"{folder}.db"), Manifest(f"{folder}-manifest.db")
    try:
        ingestor = Ingestor(store, Letters(), manifest=manifest, workers=workers)
        report = await ingestor.ingest(documents, readers, tenant="acme")
        return [line async for line in exported(store)], report
    finally:
        manifest.close()
        await store.close()


def library() -> list[Document | tuple[str, str]]:
    """Documents of all kinds: long, empty, with pages, the same twice, without readers, and not to be embedded."""
    head = "---\nreaders: [role:staff]\n---\n"
    texts = [f"{head}# Dish {n}\n\n" + "Trout from the lake, with butter and sage. " * (n % 70) for n in range(600)]
    odd: list[Document | tuple[str, str]] = [
        ("nobody", "without readers"),
        ("nan", f"{head}NaN"),
        ("dish-7", "a second one"),
        Document(id="paged", page_content=f"{head}one two", metadata={"pages": "[0, 4]", "year": 2024}),
    ]
    return [*odd, *((f"dish-{n}", text) for n, text in enumerate(texts)), ("dish-8", "and another")]


async def test_a_store_filled_over_ray_holds_what_one_filled_here_does(tmp_path: Path, workers: Workers) -> None:
    here = await ingested(tmp_path / "here", library(), readers=front_matter_readers)
    for number, crew in enumerate((workers, RayWorkers(1))):
        there = await ingested(tmp_path / str(number), library(), readers=front_matter_readers, workers=crew)
        assert there[0] == here[0]
        assert repr(there[1]) == repr(here[1])
    assert {type(refused.error).__name__ for refused in here[1].refused} == {"DocumentWithoutReaders", "InvalidInput"}


async def test_files_are_read_by_workers_each_with_a_parser_of_its_own(tmp_path: Path, workers: Workers) -> None:
    house = tmp_path / "house"
    house.mkdir()
    for number in range(12):
        (house / f"{number}.html").write_text(f"<h1>Menu {number}</h1><p>Trout from the lake, with sage.</p>")
    (house / "wages.pdf").write_text("no PDF at all")
    here = await ingested(tmp_path / "here", find_files(house))
    there = await ingested(tmp_path / "there", find_files(house), workers=workers)
    assert there[0] == here[0]
    assert repr(there[1]) == repr(here[1])
    assert [refused.document for refused in here[1].refused] == ["wages.pdf"]


def test_the_command_line_fills_a_library_with_workers(
    tmp_path: Path, workers: Workers, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "menu.md").write_text("Trout with sage.")
    words = ["ingest", tmp_path / "menu.md", "--library", tmp_path / "library", "--readers", PUBLIC, "--workers", 1]
    monkeypatch.setattr(sys, "argv", ["ringwall", *map(str, words), "--embeddings", "none"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert (left.value.code or 0, capsys.readouterr().out.splitlines()[-1]) == (
        0,
        "1 ingested, 0 unchanged, 0 relabelled, 0 removed, 0 refused; 1 passages",
    )


async def test_a_dead_worker_is_replaced_and_nothing_lost_or_doubled(tmp_path: Path, workers: Workers) -> None:
    documents: list[tuple[str, str] | Pending] = [(f"dish-{n}", "pike " * (n % 900)) for n in range(300)]
    documents.insert(40, Pending("once", "1", partial(deadly, "once", tmp_path / "died")))
    documents.insert(90, Pending("always", "1", partial(deadly, "always")))
    held, report = await ingested(tmp_path / "there", documents, workers=workers)
    assert [(refused.document, type(refused.error)) for refused in report.refused] == [("acme::always", WorkerDied)]
    others = [d for d in documents if isinstance(d, tuple)]
    others.insert(40, ("once", "trout"))
    assert held == (await ingested(tmp_path / "here", others))[0]
    assert [done.document for done in report.ingested] == [f"acme::{name}" for name, _ in others]


async def test_a_library_is_embedded_anew_over_ray(tmp_path: Path, workers: Workers) -> None:
    await ingested(tmp_path / "old", [(f"dish-{n}", f"trout {n} " * 300) for n in range(100)])
    source = SqlDocuments(tmp_path / "old.db")
    copies: list[list[str]] = []
    for number, crew in enumerate((None, workers)):
        target = SqlDocuments(tmp_path / f"new-{number}.db")
        assert await copy(source, target, embeddings=Letters("trout"), workers=crew) > 100
        copies.append([line async for line in exported(target)])
        await target.close()
    await source.close()
    assert copies[0] == copies[1]


async def test_no_text_is_left_in_rays_files(tmp_path: Path, workers: Workers) -> None:
    secret = "the wage of Ana is 4217"
    documents: list[tuple[str, str] | Pending] = [
        ("wages", secret),
        Pending("dead", secret, partial(deadly, secret)),
        ("nan", f"{secret} NaN"),
    ]
    _, report = await ingested(tmp_path / "there", documents, workers=workers)
    assert [len(report.ingested), len(report.refused)] == [1, 2]
    written = list(files(os.environ["RAY_TMPDIR"]))
    assert len(written) > 10
    assert not any(secret.encode() in content for content in written)


def files(folder: str) -> Iterator[bytes]:
    """What stands in every file below a folder."""
    for path in Path(folder).rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path.read_bytes()


async def test_nobody_joins_a_ray_started_here_without_its_token(workers: Workers) -> None:
    address = ray.get_runtime_context().gcs_address
    command = [sys.executable, "-c", f"import ray; ray.init({address!r}); print(ray.nodes())"]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    joined = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, timeout=60, check=False)
    assert joined.returncode != 0
    assert b"NodeID" not in joined.stdout
    assert b"uthentication" in joined.stderr


async def test_what_an_embedder_raises_is_raised_as_it_was(workers: Workers, tmp_path: Path) -> None:
    store = SqlDocuments(tmp_path / "documents.db")
    with pytest.raises(ValueError, match=r"^no embedder$"):
        await Ingestor(store, Broken(), workers=workers).ingest([("a", "trout")], OPEN)
    await store.close()


async def test_what_cannot_be_sent_is_named(workers: Workers, tmp_path: Path) -> None:
    store, embedder = SqlDocuments(tmp_path / "documents.db"), Letters()
    embedder.lock = Lock()  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=r"cannot be sent to a worker.*__reduce__"):
        await Ingestor(store, embedder, workers=workers).ingest([("a", "trout")], OPEN)
    await store.close()


async def test_only_a_few_batches_are_taken_ahead(workers: Workers) -> None:
    taken = 0

    async def batches() -> AsyncIterator[Sequence[int]]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield [number]

    results = workers.each(doubled, batches())
    assert [await anext(results) for _ in range(20)] == [([n], [2 * n]) for n in range(20)]
    assert taken < 20 + 10
    await results.aclose()
