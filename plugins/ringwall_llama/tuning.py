"""The same model, faster on this machine: the format whose kernels are quickest here, and what it costs in quality.

llama.cpp computes some quantisation formats with kernels that others do not have, so the same model may be read and
written twice as fast in another format of like size. Each candidate is made once and kept, measured in a process of
its own, and compared with the original on a text: what it is allowed to lose is said in advance.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal, TypeVar, get_args

from ringwall.errors import ConfigurationError
from ringwall_llama.child import in_child
from ringwall_llama.gguf import check_gguf

Format = Literal["Q4_0", "IQ4_NL", "Q8_0", "Q4_K_M"]
"""A quantisation format that a model can be made into."""

MOST_KL: Final = 0.05
"""The divergence from the original, in nats a token, that a format may have unless told otherwise."""

_BLOCK: Final = 2**20
_PROMPT_SHARE: Final = 512
_REPLY_SHARE: Final = 64
_TOGETHER: Final = 8


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second: of a prompt of 512 that is read, of one reply, and of eight replies at once."""

    read: float
    one: float
    eight: float

    @property
    def seconds(self) -> float:
        """For a burst of eight requests: a prompt of 512 tokens that they share, and 64 tokens for each."""
        return _PROMPT_SHARE / self.read + _TOGETHER * _REPLY_SHARE / self.eight


@dataclass(frozen=True, slots=True)
class Quality:
    """What a format says of a text beside the original.

    `perplexity` is the exponential of the mean surprise at the next token, `original` the original's; `kl` the mean
    Kullback-Leibler divergence of its distribution from the original's, in nats a token; `agreement` how often both
    find the same token likeliest.
    """

    perplexity: float
    original: float
    kl: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A format and a number of threads, measured; `format` is empty for the original."""

    format: str
    path: Path
    bytes: int
    threads: int
    speed: Speed
    quality: Quality | None

    def is_good(self, most_kl: float) -> bool:
        """Whether it loses no more than it may."""
        return self.quality is None or self.quality.kl <= most_kl


@dataclass(frozen=True, slots=True)
class Tuned:
    """The best of what was tried, and all of it."""

    best: Trial
    trials: tuple[Trial, ...]

    @property
    def original(self) -> Trial:
        return min((trial for trial in self.trials if not trial.format), key=lambda trial: trial.speed.seconds)


T = TypeVar("T", Speed, Quality)

Progress = Callable[[str], None]
"""Is told what is being done."""


def tune(
    path: Path,
    *,
    folder: Path | None = None,
    formats: Sequence[Format] = ("Q4_0", "IQ4_NL", "Q8_0"),
    threads: Sequence[int] = (),
    most_kl: float = MOST_KL,
    text: str = "",
    progress: Progress = lambda _: None,
) -> Tuned:
    """Try `formats` of the model with so many `threads`, and return the quickest that loses no more than `most_kl`.

    What is made and measured is kept in `folder` (the user's cache by default) by the SHA-256 of the original, and not
    done again; another text is compared anew. Takes minutes, and is right only while the machine does nothing else.
    Raises `BadModelFile`, and `ConfigurationError` when the folder cannot be used.
    """
    check_gguf(path)
    home = _home(folder, path)
    counts = tuple(threads) or _counts()
    text = text or bundled_text()
    trials: list[Trial] = []
    for format in ("", *formats):
        if format:
            progress(f"making {format}")
        file = made(path, format, home) if format else path
        progress(f"comparing {format}" if format else "measuring the original")
        quality = _kept(home, f"quality-{format}-{_short(text)}", Quality, file, path, text=text) if format else None
        for count in counts:
            speed = _kept(home, f"speed-{format or 'original'}-{count}", Speed, file, count)
            trials.append(Trial(format, file, file.stat().st_size, count, speed, quality))
    good = [trial for trial in trials if trial.is_good(most_kl)]
    return Tuned(min(good, key=lambda trial: trial.speed.seconds), tuple(trials))


def made(path: Path, format: str, folder: Path) -> Path:
    """The model in another format, made if it is not there. Raises `BadModelFile`."""
    if format not in get_args(Format):
        raise ConfigurationError(f"the format {format!r}", expected=f"one of {', '.join(get_args(Format))}")
    target = folder / f"{path.stem}-{format}.gguf"
    if not target.exists():
        new = target.with_suffix(".new")
        in_child("measuring", "requantise", path, new, format)
        check_gguf(new)
        new.replace(target)
    return target


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def bundled_text() -> str:
    """A text to compare on: what Python's own help says, which is wherever Python is."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))[:60_000]


def _home(folder: Path | None, path: Path) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    home = (folder or cache / "ringwall" / "models") / sha256_of(path)[:16]
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"what is made cannot be kept in {home}: {error.strerror}") from error
    return home


def _counts() -> tuple[int, ...]:
    """All processors that this process may use, and half of them: two threads of one core are in each other's way."""
    count = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return tuple(dict.fromkeys((count, max(1, count // 2))))


def _kept(home: Path, name: str, kind: type[T], *asked: object, text: str = "") -> T:
    """What was measured before, or is now."""
    file = home / f"{name}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return kind(**json.loads(file.read_text(encoding="utf-8")))
    measured = kind(**json.loads(in_child("measuring", kind.__name__.lower(), *asked, text=text)))
    file.write_text(json.dumps(asdict(measured)), encoding="utf-8")
    return measured


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
