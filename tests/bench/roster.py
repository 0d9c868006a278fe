"""Who is measured, and the driver's end of the pipe to each: `subject.py` holds the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import environments
from harness import Bursts, Samples

HERE: Final = Path(__file__).resolve().parent
BARE: Final = "bare-python"
RINGWALL: Final = "ringwall"
AGENT_FRAMEWORK: Final = "agent-framework"
LANGGRAPH: Final = "langgraph"
PEERS: Final = ("semantic-kernel", AGENT_FRAMEWORK, "haystack", LANGGRAPH)


class SubjectError(RuntimeError):
    """A subject's process ended when it should have replied; it has said why on standard error."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A framework to measure: its script, and the interpreter that can import what the script needs."""

    name: str
    script: Path
    python: Path

    def start(self) -> Process:
        """Start the subject's process and hear what it offers."""
        return Process(self)


def subject(name: str) -> Subject:
    """Describe a subject by name."""
    if name in PEERS:
        return Subject(name, HERE / "peers" / name / "runs.py", environments.python_of(name))
    script = {BARE: "bare_runs.py", RINGWALL: "ringwall_runs.py"}[name]
    return Subject(name, HERE / script, Path(sys.executable))


class Process:
    """A subject's running process; it does nothing between one request's reply and the next request."""

    def __init__(self, subject: Subject) -> None:
        self.name = subject.name
        self._popen = subprocess.Popen(
            [str(subject.python), "-W", "ignore", str(subject.script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        hello = self._reply()
        self.python: str = hello["python"]
        self.packages: dict[str, str] = hello["packages"]
        self.runs: list[str] = hello["runs"]
        self.bursts: list[str] = hello["bursts"]

    def sample(self, run: str, *, seconds: float) -> Samples:
        """Sample one run at a time for so many seconds."""
        return Samples(**self._ask(measure="sample", run=run, seconds=seconds))

    def burst(self, run: str, *, seconds: float) -> Bursts:
        """Send bursts of concurrent runs for so many seconds."""
        return Bursts(**self._ask(measure="burst", run=run, seconds=seconds))

    def calls(self, run: str) -> int:
        """Count the function calls of a run."""
        return int(self._ask(measure="calls", run=run, seconds=0)["calls"])

    def close(self) -> None:
        """Let the process close its runs and end."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._popen.wait(timeout=60)

    def _ask(self, **request: object) -> dict[str, Any]:
        assert self._popen.stdin is not None
        print(json.dumps(request), file=self._popen.stdin, flush=True)
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        line = self._popen.stdout.readline()
        if not line:
            raise SubjectError(f"{self.name} ended with exit code {self._popen.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply


def _environment() -> dict[str, str]:
    """Give each process the shared modules, and a real disk: on a RAM disk, durability is free."""
    scratch = environments.CACHE / "scratch"
    return {**os.environ, "PYTHONPATH": str(HERE), "PYTHONHASHSEED": "0", "TMPDIR": str(scratch)}
