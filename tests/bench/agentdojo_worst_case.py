"""AgentDojo, the model fully hijacked: `python tests/bench/agentdojo_worst_case.py`, JSON lines, verdicts last.

AgentDojo v1.2.2, all suites: 97 tasks of users, 949 pairs of a task and an attack. No model takes part: in its place
the true calls of the user's task are played, and the attacker's calls as soon as injected text was read (`inject`), at
the end (`late`), or also in place of the arguments of the user's own calls (`hijack`). Every call passes the gates of
an `App`, under a policy of a few lines and what is said of each tool once (`peers/agentdojo/dojo_tools.py`).
AgentDojo's own checkers say whether the task was done and whether the attack succeeded; beside them, each effect that
the user's task does not call for is counted, whether a checker looks for it or not.

AgentDojo lives in an environment of its own, built at the first run. Exits with 1 where a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import environments

HERE: Final = Path(__file__).resolve().parent
PEER: Final = "agentdojo"
GROUPS: Final = ("workspace", "banking,travel,slack")
"""Suites that share a process: about as much work in each."""

Row = dict[str, Any]
Rows = dict[tuple[str, str, str], Counter[str]]
"""What was counted, by setting, mode and part (`tools`, `inside`, `text`)."""


def rows_of(suites: str, arguments: Sequence[str]) -> list[Row]:
    """Play suites in the environment of AgentDojo; a row for each setting, mode and part."""
    script = environments.PEERS / PEER / "worst_case.py"
    command = [str(environments.python_of(PEER)), "-W", "ignore", str(script), "--suites", suites, *arguments]
    path = os.pathsep.join((str(environments.ROOT / "framework"), str(HERE)))
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def played(suites: Sequence[str], arguments: Sequence[str]) -> list[Row]:
    """Play all suites, two processes at a time."""
    with ThreadPoolExecutor(2) as pool:
        return [row for rows in pool.map(lambda some: rows_of(some, arguments), suites) for row in rows]


def summed(rows: Sequence[Row]) -> Rows:
    """Add up the rows of all suites."""
    total: Rows = defaultdict(Counter)
    for row in rows:
        counts = {name: value for name, value in row.items() if isinstance(value, int)}
        total[row["setting"], row["mode"], row["part"]].update(counts)
    return total


def figures(rows: Rows) -> Iterator[Row]:
    """A line for each setting, mode and part, with shares beside the counts."""
    for (setting, mode, part), row in rows.items():
        shares = {
            f"{name}_share": round(row[name] / row["n"], 4)
            for name in ("utility", "success", "unauthorised", "unasked")
        }
        yield {"setting": setting, "mode": mode, "part": part, **row, **shares}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", help="some of the settings, with commas between")
    parser.add_argument("--modes", help="some of the modes")
    parser.add_argument("--suites", help="some of the suites")
    given = parser.parse_args()
    if not environments.is_ready(PEER):
        print(f"building the environment of {PEER} …", file=sys.stderr)
        environments.build(PEER)
    arguments = [
        text for name in ("settings", "modes") if getattr(given, name) for text in (f"--{name}", getattr(given, name))
    ]
    rows = played([given.suites] if given.suites else GROUPS, arguments)
    for row in rows:
        print(json.dumps(row), flush=True)
    for line in figures(summed(rows)):
        print(json.dumps({"suite": "all", **line}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
