"""Which document is cut in which way, by what its id ends with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import tree_sitter_python
from semantic_text_splitter import CodeSplitter

from ringwall.data import ByKind
from ringwall_splitting.splitter import TokenSplitter
from ringwall_splitting.structure import plain, table, whole

TABLES: Final = (".csv", ".tsv")
PLAIN: Final = (".txt", ".json", ".jsonl")
CODE: Final = (  # noqa: SIM905
    ".c .cc .cpp .cs .css .go .h .hpp .java .js .jsx .kt .lua .php .pl .ps1 .py .r .rb .rs .scala .sh .sql .swift "
    ".toml .ts .tsx .yaml .yml"
).split()


def by_tokens(tokens: Callable[[str], int], size: int, *, languages: Mapping[str, object] | None = None) -> ByKind:
    """Passages of at most `size` tokens, each kind of document cut in its own way.

    Markdown is what everything is but tables (`.csv`, `.tsv`), plain text (`.txt`, `.json`, `.jsonl`) and source
    code. Python is cut along its syntax, and so is what `languages` names: by suffix, what `language()` of a
    tree-sitter grammar returns, for instance `{".js": tree_sitter_javascript.language()}`. Other source code is
    plain text. Raises as `TokenSplitter` does.
    """
    text = TokenSplitter(tokens, size, structure=plain)
    kinds = dict.fromkeys((*PLAIN, *CODE), text)
    kinds |= dict.fromkeys(TABLES, TokenSplitter(tokens, size, structure=table))
    for suffix, language in {".py": tree_sitter_python.language(), **(languages or {})}.items():
        kinds[suffix] = TokenSplitter(tokens, size, structure=whole, chunker=partial(CodeSplitter, language))
    return ByKind(kinds, TokenSplitter(tokens, size))
