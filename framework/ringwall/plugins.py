"""Find a plugin by name, through entry points, or say which extra installs it."""

from __future__ import annotations

from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from typing import Any

from ringwall.errors import ConfigurationError, UnknownPlugin

RINGS = (
    "data",
    "embeddings",
    "rerankers",
    "model",
    "model-files",
    "deployment",
    "guards",
    "personalization",
    "interface",
)
"""The entry-point groups are `ringwall.<ring>`."""


def find(ring: str, name: str) -> Any:
    """Load the plugin `name` of a ring: the class that its entry point names.

    Raises `UnknownPlugin` when nobody offers it, and when what it needs is not installed; the message names the
    extra to install.
    """
    if ring not in RINGS:
        raise ConfigurationError(f"there is no ring {ring!r}", expected=f"one of: {', '.join(RINGS)}")
    for entry in entry_points(group=f"ringwall.{ring}"):
        if entry.name == name:
            return _load(ring, entry)
    offered = ", ".join(names(ring)) or "none"
    raise UnknownPlugin(f"no {ring} plugin is named {name!r}", expected=f"one of: {offered}", hint=_extra_hint(name))


def names(ring: str) -> list[str]:
    """The names of the plugins of a ring that are known, whether or not what they need is installed."""
    return sorted(entry.name for entry in entry_points(group=f"ringwall.{ring}"))


def _load(ring: str, entry: EntryPoint) -> Any:
    try:
        return entry.load()
    except ModuleNotFoundError as error:
        raise UnknownPlugin(
            f"the {ring} plugin {entry.name!r} needs {error.name!r}, which is not installed",
            hint=_extra_hint(entry.module.removeprefix("ringwall_").partition(".")[0]),
        ) from error


def _extra_hint(name: str) -> str:
    try:
        extras = distribution("ringwall").metadata.get_all("Provides-Extra") or []
    except PackageNotFoundError:
        extras = []
    if name in extras:
        return f"pip install 'ringwall[{name}]'"
    return "install the distribution that offers it"
