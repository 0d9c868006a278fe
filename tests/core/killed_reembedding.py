"""Changes of the embedder killed at random moments: `python -m tests.core.killed_reembedding LIVES FOLDER`.

Meanwhile another process searches, and takes a document away from its readers. A process of its own, which forks
each life. Writes how many were killed, and how many searches were right: all, or it ends with a message.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ringwall.data import Ingestor, Query
from ringwall.data.care import verify
from ringwall.data.fuse import DENSE_WEIGHT
from ringwall.library import Library
from ringwall.principal import ACL, PUBLIC
from tests.core.letters import offered
from tests.plugins.lives import live

COUNT = 2197  # 13 * 13 * 13: more than two batches
READER = frozenset((PUBLIC,))


def text(n: int) -> str:
    """What each of the two embedders sees, and sees only once, but not in the same order."""
    parts = []
    for letters, m in (("aei", n), ("tns", n * 7 % COUNT)):
        parts.append("".join(letter * (1 + m // 13**place % 13) for place, letter in enumerate(letters)))
    return f"{parts[0]} {parts[1]} {n}"


async def fill(folder: Path) -> None:
    library = Library.fill(folder, embeddings="vowels")
    documents = [(f"d{n}", text(n)) for n in range(COUNT)]
    await Ingestor(library.store, library.embeddings, manifest=library.manifest).ingest(documents, ACL.of(PUBLIC))
    await library.close()


def die(passages: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def reembed(folder: Path, told: Callable[[int], None] = lambda passages: None) -> None:
    library = Library.fill(folder)
    done = await library.reembed("consonants", told=told)
    (folder.parent / f"{folder.name}.done").write_text(str(done))
    await library.close()


async def search(folder: Path) -> None:
    """Search until told to stop; each document must be found first, by its words and by its vector."""
    library, chooser, right = Library(folder), random.Random(7), 0
    assert library.embeddings is not None
    hidden = chooser.randrange(COUNT)
    while not (folder.parent / f"{folder.name}.stop").exists():
        n = chooser.randrange(COUNT)
        if right == 5:
            await library.store.set_readers([f"d{hidden}"], ACL.of("role:staff"))
        query = Query(text(n), tuple(await asyncio.to_thread(library.embeddings.embed_query, text(n))))
        found = await library.store.search(query, READER, 2)
        if n == hidden and right >= 5:
            assert f"d{n}" not in {match.chunk.document for match in found}
        else:
            assert (found[0].chunk.document, round(found[0].score, 3)) == (f"d{n}", 1 + DENSE_WEIGHT), found
        right += 1
    (folder.parent / f"{folder.name}.searched").write_text(f"{right} {hidden}")
    await library.close()


async def held(folder: Path) -> None:
    """Write down all that the library holds, in which files, and what is wrong with it."""
    library = Library.fill(folder)
    chunks = [[c.id, c.text, sorted(c.readers), c.vector] async for batch in library.store.scan() for c in batch]
    documents = [(f"d{n}", text(n)) for n in range(COUNT)]
    checked = await verify(library.store)
    ingestor = Ingestor(library.store, library.embeddings, manifest=library.manifest)
    report = await ingestor.ingest(documents, lambda d: ACL.of(PUBLIC))
    await library.close()
    stores = sorted(path.name for path in folder.glob("documents*.db"))  # noqa: ASYNC240
    again = [checked.findings, len(report.ingested), len(stores)]
    (folder.parent / f"{folder.name}.held").write_text(json.dumps([sorted(chunks, key=str), again]))


def main(lives: int, folder: Path) -> None:
    """Live so many lives; exit with a message at the first that leaves something else than an undisturbed one."""
    sys.path.insert(0, str(offered(folder / "site")))
    base = folder / "base"
    assert live(partial(fill, base))
    moments, killed, searches, whole, expected = random.Random(11), 0, 0, 3.0, ""
    for number in range(lives + 2):  # the first one is not disturbed, the last one dies after its first thousand
        life = folder / str(number)
        shutil.copytree(base, life)
        searching = multiprocessing.get_context("fork").Process(target=lambda life=life: asyncio.run(search(life)))
        searching.start()
        began = time.monotonic()
        if number > lives:
            assert not live(partial(reembed, life, die))
        elif number and not live(partial(reembed, life), kill_after=moments.uniform(0.0, whole)):
            killed += 1
        if not (folder / f"{number}.done").exists():
            assert live(partial(reembed, life))
        whole = whole if number else time.monotonic() - began
        (folder / f"{number}.stop").touch()
        searching.join()
        if searching.exitcode:
            sys.exit(f"a search in life {number} was wrong")
        searches += int((folder / f"{number}.searched").read_text().split()[0])
        assert live(partial(held, life))
        left = (folder / f"{number}.held").read_text()
        expected = expected or left
        if left != expected:
            sys.exit(f"life {number} left something else")
    if int((folder / f"{lives + 1}.done").read_text()) > COUNT - 1000 + 1:  # and the one that was taken away
        sys.exit("what was done was done again")
    sys.stdout.write(f"{killed} {searches}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
