"""What the tests send to workers on Ray: apart, so that a worker imports no more than it needs."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langchain_core.documents import Document


class Letters:
    """An embedder that needs no model: how often each of some letters occurs."""

    principal = None

    def __init__(self, letters: str = "aeio") -> None:
        self.letters = letters

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        if "NaN" in text:
            return [float("nan")] * 4
        return [0.1 + text.count(letter) for letter in self.letters]


class Broken(Letters):
    """An embedder that can do nothing."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        raise ValueError("no embedder")


def deadly(name: str, unless: Path | None = None) -> Document:
    """Lets whoever reads it die as by `kill -9`; only the first time if there is a file to remember it by."""
    from langchain_core.documents import Document

    if unless is None or not unless.exists():
        if unless is not None:
            unless.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Document(id=name, page_content="trout")


def doubled(numbers: Sequence[int]) -> list[int]:
    """Twice each number."""
    return [2 * number for number in numbers]
