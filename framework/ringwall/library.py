"""A library on disk: the store, the embedder it is filled with, and the manifest of what went in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final, Self

from ringwall import plugins
from ringwall.data.base import Embeddings, StoreOfRecord
from ringwall.data.care import copy
from ringwall.data.manifest import Manifest
from ringwall.errors import ConfigurationError, RingwallError, UnknownPlugin

EMBEDDINGS: Final = "wordllama"
_STORE: Final = "sql"
_INDEX: Final = "index"
_SETTLED: Final = "embeddings"


class Library:
    """What `ringwall ingest` fills, in one folder; give `store` and `embeddings` to an `App`.

    Which embedder it is filled with is settled when it is made.
    `manifest` is None unless the library is opened `exclusively`: one process fills it while others search in it.
    Whoever searches does so through an index in the same folder, if the extra `index` is installed: see `has_index`.
    Raises `ConfigurationError` where there is no library, `UnknownPlugin`, and `StoreError`.
    """

    def __init__(self, folder: str | Path, *, exclusively: bool = False) -> None:
        self._folder = folder = Path(folder)
        if not (folder / _SETTLED).is_file():
            raise ConfigurationError(f"no library in {str(folder)!r}", hint="make one with `ringwall ingest`")
        self.embeddings: Embeddings | None = _embedder((folder / _SETTLED).read_text(encoding="utf-8").strip())
        self.manifest = Manifest(folder / "manifest.db") if exclusively else None
        try:
            store: StoreOfRecord = plugins.find("data", _STORE)(folder / "documents.db")
            self.store = store if exclusively else _indexed(store, folder / "index")
        except RingwallError:
            if self.manifest is not None:
                self.manifest.close()
            raise

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
            shutil.copy(self._folder / _SETTLED, folder)  # last: without it, it is no library
        finally:
            await target.close()
        return passages

    async def close(self) -> None:
        """Close what was opened."""
        await self.store.close()
        if self.manifest is not None:
            self.manifest.close()


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
    file = folder / _SETTLED
    if not file.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds what not everybody may read
        _embedder(wanted or EMBEDDINGS)
        file.write_text(wanted or EMBEDDINGS, encoding="utf-8")
    name = file.read_text(encoding="utf-8").strip()
    if wanted and wanted != name:
        raise ConfigurationError(
            f"the library in {str(folder)!r} is embedded with {name!r}, not {wanted!r}",
            hint="make a new one: vectors of two embedders cannot be compared",
        )


def _embedder(name: str) -> Embeddings | None:
    if name == "none":
        return None
    embeddings: Embeddings = plugins.find("embeddings", name)()
    return embeddings
