"""Two embedders that need no model and whose vectors have one size: who mixes them up finds something else.

`offered` is a folder with what an installed distribution would have there, so that they are found by name.
"""

from __future__ import annotations

from pathlib import Path

_ENTRIES = "[ringwall.embeddings]\nvowels = tests.core.letters:Vowels\nconsonants = tests.core.letters:Consonants\n"


class _Letters:
    principal = None
    letters = ""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [float(text.count(letter)) for letter in self.letters] + [0.125]


class Vowels(_Letters):
    """How often each of five vowels occurs."""

    letters = "aeiou"


class Consonants(_Letters):
    """How often each of five consonants occurs."""

    letters = "tnskr"


def offered(folder: Path) -> Path:
    """Put the folder on `sys.path`, and `plugins.find` finds them."""
    info = folder / "letters-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: letters\nVersion: 1\n")
    (info / "entry_points.txt").write_text(_ENTRIES)
    return folder
