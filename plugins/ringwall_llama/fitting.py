"""Whether a model fits into this machine's memory, before anything of it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ringwall.errors import ConfigurationError
from ringwall.model.files import ModelFacts
from ringwall_llama.facts import facts_of

_WORKING: Final = 256 * 1024**2
"""What a computation takes besides weights and KV memory, at most, for models of usual width."""

_CGROUPS: Final = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
_IN_USE: Final = ("/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.usage_in_bytes")
_SMALLEST_BITS: Final = 2.0

_WINDOW: Final = 4096
_WINDOWS: Final = 4
_LEAST_CELLS: Final = 16_384
_CELLS_ALIGNED: Final = 256


def usual_room(facts: ModelFacts, context: int = _WINDOW, cells: int | None = None) -> tuple[int, int]:
    """The window of one request and the cells of all, of which there are four windows and 16,384 unless told.

    Raises `ConfigurationError` for fewer cells than one window takes.
    """
    window = min(context, facts.window or context)
    if cells is not None and cells < window:
        raise ConfigurationError(f"{cells} cells for a window of {window} tokens", expected="at least as many")
    wanted = cells or max(_WINDOWS * window, _LEAST_CELLS)
    return window, -(-wanted // _CELLS_ALIGNED) * _CELLS_ALIGNED


def require_room(path: Path, *, cells: int, window: int, available: int | None = None) -> None:
    """Raise `ConfigurationError` unless the weights and a KV memory of so many cells fit into what is free.

    `available` is in bytes: what the system says it could give, within the limits set to this process, by default.
    Where the system does not tell, everything fits.
    """
    free = available_bytes() if available is None else available
    facts = facts_of(path)
    needed = facts.bytes + cells * facts.kv_bytes + _WORKING
    if free is None or needed <= free:
        return
    raise ConfigurationError(
        f"{path.name} needs {_size(needed)}: {_size(facts.bytes)} of weights, {_size(cells * facts.kv_bytes)} for "
        f"{cells:,} tokens, and {_size(_WORKING)} to compute with",
        expected=f"at most {_size(free)}, which this machine has free",
        hint=_what_would(facts, free, window),
    )


def available_bytes() -> int | None:
    """Memory that could be had now; None if the system does not tell."""
    found = [size for size in (_available(), _limit()) if size is not None]
    return min(found) if found else None


def _what_would(facts: ModelFacts, free: int, window: int) -> str:
    left = free - facts.bytes - _WORKING
    tokens = left // max(facts.kv_bytes, 1) // 256 * 256
    if tokens >= 256:
        most = min(tokens, window)
        return f"`context={most}, cells={tokens}` would fit"
    bits = 8 * (free - _WORKING - 1024 * facts.kv_bytes) / max(facts.parameters, 1)
    if bits >= _SMALLEST_BITS:
        return f"a file of the same model with at most {bits:.1f} bits per weight would fit (this one: " + (
            f"{facts.bits_per_weight:.1f})"
        )
    return "choose a smaller model: no quantisation of this one would fit"


def _available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return sizes[0] if sizes else None


def _limit() -> int | None:
    """What is left of the limit that a container sets."""
    for limit, used in zip(_CGROUPS, _IN_USE, strict=True):
        try:
            return int(Path(limit).read_text(encoding="ascii")) - int(Path(used).read_text(encoding="ascii"))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return None


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count, 0) / 1e6:.0f} MB"
