"""Files of local models: what is known of one, what it costs to run, and what making it faster costs.

What reads and measures them is a plugin: subclass `ModelFiles`, and name it in the entry-point group
`ringwall.model-files`. `ringwall models` shows what it says.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringwall.model.registry import Open

MOST_KL: Final = 0.05
"""The divergence from the original, in nats a token, that a format may have unless told otherwise."""

_PROMPT_SHARE: Final = 512
_REPLY_SHARE: Final = 64
_TOGETHER: Final = 8


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of a model from its file's header alone.

    `parameters` counts the elements of all tensors, `bits_per_weight` what one takes in the file. `kv_bytes` is what a
    token takes in the KV memory (f16): for each layer its keys and values. `flops` is what computing one token
    takes without attention, 2 for each weight that it is multiplied with, and `flops_per_context` what each token
    before it adds: `4 * layers * heads * head size` (the forward third of PaLM's, arXiv 2204.02311, appendix B). An
    embedding counts only if it is the output too; of experts those that are used count.
    """

    name: str
    architecture: str
    licence: str
    bytes: int
    quantisation: str
    parameters: int
    bits_per_weight: float
    window: int
    layers: int
    kv_bytes: int
    flops: int
    flops_per_context: int

    def flops_at(self, context: int) -> int:
        """Floating-point operations of one token after `context` others."""
        return self.flops + self.flops_per_context * context


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
    Kullback-Leibler divergence of the format's distribution from the original's, in nats a token, and `kl_error` the
    standard error of that mean; `agreement` how often both find the same token likeliest.
    """

    perplexity: float
    original: float
    kl: float
    kl_error: float
    agreement: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A format and a number of threads, measured; `format` is empty, and `quality` None, for the original."""

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


Progress = Callable[[str, float], None]
"""Is told what is being done, and how much of all is done already: 0 to 1."""


def unseen(what: str, done: float) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """What is tried, none meaning the plugin's own choice, and the `most_kl` that may be lost, on which `text`."""

    formats: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    most_kl: float = MOST_KL
    text: str = ""


class ModelFiles(ABC):
    """Tools on the files of local models of one format; made without arguments."""

    @abstractmethod
    def bundled(self) -> Sequence[Open]:
        """The models that are installed with the plugin, pinned by what installed them."""

    @abstractmethod
    def facts(self, path: Path) -> ModelFacts:
        """Read a file's header. Raises `BadModelFile`."""

    @abstractmethod
    def require_room(self, path: Path) -> None:
        """Raise `ConfigurationError`, saying what would, unless the model fits into the memory that is free now."""

    @abstractmethod
    def tune(self, path: Path, options: TuneOptions, progress: Progress = unseen) -> Tuned:
        """Find what is fastest on this machine and loses no more than it may.

        Raises `BadModelFile`, `ConfigurationError`, and `InvalidInput` for options that cannot be tried.
        """
