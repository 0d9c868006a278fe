"""How much work a governed run is, in function calls: noise cannot touch them, so a guard can.

The limits are a little above what was counted; whoever makes a run dearer on purpose raises them and says why.
"""

from __future__ import annotations

import pytest

import ringwall_runs
from harness import count_calls

# Six to eight of each are for the lease: that this process carries the run on, from when to when, and its deadline.
# Of `rag`, 15 are those of the labels and the asker that go along with a request, and of what the reply cost.
LIMITS = {"rag": 623, "agent_without_documents": 890, "agent": 1058, "agent_sqlite_normal": 1750}


@pytest.mark.parametrize("run", LIMITS)
def test_a_governed_run_takes_no_more_calls_than_it_did(run: str) -> None:
    assert count_calls(ringwall_runs.runs()[run]) <= LIMITS[run]
