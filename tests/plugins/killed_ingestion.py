"""Ingestions killed at random moments: `python -m tests.plugins.killed_ingestion sqlite|chroma LIVES FOLDER`.

A process of its own, which forks each life: where a store was used before, its threads do not live on in a fork.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ringwall.data import ByPath, Ingestor, Manifest, StoreOfRecord
from ringwall.principal import ACL, PUBLIC
from ringwall_chroma import ChromaStore
from ringwall_sql import SqlDocuments
from tests.plugins.lives import live

RULES = ByPath([("doc-1*", ACL.of("role:staff")), ("**", ACL.of(PUBLIC))])

Opens = Callable[[Path], StoreOfRecord]


class Letters:
    """An embedder that needs no model: how often each of four letters occurs."""

    principal = None

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


STORES: dict[str, Opens] = {"chroma": chroma, "sqlite": sqlite}


def main(store: str, lives: int, folder: Path) -> None:
    """Live so many lives; exit with a message at the first that leaves something else than an undisturbed one."""
    opens = STORES[store]
    before, calm = folder / "before", folder / "calm"
    before.mkdir()
    assert live(partial(ingest, before, opens, 0))
    shutil.copytree(before, calm)
    began = time.monotonic()
    assert live(partial(ingest, calm, opens, 1))
    whole = time.monotonic() - began
    expected = held(calm, opens)
    moments, killed = random.Random(11), 0
    for number in range(lives):
        life = folder / str(number)
        shutil.copytree(before, life)
        killed += not live(partial(ingest, life, opens, 1), kill_after=moments.uniform(0, whole))
        if held(life, opens) != expected:
            sys.exit(f"life {number} left something else")
    sys.stdout.write(f"{killed}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
