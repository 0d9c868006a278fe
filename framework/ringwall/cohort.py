"""Who gets what is new: askers by group, and by a share in which everybody keeps its place."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

Cohort = Callable[[str], bool]
"""Says of an asker, by its grant (`user:ana`), whether it belongs to a group."""


def everybody(asker: str) -> bool:
    """The cohort of all."""
    return True


def place(name: str, asker: str) -> float:
    """Where an asker stands among all, from 0 to 100: always the same for the same `name`."""
    digest = hashlib.sha256(f"{name}\n{asker}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64 * 100


__all__ = ["Cohort", "everybody", "place"]
