"""Parses files in processes of their own, so that a bad one costs its own reading and no more."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Final, Self

from ringwall.errors import ConfigurationError
from ringwall_files import wire
from ringwall_files.faults import ParserDied, TooLarge, Unreadable
from ringwall_files.formats import FORMATS, INLINE, empty, known_suffix, named, parse_open
from ringwall_files.opening import measured, opened
from ringwall_files.parsed import Limits, Parsed

_START: Final = 60.0
"""Seconds until a process must have started."""

_KEPT: Final = ("PATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR")
"""The environment of a parser: no keys, no passwords."""


class Parser:
    """Parses untrusted files, each within `limits`, in at most `processes` child processes at a time.

    A process is started when it is needed, used again, and killed with the file it cannot cope with. Methods may
    be called from several threads. Use it as a context manager, or call `close`; one that nobody holds any more is
    closed. Sent to another process it is one of that process's own, with the same limits and one child.
    """

    def __init__(self, limits: Limits | None = None, *, processes: int = 1) -> None:
        if processes < 1:
            raise ConfigurationError(f"a parser with {processes} processes", expected="at least 1")
        self.limits = limits or Limits()
        self.processes = processes
        self._turns = threading.BoundedSemaphore(processes)
        self._idle: list[_Worker] = []
        weakref.finalize(self, _end_all, self._idle)

    def __reduce__(self) -> tuple[object, ...]:
        return _here, (self.limits,)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes; a later `parse` starts new ones."""
        _end_all(self._idle)

    def parse(self, path: str | Path) -> Parsed:
        """Parse one file.

        Raises `Unreadable`, `TooLarge` or `ParserDied`, all of them `InvalidInput`; `ConfigurationError` if the
        format's library is missing or no process can be started.
        """
        path = Path(path)
        with named(path.name):
            suffix = known_suffix(path)
            if not measured(path, self.limits.size):
                return empty(suffix)
            with opened(path, self.limits.size) as file:
                if FORMATS[suffix] in INLINE and os.fstat(file.fileno()).st_size <= self.limits.inline:
                    return parse_open(file, suffix, self.limits)
                with self._turns:
                    return self._elsewhere(file, suffix)

    def _elsewhere(self, file: BinaryIO, suffix: str) -> Parsed:
        worker = self._worker()
        try:
            result = worker.parse(file, suffix, self.limits)
        except Unreadable:
            self._idle.append(worker)
            raise
        except BaseException:
            worker.end()  # whatever is left in it
            raise
        self._idle.append(worker)
        return result

    def _worker(self) -> _Worker:
        """One that waits, or a new one; somebody else may have killed those that waited."""
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return _Worker()
            if worker.is_alive:
                return worker
            worker.end()


@lru_cache(maxsize=1)
def _here(limits: Limits) -> Parser:
    """The parser of a process that is sent one thing after the other to read: kept, so that its child is, too."""
    return Parser(limits)


def _end_all(workers: list[_Worker]) -> None:
    while workers:
        workers.pop().end()


class _Worker:
    """One child process."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "ringwall_files.worker", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=_environment(),
            )
        try:
            wire.receive(self._line, wire.LONGEST_QUESTION, time.monotonic() + _START)
        except (EOFError, OSError, ValueError) as error:
            self.end()
            raise ConfigurationError(
                "the process that parses files does not start", hint="look what `python -m ringwall_files.worker` says"
            ) from error

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def parse(self, file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
        deadline = time.monotonic() + limits.seconds
        try:
            self._line.settimeout(limits.seconds)
            socket.send_fds(self._line, [b"f"], [file.fileno()])
            wire.send(self._line, {"suffix": suffix, "limits": asdict(limits)})
            answer = wire.receive(self._line, limits.memory, deadline)
            if "missing" in answer:
                raise ConfigurationError(str(answer["missing"]), hint=str(answer.get("hint", "")))
            return wire.understood(answer)
        except TimeoutError as error:
            raise TooLarge("takes too long", expected=f"at most {limits.seconds:g} s on the clock") from error
        except (EOFError, OSError) as error:
            raise self._death(limits) from error
        except (ValueError, TypeError, LookupError) as error:
            raise ParserDied("made its parser answer nonsense") from error

    def _death(self, limits: Limits) -> TooLarge | ParserDied:
        """Why the process ended, when it ended by itself."""
        self._process.kill()  # in case that it only hung up
        code = self._process.wait()
        if code == -signal.SIGXCPU:
            return TooLarge("takes too much computing", expected=f"at most {limits.cpu} s of it")
        if code == wire.OUT_OF_MEMORY:
            return TooLarge("takes too much memory", expected=f"at most {limits.memory:,} bytes")
        ended = f"signal {-code}" if code < 0 else f"exit code {code}"
        return ParserDied(f"crashed its parser ({ended})", expected=f"a file that fits in {limits.memory:,} bytes")

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._line.close()


def _environment() -> dict[str, str]:
    """What this process finds on its path, that one must find too."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    # openpyxl imports numpy where it finds it, whose threads would take the memory of the parser.
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
