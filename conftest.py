"""The documents' code runs: each Python block of a page, in order, in a namespace and a folder of its own."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

ROOT = Path(__file__).parent


def enter_folder_of_its_own(namespace: dict[str, Any]) -> None:
    """What a page writes does not land in the repository, nor in another page's way."""
    stack = namespace["_folder"] = contextlib.ExitStack()
    stack.enter_context(contextlib.chdir(stack.enter_context(tempfile.TemporaryDirectory())))
    namespace["__name__"] = "__main__"


def leave_folder(namespace: dict[str, Any]) -> None:
    """Back to where pytest was started."""
    namespace["_folder"].close()


def pages(path: Path, pattern: str) -> Sybil:
    """Every page under `path` that matches, with its Python blocks and its `skip` comments."""
    return Sybil(
        parsers=[PythonCodeBlockParser(), SkipParser()],
        path=str(path),
        pattern=pattern,
        setup=enter_folder_of_its_own,
        teardown=leave_folder,
    )


pytest_collect_file = (pages(ROOT / "docs", "*.md") + pages(ROOT, "README.md")).pytest()
