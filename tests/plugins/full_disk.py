"""Ingestions while the disk fills up: `python -m tests.plugins.full_disk FOLDER`.

No file may grow beyond a bound, which for a database is as good as a full disk. A process of its own, which forks each
life, as `killed_ingestion` does.
"""

from __future__ import annotations

import json
import resource
import shutil
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from ringwall.data.care import verify
from ringwall.data.manifest import Manifest
from ringwall.errors import StoreError
from tests.plugins.killed_ingestion import held, ingest, sqlite
from tests.plugins.lives import live

ROOM: Final = (0, 4_000, 34_000, 45_000, 70_000, 120_000, 250_000, 500_000, 2_000_000)
"""Bytes that a file may have: too few to open a database, and then ever more for the documents' log."""

ROOM_IN_MANIFEST: Final = (0, 5_000, 9_000, 18_000, 30_000)
"""Bytes by which the manifest's log may grow, while the documents have room."""

LONG: Final = 2_000_000
"""More bytes than the documents' log will have."""


async def ingest_within(folder: Path, room: int, log: int) -> None:
    """Ingest, where the manifest's log has `log` bytes already, and write down what went wrong."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    said = ""
    with long_log(folder / "manifest.db", log):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room + log, unlimited[1]))
        try:
            await ingest(folder, sqlite, 1)
        except StoreError as error:
            said = str(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    (folder / "said").write_text(said)


@contextmanager
def long_log(path: Path, size: int) -> Iterator[None]:
    """Somebody reads what stood in a database before so much was written, so that its log cannot begin anew."""
    with closing(sqlite3.connect(path)) as reader, closing(sqlite3.connect(path)) as writer:
        if size:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM facts").fetchone()
            writer.executescript("PRAGMA wal_autocheckpoint = 0; CREATE TABLE padding (bytes)")
            while (log := path.with_name(f"{path.name}-wal").stat().st_size) < size - 5000:
                writer.execute("INSERT INTO padding VALUES (zeroblob(?))", (min(size - log, 50_000) // 2,))
                writer.commit()
            writer.execute("DROP TABLE padding")
        yield


async def look(folder: Path) -> None:
    """Write down the passages of each document, and what a check finds."""
    store, manifest = sqlite(folder), Manifest(folder / "manifest.db")
    passages: dict[str, list[str]] = {}
    async for batch in store.scan():
        for chunk in batch:
            passages.setdefault(chunk.document, []).append(chunk.text)
    begun = set(manifest.begun())
    odd = [f for f in (await verify(store, manifest)).findings if not any(repr(name) in f for name in begun)]
    (folder / "seen.json").write_text(json.dumps([{name: sorted(p) for name, p in passages.items()}, odd]))
    manifest.close()
    await store.close()


def seen(folder: Path) -> Mapping[str, list[str]]:
    assert live(partial(look, folder))
    passages, odd = json.loads((folder / "seen.json").read_text())
    if odd:
        sys.exit(f"{folder.name}: {odd}")
    found: dict[str, list[str]] = passages
    return found


def main(folder: Path) -> None:
    """Fill the disk at each bound; exit with a message if one leaves half a document, or something to mend."""
    before, calm = folder / "before", folder / "calm"
    before.mkdir()
    assert live(partial(ingest, before, sqlite, 0))
    shutil.copytree(before, calm)
    assert live(partial(ingest, calm, sqlite, 1))
    old, new, expected = seen(before), seen(calm), held(calm, sqlite)
    for room, log in [*((room, 0) for room in ROOM), *((room, LONG) for room in ROOM_IN_MANIFEST)]:
        life = folder / f"{room}-{log}"
        shutil.copytree(before, life)
        assert live(partial(ingest_within, life, room, log)), f"{life.name}: not a StoreError"
        sys.stdout.write(f"{(life / 'said').read_text()}\n")
        found = seen(life)
        for name in found.keys() | old.keys() | new.keys():
            assert found.get(name) in (old.get(name), new.get(name)), f"{life.name}: half of {name}"
        assert held(life, sqlite) == expected, f"{life.name}: ingested again, it is something else"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
