"""A document that lost readers and cannot be embedded again: they read its earlier version no more."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.documents import Document

from ringwall.data import Ingestor, Manifest, MemoryStore
from ringwall.data.base import Query
from ringwall.errors import ProviderError
from ringwall.principal import ACL, PUBLIC, Principal

GRANTS = (PUBLIC, "role:a", "role:b", "role:c")
acls = st.sets(st.sampled_from(GRANTS), min_size=1).map(ACL)


class Embedder:
    """Runs elsewhere, and takes everything until it is broken."""

    def __init__(self, principal: Principal | None = None) -> None:
        self.principal, self.broken = principal, False

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        if self.broken and text.startswith("new"):
            raise ProviderError("the embedder is down")
        return [1.0, 0.0]


async def readers_of_what_is_left(store: MemoryStore) -> set[str]:
    """Who, of those with one grant besides `public`, finds anything."""
    found = [g for g in GRANTS if await store.search(Query("words"), frozenset((PUBLIC, g)), 9)]
    return set(found)


def may_read(acl: ACL) -> set[str]:
    return {grant for grant in GRANTS if acl.admits(frozenset((PUBLIC, grant)))}


async def ingested_twice(old: ACL, new: ACL, manifest: Manifest | None, *, breaks: bool) -> tuple[set[str], str]:
    """Ingest, and again with other words and readers, which fails; who reads what is left, and what is said."""
    store, readers = MemoryStore(), {"doc": old}
    embedder = Embedder(None if breaks else Principal("embedder:far"))
    holds = frozenset((PUBLIC, *GRANTS))
    for text in ("old words", "new words"):
        held = holds if text.startswith("old") else frozenset(("role:nobody",))
        ingestor = Ingestor(store, embedder, manifest=manifest, embedder_holds=held)
        embedder.broken = breaks
        said = ""
        try:
            report = await ingestor.ingest([("doc", text)], lambda document: readers[str(document.id)])
            said = report.refused[0].earlier if report.refused else ""
        except ProviderError:
            said = "failed"
        readers["doc"] = new
    return await readers_of_what_is_left(store), said


@pytest.mark.parametrize("breaks", [False, True], ids=["refused", "down"])
@pytest.mark.parametrize("remembers", [False, True], ids=["no manifest", "manifest"])
@settings(max_examples=60, deadline=None)
@given(old=acls, new=acls)
def test_whoever_reads_the_earlier_version_could_before_and_may_now(
    old: ACL, new: ACL, *, remembers: bool, breaks: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        manifest = stack.enter_context(contextlib.closing(Manifest(Path(folder) / "m.db"))) if remembers else None
        left, said = asyncio.run(ingested_twice(old, new, manifest, breaks=breaks))
    assert left <= may_read(old) & may_read(new)
    if new == old or new.is_public:
        assert left == may_read(old)
    if not breaks:
        assert (said == "kept") == (left == may_read(old))
        assert (said == "removed") == (not left)


async def test_a_file_that_cannot_be_read_any_more_is_withheld_from_those_its_folder_no_longer_lets(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    manifest = Manifest(tmp_path / "manifest.db")
    ingestor = Ingestor(store, manifest=manifest)
    await ingestor.ingest([("doc", "old words")], ACL(("role:a", "role:b")))
    report = await ingestor.ingest([("doc", "new \ud800")], ACL(("role:b", "role:c")))
    assert report.refused[0].earlier == "narrowed"
    assert await readers_of_what_is_left(store) == {"role:b"}
    again = await ingestor.ingest([Document(id="doc", page_content="old words")], ACL(("role:b", "role:c")))
    assert again.relabelled
    assert await readers_of_what_is_left(store) == {"role:b", "role:c"}
    manifest.close()
