"""`kill -9` at random moments of an ingestion: done once more, the store is as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from ringwall.data import ByPath, Ingestor, Manifest, StoreOfRecord
from ringwall.principal import ACL, PUBLIC
from ringwall_chroma import ChromaStore
from ringwall_sql import SqlDocuments
from tests.plugins.lives import live

RULES = ByPath([("doc-1*", ACL.of("role:staff")), ("**", ACL.of(PUBLIC))])

Opens = Callable[[Path], StoreOfRecord]


class Letters:
    """An embedder that needs no model: how often each of four letters occurs."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0 + text.count(letter) for letter in "aeio"]


def documents(version: int) -> list[tuple[str, str]]:
    """Forty documents of one to some hundred passages; a third differ between versions, and three are gone."""
    numbers = random.Random(3)
    lengths = [numbers.choice((0, 50, 3000, 40_000)) for _ in range(40)]
    texts = [f"{n} {version if n % 3 == 0 else 0} trout and pike. " * (size // 20) for n, size in enumerate(lengths)]
    return [(f"doc-{n}", text) for n, text in enumerate(texts)][3 * version :]


async def ingest(folder: Path, opens: Opens, version: int) -> None:
    store, manifest = opens(folder), Manifest(folder / "manifest.db")
    report = await Ingestor(store, Letters(), manifest=manifest).ingest(documents(version), RULES, all_of="")
    assert not report.refused
    manifest.close()
    await store.close()


async def finish(folder: Path, opens: Opens) -> None:
    """Ingest once more; write down all that the store holds then, and that a third time finds nothing to do."""
    await ingest(folder, opens, 1)
    store, manifest = opens(folder), Manifest(folder / "manifest.db")
    held = [
        [c.id, c.document, c.text, sorted(c.readers), c.start, c.end, c.vector]
        async for batch in store.scan()
        for c in batch
    ]
    report = await Ingestor(store, Letters(), manifest=manifest).ingest(documents(1), RULES, all_of="")
    again = [len(report.ingested), len(report.relabelled), len(report.removed)]
    (folder / "held.json").write_text(json.dumps([sorted(held, key=str), again]))
    manifest.close()
    await store.close()


def held(folder: Path, opens: Opens) -> str:
    assert live(partial(finish, folder, opens))
    return (folder / "held.json").read_text()


def chroma(folder: Path) -> StoreOfRecord:
    return ChromaStore(folder / "documents")


def sqlite(folder: Path) -> StoreOfRecord:
    return SqlDocuments(folder / "documents.db")


@pytest.mark.parametrize(("opens", "lives"), [(sqlite, 50), (chroma, 10)])
def test_an_ingestion_killed_anywhere_and_done_again_leaves_what_an_undisturbed_one_leaves(
    tmp_path: Path, opens: Opens, lives: int
) -> None:
    """The first version goes in undisturbed; the second replaces it, and is killed."""
    before, calm = tmp_path / "before", tmp_path / "calm"
    before.mkdir()
    assert live(partial(ingest, before, opens, 0))
    shutil.copytree(before, calm)
    began = time.monotonic()
    assert live(partial(ingest, calm, opens, 1))
    whole = time.monotonic() - began
    expected = held(calm, opens)
    moments, killed = random.Random(11), 0
    for number in range(lives):
        folder = tmp_path / str(number)
        shutil.copytree(before, folder)
        killed += not live(partial(ingest, folder, opens, 1), kill_after=moments.uniform(0, whole))
        assert held(folder, opens) == expected
    assert killed > lives // 2
