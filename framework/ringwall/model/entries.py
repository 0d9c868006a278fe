"""What is written down of a model: hosted, open, or one's own, each under one name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field

from ringwall.errors import BadModelFile
from ringwall.model.base import Price

_BLOCK: Final = 2**20

_FREE: Final = Price()

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._-]*)?$"
"""`qwen`, or a version of it: `qwen@2`."""

Name = Annotated[str, Field(pattern=_NAME)]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

Said = Annotated[str, Field(min_length=1)]

Advance = Callable[[int], None]
"""Is told how many bytes more were read."""


def unseen(count: int) -> None:
    """Tells nobody."""


class Origin(StrEnum):
    """Who made a model, or runs it."""

    HOSTED = "hosted"
    OPEN = "open"
    OWN = "own"


class Kind(StrEnum):
    """What a file of one's own is: a whole model, or what shapes the replies of its base."""

    MODEL = "model"
    ADAPTER = "adapter"
    CONTROL = "control"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A file as it was when it was pinned."""

    path: Path
    sha256: Sha256
    bytes: Annotated[int, Field(gt=0)]

    @classmethod
    def pinned(cls, path: str | Path, advance: Advance = unseen) -> ModelFile:
        """The file as it is now. Reads every byte. Raises `BadModelFile` if it cannot be read."""
        path = Path(path).absolute()
        digest = sha256_of(path, advance)
        return cls(path, digest, path.stat().st_size)


@dataclass(frozen=True, slots=True)
class Hosted:
    """A model that runs elsewhere: `provider` is the plugin that speaks to it, `model` its name there.

    `terms` are those under which it may be used. Its key is nobody's business here: it belongs into the environment.
    """

    name: Name
    provider: Said
    model: Said
    base_url: str
    window: Annotated[int, Field(gt=0)]
    price: Price = _FREE
    terms: str = ""
    origin: Literal[Origin.HOSTED] = Origin.HOSTED


@dataclass(frozen=True, slots=True)
class Open:
    """A model that others made and anybody may have: under which `licence`, and from where (`source`)."""

    name: Name
    file: ModelFile
    licence: Said
    source: Said
    origin: Literal[Origin.OPEN] = Origin.OPEN


@dataclass(frozen=True, slots=True)
class Own:
    """A model, adapter or control vector made here: of which `base`, by which `recipe`, from data with which hash."""

    name: Name
    file: ModelFile
    base: Said
    recipe: Said
    data_sha256: Sha256
    kind: Kind = Kind.MODEL
    origin: Literal[Origin.OWN] = Origin.OWN


Entry = Hosted | Open | Own


def sha256_of(path: Path, advance: Advance = unseen) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises `BadModelFile` if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                advance(len(block))
    except OSError as error:
        raise BadModelFile(f"{path} cannot be read: {error.strerror}", hint="check the path") from error
    return digest.hexdigest()
