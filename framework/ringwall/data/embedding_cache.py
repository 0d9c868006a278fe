"""Vectors kept by the content of their text, so that a passage that comes again is not embedded again."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ringwall.data.base import Embeddings
from ringwall.data.receiving import receiver_of
from ringwall.errors import StoreError
from ringwall.principal import Principal
from ringwall.schema import digest

_SCHEMA: Final = """
    PRAGMA journal_mode = WAL;
    CREATE TABLE IF NOT EXISTS vectors (model TEXT, text TEXT, vector BLOB NOT NULL, PRIMARY KEY (model, text))
        WITHOUT ROWID;
"""


class CachedEmbeddings:
    """`embeddings`, with the vectors of documents kept in the SQLite file `path` under the name of the `model`.

    Texts are known by their SHA-256 and not kept; vectors are kept in 32 bits. Another model needs another name.
    Questions are never looked up nor kept: how long one takes must not tell who asked it before. Whoever may read
    the file can try whether it knows a text: keep it as you keep the library. Raises `StoreError` when the file
    cannot be used.
    """

    def __init__(self, embeddings: Embeddings, path: str | Path, *, model: str) -> None:
        self._embeddings, self._model = embeddings, model
        self._lock = threading.Lock()
        with self._guarded():
            self._db = sqlite3.connect(path, check_same_thread=False)
            try:
                self._db.executescript(_SCHEMA)
            except sqlite3.Error:
                self._db.close()
                raise

    @property
    def principal(self) -> Principal | None:
        """Who receives what is not known yet."""
        return receiver_of(self._embeddings)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vector of each text, in order."""
        keys = [digest(text) for text in texts]
        known = self._known(set(keys))
        missing = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        if missing:
            made = self._embeddings.embed_documents(list(missing.values()))
            new = {key: array("f", vector) for key, vector in zip(missing, made, strict=True)}
            with self._guarded():
                rows = [(self._model, key, vector.tobytes()) for key, vector in new.items()]
                self._db.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?)", rows)
                self._db.commit()
            known |= new
        return [known[key].tolist() for key in keys]

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question, in the same 32 bits."""
        return array("f", self._embeddings.embed_query(text)).tolist()

    def close(self) -> None:
        """Close the file."""
        with self._guarded():
            self._db.close()

    def _known(self, keys: set[str]) -> dict[str, array[float]]:
        found: dict[str, array[float]] = {}
        with self._guarded():
            for key in keys:
                row = self._db.execute(
                    "SELECT vector FROM vectors WHERE model = ? AND text = ?", (self._model, key)
                ).fetchone()
                if row:
                    found[key] = array("f", row[0])
        return found

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise StoreError(
                    f"the cache of vectors cannot be used: {error}", hint="delete it: it is filled anew"
                ) from error
