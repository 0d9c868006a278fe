"""A library on disk: the store, the embedder it is filled with, and the manifest of what went in."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from ringwall import plugins
from ringwall.data.base import Embeddings, StoreOfRecord
from ringwall.data.manifest import Manifest
from ringwall.errors import ConfigurationError

EMBEDDINGS: Final = "wordllama"
_STORE: Final = "sql"
_SETTLED: Final = "embeddings"


class Library:
    """What `ringwall ingest` fills, in one folder; give `store` and `embeddings` to an `App`.

    `embeddings` names the embedder's plugin, `none` for words alone; it is settled when the library is made.
    `manifest` is None unless `fill` is true: one process fills a library while others search in it.
    Raises `UnknownPlugin`, `ConfigurationError` for another embedder than the library was made with, `StoreError`.
    """

    def __init__(self, folder: str | Path, *, embeddings: str = "", fill: bool = False) -> None:
        folder = Path(folder)
        if not fill and not (folder / _SETTLED).exists():
            raise ConfigurationError(f"no library in {str(folder)!r}", hint="make one with `ringwall ingest`")
        self.embeddings: Embeddings | None = _embedder(_settled(folder, embeddings))
        self.manifest = Manifest(folder / "manifest.db") if fill else None
        self.store: StoreOfRecord = plugins.find("data", _STORE)(folder / "documents.db")

    @classmethod
    def fill(cls, folder: str | Path, *, embeddings: str = "") -> Self:
        """Open a library to fill it; make it if it is not there."""
        return cls(folder, embeddings=embeddings, fill=True)

    async def close(self) -> None:
        """Close what was opened."""
        await self.store.close()
        if self.manifest is not None:
            self.manifest.close()


def _settled(folder: Path, wanted: str) -> str:
    """The embedder's name: as it was settled, or from now on `wanted`."""
    file = folder / _SETTLED
    if not file.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # it holds what not everybody may read
        file.write_text(wanted or EMBEDDINGS, encoding="utf-8")
    name = file.read_text(encoding="utf-8").strip()
    if wanted and wanted != name:
        raise ConfigurationError(
            f"the library in {str(folder)!r} is embedded with {name!r}, not {wanted!r}",
            hint="make a new one: vectors of two embedders cannot be compared",
        )
    return name


def _embedder(name: str) -> Embeddings | None:
    if name == "none":
        return None
    embeddings: Embeddings = plugins.find("embeddings", name)()
    return embeddings
