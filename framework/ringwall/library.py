"""A library on disk: the store, the embedder it is filled with, and the manifest of what went in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Final, Self

from ringwall import plugins
from ringwall.data.base import Embeddings, StoreOfRecord
from ringwall.data.care import catch_up, copy
from ringwall.data.generations import (
    Generations,
    LatestEmbeddings,
    LatestStore,
    Pair,
    Settled,
    let_the_plan_hold,
    new_store,
)
from ringwall.data.manifest import Manifest
from ringwall.data.preparation import fingerprint
from ringwall.data.receiving import receiver_of
from ringwall.errors import ConfigurationError, RingwallError, UnknownPlugin

EMBEDDINGS: Final = "wordllama"
_STORE: Final = "sql"
_INDEX: Final = "index"
_NONE: Final = "none"
_TRIES: Final = 3


class Library:
    """What `ringwall ingest` fills, in one folder; give `store` and `embeddings` to an `App`.

    Which embedder it is filled with is settled when it is made, and changed by `reembed` alone: `store` and
    `embeddings` are at any time those that belong together, also while another process changes them.
    `manifest` is None unless the library is opened `exclusively`: one process fills it while others search in it.
    Whoever searches does so through an index beside the store, if the extra `index` is installed: see `has_index`.
    Raises `ConfigurationError` where there is no library, `UnknownPlugin`, and `StoreError`.
    """

    def __init__(self, folder: str | Path, *, exclusively: bool = False) -> None:
        self._folder, self._is_filled = Path(folder), exclusively
        folder = self._folder
        settled = Settled.read(folder)
        if settled is None:
            raise ConfigurationError(f"no library in {str(folder)!r}", hint="make one with `ringwall ingest`")
        self.manifest = Manifest(folder / "manifest.db") if exclusively else None
        try:
            self._generations = Generations(folder, self._opened)
        except RingwallError:
            if self.manifest is not None:
                self.manifest.close()
            raise
        self.store: StoreOfRecord = LatestStore(self._generations)
        self.embeddings: Embeddings | None = None if settled.embedder == _NONE else LatestEmbeddings(self._generations)
        self._tell_manifest()

    @classmethod
    def fill(cls, folder: str | Path, *, embeddings: str = "") -> Self:
        """Open a library to fill it; make it if it is not there.

        Raises `ConfigurationError` for another embedder than it was made with.
        """
        _settle(Path(folder), embeddings)
        return cls(folder, exclusively=True)

    async def back_up(self, folder: str | Path) -> int:
        """Make a library of its own of all that this one holds, while others search here; return its passages.

        Give it to `Library` to go on with it. Raises `ConfigurationError` if there is something in the folder, and
        unless this library was opened exclusively: what is written meanwhile would be missing.
        """
        folder = Path(folder)
        if self.manifest is None or (folder.exists() and any(folder.iterdir())):
            raise ConfigurationError(
                f"no backup to {str(folder)!r}", expected="a new folder, and a library opened `exclusively`"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        target: StoreOfRecord = plugins.find("data", _STORE)(folder / "documents.db")
        try:
            passages = await copy(self.store, target)
            self.manifest.back_up(folder / "manifest.db", revision=await target.revision())
            Settled(self._settled.embedder).settle(folder)  # last: without it, it is no library
        finally:
            await target.close()
        return passages

    async def reembed(self, embeddings: str, *, told: Callable[[int], None] = lambda passages: None) -> int:
        """Change the embedder, while this and other processes search here; return the passages that were embedded.

        A second store is filled beside the first one, and takes its place with its embedder in one step. Stopped at
        any moment, it goes on where it was when called again; for an embedder that is there already nothing is
        done. What is written through a `Library` meanwhile, by any process, is in it; no ingestion that needs the
        manifest can run. `told` is called with numbers of passages. Raises `ConfigurationError` unless this library
        was opened exclusively, and for an embedder that sends texts elsewhere: nobody here could be asked who may
        receive them.
        """
        if self.manifest is None:
            raise ConfigurationError("a library that others may fill", expected="one opened `exclusively`")
        embedder = _embedder(embeddings)
        if embedder is None or receiver_of(embedder) is not None:
            raise ConfigurationError(
                f"a library cannot be given the embedder {embeddings!r}", expected="one that computes in this process"
            )
        before, now = await asyncio.to_thread(lambda: (fingerprint(self.embeddings), fingerprint(embedder)))
        if before == now:
            return 0
        plan = self._planned(embeddings, before, now)
        target = _store(self._folder / plan.store)
        try:
            done = await self._take_over(target, embedder, told)
        finally:
            await target.close()
        self._tell_manifest()
        await self.store.revision()  # look: so that this process leaves the old store too
        return done

    async def close(self) -> None:
        """Close what was opened."""
        await self.store.close()
        if self.manifest is not None:
            self.manifest.close()

    @property
    def passages(self) -> int:
        """How many the manifest knows of; 0 if this library was not opened exclusively."""
        return 0 if self.manifest is None else sum(entry.passages for entry in self.manifest.entries())

    @property
    def _settled(self) -> Settled:
        settled = Settled.read(self._folder)
        assert settled is not None
        return settled

    def _opened(self, settled: Settled) -> Pair:
        store = _store(self._folder / settled.store)
        if not self._is_filled:  # who fills does not search, and pays for no index
            store = _indexed(store, self._folder / f"{settled.store}.index")
        return Pair(store, _embedder(settled.embedder))

    def _planned(self, name: str, before: str, now: str) -> Settled:
        """What is to hold: what was planned already, if it was just this."""
        plan = Settled.planned(self._folder)
        if plan is None or plan != (name, plan.store, before, now):
            plan = Settled(name, new_store(self._folder), before, now)
            plan.plan(self._folder)
        return plan

    async def _take_over(self, target: StoreOfRecord, embedder: Embeddings, told: Callable[[int], None]) -> int:
        """Fill the target until it holds what the store holds, and let the plan hold at a moment when it does."""
        done = 0
        for _ in range(_TRIES):
            seen = await self.store.revision()
            done += await self._caught_up(target, embedder, told)
            told = _tell_nobody
            async with self._generations.nobody_writing():
                if await self.store.revision() == seen:
                    let_the_plan_hold(self._folder)
                    return done
        async with self._generations.nobody_writing():  # who writes all the time has to wait once
            done += await self._caught_up(target, embedder, told)
            let_the_plan_hold(self._folder)
        return done

    async def _caught_up(self, target: StoreOfRecord, embedder: Embeddings, told: Callable[[int], None]) -> int:
        done = 0
        while more := await catch_up(self.store, target, embedder, told=told):
            done, told = done + more, _tell_nobody
        return done

    def _tell_manifest(self) -> None:
        """Nothing is embedded again that was embedded in a change of embedders, this one or an earlier one."""
        settled = self._settled
        if self.manifest is not None and settled.now:
            self.manifest.embedded_anew(settled.before, settled.now)


def has_index() -> bool:
    """Whether libraries are searched through an index: else the store searches, more slowly from some 10,000 on."""
    try:
        plugins.find("data", _INDEX)
    except UnknownPlugin:
        return False
    return True


def _indexed(store: StoreOfRecord, folder: Path) -> StoreOfRecord:
    if not has_index():
        return store
    indexed: StoreOfRecord = plugins.find("data", _INDEX)(store, folder)
    return indexed


def _settle(folder: Path, wanted: str) -> None:
    """Write down the embedder's name, if none stands there yet; it must be `wanted` from now on."""
    settled = Settled.read(folder)
    if settled is None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds what not everybody may read
        settled = Settled(wanted or EMBEDDINGS)
        _embedder(settled.embedder)
        settled.settle(folder)
    if wanted and wanted != settled.embedder:
        raise ConfigurationError(
            f"the library in {str(folder)!r} is embedded with {settled.embedder!r}, not {wanted!r}",
            hint="change it with `ringwall data reembed`: vectors of two embedders cannot be compared",
        )


def _store(path: Path) -> StoreOfRecord:
    store: StoreOfRecord = plugins.find("data", _STORE)(path)
    return store


def _embedder(name: str) -> Embeddings | None:
    if name == _NONE:
        return None
    make = plugins.find("embeddings", name)
    try:
        signature(make).bind()
    except TypeError:
        raise ConfigurationError(
            f"the embedder {name!r} needs to be told more than its name",
            hint="fill a store of your own with it: `ringwall.data.Ingestor(store, embeddings)`",
        ) from None
    embeddings: Embeddings = make()
    return embeddings


def _tell_nobody(passages: int) -> None:
    """Progress is told of the first look only: the others are over everything again."""
