"""Local engines as processes: each is started alone, is asked bursts of chats over a pipe, and ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import environments
from chat_times import Answer
from chats import Chat

HERE: Final = Path(__file__).resolve().parent
OURS: Final = "ringwall"
TUNED: Final = "ringwall-tuned"
ONE_BY_ONE: Final = "llama-cpp-python"
ITS_SERVER: Final = "its-server"
LLAMA_SERVER: Final = "llama-server"
FLOOR: Final = "bare-loop"


class EngineError(RuntimeError):
    """An engine's process ended, or was ended since it took too long; it has said why on standard error."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What came of chats that were asked at once."""

    answers: tuple[Answer, ...]
    counted: dict[str, int] = field(default_factory=dict)

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / max(answer.last for answer in self.answers)

    @property
    def firsts(self) -> list[float]:
        """Seconds to each chat's first token."""
        return [answer.first for answer in self.answers]


class Engine:
    """An engine's process, from its start to its end. Nothing of one start is left for the next."""

    def __init__(
        self, name: str, model: Path, *, threads: int, slots: int = 1, lookup: bool = False, patience: float = 900.0
    ) -> None:
        if name == LLAMA_SERVER:
            _ensure_environment()
        self.name, self._patience = name, patience
        setting = {"model": str(model), "threads": threads, "slots": slots, "lookup": lookup}
        self._popen = subprocess.Popen(
            [*_command(name), json.dumps(setting)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE)},
            start_new_session=True,  # so that a server that an engine started ends with it
        )
        try:
            self.about = str(self._reply()["about"])
        except BaseException:
            self._kill()
            raise

    def ask(self, chats: Sequence[Chat]) -> Burst:
        """Ask all of them at once. Raises `EngineError`, and for an answer without a token."""
        assert self._popen.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it ended: there is no reply either
            print(json.dumps([asdict(chat) for chat in chats]), file=self._popen.stdin, flush=True)
        reply = self._reply()
        burst = Burst(tuple(Answer(**answer) for answer in reply["answers"]), reply["counted"])
        if silent := sum(not answer.tokens for answer in burst.answers):
            raise EngineError(f"{self.name} left {silent} of {len(chats)} chats without an answer")
        return burst

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._popen.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(timeout=60)
        self._kill()
        self._popen.stdout.close()

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def _reply(self) -> dict[str, Any]:
        assert self._popen.stdout is not None
        impatient = threading.Timer(self._patience, self._kill)
        impatient.start()
        try:
            line = self._popen.stdout.readline()
        finally:
            impatient.cancel()
        if not line:
            raise EngineError(f"{self.name} ended with exit code {self._popen.wait()}")
        reply: dict[str, Any] = json.loads(line)
        return reply


def _command(name: str) -> list[str]:
    if name == LLAMA_SERVER:
        script = environments.PEERS / name / "chat_runs.py"
        return [str(environments.python_of(name)), "-W", "ignore", str(script), name]
    inside = OURS if name == TUNED else name
    return [sys.executable, "-W", "ignore", str(HERE / "chat_runs.py"), inside]


def _ensure_environment() -> None:
    if not environments.is_ready(LLAMA_SERVER):
        print(f"building the environment of {LLAMA_SERVER} …", file=sys.stderr)
        environments.build(LLAMA_SERVER)
