"""`kill -9` at random moments of an ingestion: done once more, the store is as if nothing had happened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("store", "lives"), [("sqlite", 50), ("chroma", 10)])
def test_an_ingestion_killed_anywhere_and_done_again_leaves_what_an_undisturbed_one_leaves(
    tmp_path: Path, store: str, lives: int
) -> None:
    command = [sys.executable, "-m", "tests.plugins.killed_ingestion", store, str(lives), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > lives // 2  # so many were killed before their end
