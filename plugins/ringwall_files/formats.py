"""Which parser reads which files; each is imported when its first file comes."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Final

from ringwall.errors import ConfigurationError, InvalidInput
from ringwall_files.faults import TooLarge, Unreadable
from ringwall_files.opening import check_beginning, measured, opened
from ringwall_files.parsed import Limits, Parsed

_CODE: Final = (  # noqa: SIM905
    ".c .cc .cpp .cs .go .h .hpp .java .js .jsx .kt .lua .php .py .r .rb .rs .scala .sh .sql .swift .ts .tsx"
).split()

FORMATS: Final[Mapping[str, str]] = {
    ".txt": "plain",
    ".md": "plain",
    ".csv": "tables",
    ".tsv": "tables",
    ".json": "records",
    ".jsonl": "records",
    ".html": "html",
    ".htm": "html",
    ".eml": "mail",
    ".pdf": "pdf",
    ".docx": "word",
    ".pptx": "slides",
    ".xlsx": "sheets",
    **dict.fromkeys(_CODE, "plain"),
}
"""The suffixes of files that are read, and the module that reads them."""

INLINE: Final = frozenset(("plain", "tables", "records"))
"""The modules that need no process of their own: the standard library's parsers, bounded by size."""


def parse(path: str | Path, limits: Limits | None = None) -> Parsed:
    """Parse a file in this process: for files that you trust.

    Only the bounds of `Limits` that need no other process hold: `size`, `unpacked`, `ratio`, `characters`.
    Raises `Unreadable` or `TooLarge`, both `InvalidInput`; `ConfigurationError` if the format's library is missing.
    """
    path, limits = Path(path), limits or Limits()
    with named(path.name):
        suffix = known_suffix(path)
        if not measured(path, limits.size):
            return empty(suffix)
        with opened(path, limits.size) as file:
            return parse_open(file, suffix, limits)


def known_suffix(path: Path) -> str:
    """Return the suffix in small letters; raise `Unreadable` for one that no parser reads."""
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise Unreadable(f"has the suffix {suffix!r}, which is not read", expected=f"one of {', '.join(FORMATS)}")
    return suffix


def empty(suffix: str) -> Parsed:
    """What a file without a byte is: a text without words, or no file of its format."""
    check_beginning(io.BytesIO(), suffix)
    return Parsed("")


def parse_open(file: BinaryIO, suffix: str, limits: Limits) -> Parsed:
    """Parse an open file as what its suffix says; nothing but Ringwall's errors comes out of it."""
    try:
        module = import_module(f"ringwall_files.{FORMATS[suffix]}")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{suffix} files need {error.name!r}, which is not installed", hint="pip install 'ringwall[files]'"
        ) from error
    try:
        check_beginning(file, suffix)
        result: Parsed = module.read(file, suffix, limits)
    except (InvalidInput, ConfigurationError):
        raise
    except MemoryError as error:
        raise TooLarge("takes too much memory", expected=f"at most {limits.memory:,} bytes") from error
    except RecursionError as error:
        raise Unreadable("is nested too deeply", expected="a file that people made") from error
    except Exception as error:
        raise Unreadable(f"cannot be parsed: {type(error).__name__}", expected=f"a whole {suffix} file") from error
    return result


@contextmanager
def named(name: str) -> Iterator[None]:
    """Say of which file an error speaks."""
    try:
        yield
    except InvalidInput as error:
        raise type(error)(f"{name!r} {error.what}", expected=error.expected, hint=error.hint) from error
