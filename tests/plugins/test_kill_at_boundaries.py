"""`kill -9` before and after each write to the journal and each effect, while two processes compete to take up the run.

`tests/bench/durability.py` does so with every pair of boundaries, too.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import killed_runs


@pytest.mark.parametrize(("kind", "every"), [("sqlite", 1), ("postgresql", 3)])
def test_a_run_killed_at_any_boundary_does_each_effect_once(
    kind: str, every: int, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}" if kind == "sqlite" else request.getfixturevalue("postgresql")
    killed_runs.create(url)
    found = asyncio.run(killed_runs.kill_at_each(url, every=every))
    assert found.good, found
    assert found.killed == found.runs == len(range(1, 35, every))
    if every == 1:  # from the commit of the intent to just before that of the result
        assert found.in_doubt == 4 * len(killed_runs.UNPROTECTED)


def test_who_takes_up_a_run_may_be_killed_as_well(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'journal.db'}"
    killed_runs.create(url)
    found = asyncio.run(killed_runs.kill_twice(url, every=61))
    assert found.good, found
    assert found.killed > found.runs
