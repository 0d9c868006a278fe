"""The how-to pages: what they call a plugin is one, and is as short as they say."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import Any, Final

import pytest

PAGES: Final = sorted(Path("docs/howto").resolve().glob("*.md"))
PLUGINS: Final = ("document-store", "model-provider", "policy", "tool", "profile-and-memory-store", "step")
BLOCK: Final = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page: Path) -> list[str]:
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def contracts(page: Path) -> dict[str, Any]:
    """The contract classes of a page, over the plugins that it shows."""
    code = "\n".join(blocks(page))
    if "Contract)" not in code:
        return {}
    namespace: dict[str, Any] = {"__name__": __name__}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        exec(compile(code, page.name, "exec"), namespace)
    return {name: value for name, value in namespace.items() if name.startswith("Test")}


for _page in PAGES:
    globals().update(contracts(_page))


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_takes_at_most_thirty_lines(name: str) -> None:
    page = next(page for page in PAGES if page.stem == name)
    for block in blocks(page):
        assert len([line for line in block.splitlines() if line.strip()]) <= 30


def test_every_page_is_in_the_reading_order() -> None:
    root = Path("docs").resolve()
    index = (root / "index.md").read_text(encoding="utf-8")
    for page in root.glob("*/*.md"):
        assert page.relative_to(root).as_posix() in index
