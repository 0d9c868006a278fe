"""The same model, faster on this machine: the format whose kernels are quickest here, and what it costs in quality.

llama.cpp computes some quantisation formats with kernels that others do not have, so the same model may be read and
written twice as fast in another format of like size. Each candidate is made once and kept, measured in a process of
its own, and compared with the original on a text: what it is allowed to lose is said in advance.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import llama_cpp
from pydantic import TypeAdapter, ValidationError

from ringwall.errors import BadModelFile, ConfigurationError, InvalidInput
from ringwall.model.files import Progress, Quality, Speed, Trial, Tuned, TuneOptions, unseen
from ringwall.model.registry import sha256_of
from ringwall.schema import digest
from ringwall_llama.child import in_child
from ringwall_llama.facts import facts_of
from ringwall_llama.gguf import check_gguf

FORMATS: Final = ("Q4_0", "IQ4_NL", "Q8_0", "Q4_K_M")
"""The formats that a model can be made into; the last is slower on most machines, and not tried unasked."""

_TRIED: Final = FORMATS[:3]

_WORTH: Final = 0.95
"""Of the original's seconds: what saves less is within what two measurements differ."""

_MOST_BITS: Final = 9
"""Of a weight, in the largest format."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What was kept of the original to compare with: so many pieces of a text of so many tokens."""

    tokens: int
    pieces: int


T = TypeVar("T", Speed, Quality, Reference)

_DEFAULT: Final = TuneOptions()


def tune(
    path: Path, options: TuneOptions = _DEFAULT, progress: Progress = unseen, *, folder: Path | None = None
) -> Tuned:
    """Try formats of the model with numbers of threads; the best is the quickest that loses no more than it may.

    Without `options` of yours: Q4_0, IQ4_NL and Q8_0, each with all processors that this process may use and with half
    of them, on a text that comes with Python. The original is best unless another saves a twentieth of its time.

    What is made and measured is kept in `folder` (the user's cache by default), by the SHA-256 of the original, the
    version of llama.cpp and the processor, and not done again. Takes minutes, and is right only while the machine does
    nothing else; a second tuning waits for the first. Raises `BadModelFile`, `InvalidInput` for options that cannot be
    tried, and `ConfigurationError` when the folder cannot be used.
    """
    check_gguf(path)
    _check(options)
    try:
        with _Home.of(path, folder, progress) as home:
            trials = [*_Tuning(path, options, home, progress).trials()]
    except OSError as error:
        raise ConfigurationError(f"what is made cannot be kept: {error}", hint="name a folder of yours") from error
    good = [trial for trial in trials if trial.is_good(options.most_kl)]
    best = min(good, key=lambda trial: trial.speed.seconds)
    original = min((trial for trial in good if not trial.format), key=lambda trial: trial.speed.seconds)
    return Tuned(best if best.speed.seconds < _WORTH * original.speed.seconds else original, tuple(trials))


class _Tuning:
    """All that is tried of one model."""

    def __init__(self, path: Path, options: TuneOptions, home: _Home, progress: Progress) -> None:
        self._path, self._home, self._progress = path, home, progress
        self._formats = options.formats or _TRIED
        self._counts = options.threads or _counts()
        self._text = options.text or bundled_text()
        self._done, self._all = 0, len(self._counts) + len(self._formats) * (2 + len(self._counts))

    def trials(self) -> Iterator[Trial]:
        compared = [(format, *self._compared(format)) for format in self._formats]
        for format, file, quality in (("", self._path, None), *compared):
            yield from self._timed(format, file, quality)

    def _compared(self, format: str) -> tuple[Path, Quality]:
        self._now(f"making {format}")
        file = made(self._path, format, self._home.folder)
        self._now(f"comparing {format} with the original")
        return file, self._quality(format, file)

    def _timed(self, format: str, file: Path, quality: Quality | None) -> Iterator[Trial]:
        for count in self._counts:
            name = format or "original"
            self._now(f"measuring {name}, {count} threads")
            speed = self._home.kept(f"speed-{name}-{count}", Speed, file, count)
            yield Trial(format, file, file.stat().st_size, count, speed, quality)

    def _quality(self, format: str, file: Path) -> Quality:
        """How the format compares; what the original says of the text is computed once for all formats."""
        name, reference = f"quality-{format}-{digest(self._text)[:16]}", self._home.reference
        if self._home.known(name, Quality) is None and not reference.exists():
            self._keep_original(reference)
        return self._home.kept(name, Quality, file, reference, text=self._text)

    def _keep_original(self, reference: Path) -> None:
        reference.mkdir()
        made = measured(Reference, self._path, reference, text=self._text)
        if not made.pieces:
            raise InvalidInput(
                f"the text is too short to compare on: {made.tokens} tokens",
                expected="at least 256 tokens, which is about 1,000 characters",
            )

    def _now(self, what: str) -> None:
        self._progress(what, self._done / self._all)
        self._done += 1


@dataclass(frozen=True, slots=True)
class _Home(contextlib.AbstractContextManager["_Home"]):
    """The folder of what was made and measured of one model, while nobody else tunes in the same cache."""

    folder: Path
    lock: int

    @classmethod
    def of(cls, path: Path, folder: Path | None, progress: Progress) -> _Home:
        cache = folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ringwall" / "models"
        home = cache / sha256_of(path)
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(home)
        lock = os.open(cache, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another tuning", 0.0)
            fcntl.flock(lock, fcntl.LOCK_EX)
        return cls(home, lock)

    @property
    def reference(self) -> Path:
        """Where what the original says of a text is kept while formats are compared with it."""
        return self.folder / "reference"

    def __enter__(self) -> _Home:
        shutil.rmtree(self.reference, ignore_errors=True)  # of a tuning that was killed
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.reference, ignore_errors=True)
        os.close(self.lock)

    def kept(self, name: str, kind: type[T], *asked: object, text: str = "") -> T:
        """What was measured before, or is now."""
        known = self.known(name, kind)
        if known is None:
            known = measured(kind, *asked, text=text)
            new = self.folder / "measured.new"
            new.write_bytes(TypeAdapter(kind).dump_json(known))
            new.replace(self._file(name))
        return known

    def known(self, name: str, kind: type[T]) -> T | None:
        """What was measured before, if it was, and can be read."""
        try:
            return TypeAdapter(kind).validate_json(self._file(name).read_bytes())
        except (OSError, ValidationError):
            return None

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}-{_machine()}.json"


def made(path: Path, format: str, folder: Path) -> Path:
    """The model in another format, made if it is not there, whole.

    Raises `BadModelFile`, and `ConfigurationError` when there is no room for it.
    """
    target, new = folder / f"{path.stem}-{format}.gguf", folder / "made.new"
    with contextlib.suppress(BadModelFile):
        check_gguf(target)
        return target
    needed, free = facts_of(path).parameters * _MOST_BITS // 8, shutil.disk_usage(folder).free
    if free < needed:
        raise ConfigurationError(
            f"no room in {folder} for {path.name} as {format}: {free / 1e6:,.0f} MB are free",
            expected=f"{needed / 1e6:,.0f} MB",
            hint="make room, or let XDG_CACHE_HOME name another folder",
        )
    try:
        in_child("measuring", "requantise", path, new, format)
        check_gguf(new)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
    return target


def measured(kind: type[T], *asked: object, text: str = "") -> T:
    """Measure it now, in a process of its own. Raises `BadModelFile`."""
    return TypeAdapter(kind).validate_json(in_child("measuring", kind.__name__.lower(), *asked, text=text))


def bundled_text() -> str:
    """A text to compare on: what Python's own help says, which is wherever Python is."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))[:60_000]


def _check(options: TuneOptions) -> None:
    if unknown := set(options.formats) - set(FORMATS):
        raise InvalidInput(f"the format {min(unknown)!r}", expected=f"one of {', '.join(FORMATS)}")
    if any(count < 1 for count in options.threads):
        raise InvalidInput(f"{min(options.threads)} threads", expected="at least 1")


def _require_private(home: Path) -> None:
    """Raise `ConfigurationError` if somebody else could have put a file here, or could read what is made."""
    stat = home.stat()
    if stat.st_uid != os.getuid() or stat.st_mode & 0o077:
        raise ConfigurationError(
            f"{home} is open to others", expected="a folder of yours, with the mode 700", hint=f"remove {home}"
        )


def _counts() -> tuple[int, ...]:
    """All processors that this process may use, and half of them: two threads of one core are in each other's way."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return tuple(dict.fromkeys((count, max(1, count // 2))))


def _machine() -> str:
    """What a speed is true of: the processor, and the program that uses it."""
    info = llama_cpp.llama_print_system_info().decode("utf-8", "replace")
    return digest(f"{llama_cpp.__version__} {info} {_processor()} {_counts()}")[:16]


def _processor() -> str:
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line for line in lines if line.startswith("model name"))
    return platform.processor()
