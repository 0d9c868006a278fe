"""A disk that fills up in the middle of an ingestion: said clearly, nothing by halves, and then it goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.plugins.full_disk import ROOM


def test_an_ingestion_that_a_full_disk_ends_leaves_whole_documents_and_goes_on_once_there_is_space(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "tests.plugins.full_disk", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert all("'documents.db'" in error and "disk" in error for error in said[: len(ROOM) - 1])
    assert said[len(ROOM) - 1] == ""  # there was room enough
    assert all("the manifest" in error and "disk" in error for error in said[len(ROOM) :])
