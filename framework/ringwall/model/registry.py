"""The models that a deployment may use: hosted, open, and its own, under one name each, in one small file.

A local file is pinned by its SHA-256, and opened through the registry only while it is that very file.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import Field, TypeAdapter, ValidationError

from ringwall.cohort import Cohort, everybody
from ringwall.errors import BadModelFile, ConfigurationError
from ringwall.model.entries import (
    Advance,
    Entry,
    Hosted,
    Kind,
    ModelFile,
    Name,
    Open,
    Origin,
    Own,
    sha256_of,
    unseen,
)
from ringwall.staging import Change, Stage, check_move, chosen, difference, moved


class FileState(StrEnum):
    """What became of a pinned file. `THERE` has the right size and was not read; `UNCHANGED` was, to the last byte."""

    THERE = "there"
    UNCHANGED = "unchanged"
    CHANGED = "changed"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a model (`name@version`) at its stage. `percent` of the askers get a canary; `note` says why."""

    entry: Entry
    stage: Stage = Stage.DRAFT
    percent: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a version stands that was moved; `model` is its whole name."""

    model: Name
    stage: Stage
    percent: Annotated[float, Field(ge=0, le=100)] = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Book:
    """The file's content. `version` is that of its form: a later one may know of more than one file for a name."""

    version: Literal[1] = 1
    models: tuple[Annotated[Entry, Field(discriminator="origin")], ...] = ()
    stages: tuple[_Place, ...] = ()
    history: tuple[Change, ...] = ()


_BOOK: Final = TypeAdapter(_Book)
_ENTRY: Final = TypeAdapter[Entry](Annotated[Entry, Field(discriminator="origin")])


class ModelRegistry:
    """The models named in the JSON file `path`, which need not be there yet, and those that come `bundled`.

    Each change is written whole or not at all, and waits for that of another process. Files in the registry's own
    folder are known by their path in it, so both can be moved together. Raises `ConfigurationError` when the file
    cannot be used.
    """

    def __init__(self, path: str | Path, *, bundled: Sequence[Open] = ()) -> None:
        self._path, self._bundled = Path(path).absolute(), tuple(bundled)

    def entries(self) -> tuple[Entry, ...]:
        """All models, by name."""
        return tuple(sorted((*self._bundled, *self._read().models), key=lambda entry: entry.name))

    def find(self, name: str) -> Entry:
        """The model of a name; of a name that has versions, the one in production. Raises `ConfigurationError`."""
        entries = {entry.name: entry for entry in self.entries()}
        if name in entries:
            return entries[name]
        if any(_split(other)[0] == name for other in entries):
            return self.choose(name, cohort=lambda asker: False)
        known = ", ".join(entries) or "none"
        raise ConfigurationError(f"no model is named {name!r}", expected=f"one of: {known}")

    def add(self, entry: Entry) -> None:
        """Add a model under a new name. Raises `ConfigurationError` for one that is taken, or that cannot be right."""
        _check(entry)
        name, version = _split(entry.name)

        def added(book: _Book) -> _Book:
            for other in (*self._bundled, *book.models):
                model, its_version = _split(other.name)
                if other.name == entry.name or (model == name and bool(version) != bool(its_version)):
                    raise ConfigurationError(f"a model is named {other.name!r} already", hint="choose another name")
            return replace(book, models=(*book.models, entry))

        self._change(added)

    def remove(self, name: str) -> None:
        """Forget a model; its file stays. Raises `ConfigurationError` if none has the name, or it came bundled."""
        gone = self.find(name)
        if gone in self._bundled:
            raise ConfigurationError(f"{name!r} is installed with its plugin, and not in {self._path}")
        if gone.name != name:
            raise ConfigurationError(f"{name!r} has versions", hint=f"remove one of them, such as {gone.name!r}")

        def removed(book: _Book) -> _Book:
            if any(at.model == name and at.stage is Stage.PRODUCTION for at in book.stages):
                raise ConfigurationError(f"{name} is in production", hint="bring another version there first")
            kept = tuple(entry for entry in book.models if entry.name != name)
            return replace(book, models=kept, stages=tuple(at for at in book.stages if at.model != name))

        self._change(removed)

    # Versions

    def versions(self, name: str | None = None) -> tuple[Version, ...]:
        """The versions of a model, or of all, each at its stage. Raises `ConfigurationError` for a name without."""
        book = self._read()
        places = {at.model: at for at in book.stages}
        found = [entry for entry in book.models if _split(entry.name)[1] and name in (None, _split(entry.name)[0])]
        if name is not None and not found:
            raise ConfigurationError(f"no model {name!r} has versions", expected=f"one that was added as `{name}@1`")
        return tuple(_standing(entry, places.get(entry.name)) for entry in found)

    def history(self, name: str | None = None) -> tuple[Change, ...]:
        """What was moved, oldest first."""
        return tuple(change for change in self._read().history if name in (None, change.name))

    def move(self, name: str, stage: Stage, *, percent: float = 0.0, note: str = "") -> None:
        """Bring a version (`qwen@2`) to a stage; whichever was there is retired. `percent` of the askers get a canary.

        Raises `ConfigurationError` as `ringwall.personalization.prompts.PromptRegistry.move` does.
        """
        model, version = _split(name)

        def moved_there(book: _Book) -> _Book:
            if not version or not any(entry.name == name for entry in book.models):
                raise ConfigurationError(f"no model {name!r}", expected="a version that was added, as `name@version`")
            at = next((each.stage for each in book.stages if each.model == name), Stage.DRAFT)
            check_move(name, at, stage, percent)
            stages = moved(book.stages, _Place(name, stage, percent, note), lambda each: _split(each.model))
            change = Change(time.time(), model, version, stage, note)
            return replace(book, stages=stages, history=(*book.history, change))

        self._change(moved_there)

    def choose(self, name: str, asker: str = "", *, cohort: Cohort = everybody) -> Entry:
        """The version that an asker gets: the canary for its share of a cohort, else the one in production.

        Raises `ConfigurationError` for a name that has nothing in production.
        """
        found = chosen(self.versions(name), asker, cohort, lambda version: version.entry.name)
        if found is None:
            raise ConfigurationError(f"no version of model {name!r} is in production", hint="bring one there")
        return found.entry

    def diff(self, old: str, new: str) -> str:
        """What is said otherwise of two models, line by line (a unified diff); empty if nothing is."""
        return difference(_lines(self.find(old)), _lines(self.find(new)), (old, new))

    # Files

    def path(self, name: str, advance: Advance = unseen) -> Path:
        """The file of a local model, for whoever loads it: a model, an adapter or a control vector.

        Reads every byte first. Raises `BadModelFile` if it is not the file that was pinned, or not there.
        """
        file = self._local(name).file
        found = sha256_of(file.path, advance)
        if found != file.sha256:
            raise BadModelFile(
                f"{file.path} is not the file that was pinned as {name!r}: its SHA-256 is {found}",
                expected=file.sha256,
                hint="copy the pinned file again, or remove the entry and add the new file if that is the one you want",
            )
        return file.path

    def state(self, name: str) -> FileState | None:
        """What is there of a model's file, at a glance; None for a hosted model, which has none."""
        entry = self.find(name)
        return None if isinstance(entry, Hosted) else _glance(entry.file)

    def verify(self, name: str, advance: Advance = unseen) -> FileState:
        """Read the file of a local model to the last byte, and say what became of it. Raises `BadModelFile`."""
        file = self._local(name).file
        state = _glance(file)
        if state is not FileState.THERE:
            return state
        return FileState.UNCHANGED if sha256_of(file.path, advance) == file.sha256 else FileState.CHANGED

    def _local(self, name: str) -> Open | Own:
        entry = self.find(name)
        if isinstance(entry, Hosted):
            raise ConfigurationError(f"{name!r} is hosted: it has no file", expected="the name of a local model")
        return entry

    def _read(self) -> _Book:
        folder = self._path.parent
        try:
            book = _BOOK.validate_json(self._path.read_bytes())
            return replace(book, models=tuple(_moved(entry, lambda path: folder / path) for entry in book.models))
        except FileNotFoundError:
            return _Book()
        except OSError as error:
            raise self._unusable(str(error.strerror)) from error
        except ValidationError as error:
            raise self._unusable(_first(error)) from error

    def _change(self, make: Callable[[_Book], _Book]) -> None:
        """Put what `make` makes of the file's content in its place; meanwhile nobody else changes it."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.with_name(f"{self._path.name}.lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._write(make(self._read()))
        except OSError as error:
            raise self._unusable(str(error.strerror)) from error

    def _write(self, book: _Book) -> None:
        """Write the file anew; whoever reads it sees the old or the new one."""
        folder, new = self._path.parent, self._path.with_name(f"{self._path.name}.new")
        kept = tuple(_moved(entry, lambda path: _within(folder, path)) for entry in book.models)
        with new.open("wb") as file:
            file.write(_BOOK.dump_json(replace(book, models=kept), indent=1))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)

    def _unusable(self, why: str) -> ConfigurationError:
        return ConfigurationError(
            f"the registry {self._path} cannot be used: {why}", expected="a JSON file that `ringwall models add` wrote"
        )


def _check(entry: Entry) -> None:
    """Raise `ConfigurationError` for an entry that could not be read again, or that tells a secret."""
    try:
        _ENTRY.validate_json(_ENTRY.dump_json(entry))
    except (ValidationError, ValueError) as error:
        why = _first(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigurationError(f"the model {entry.name!r} cannot be added: {why}") from error
    if isinstance(entry, Hosted) and not _is_plain(entry.base_url):
        raise ConfigurationError(
            f"the address of {entry.name!r} cannot be used",
            expected="`https://host/path`, without a user, a query or a fragment",
            hint="keep keys in the environment",
        )


def _split(name: str) -> tuple[str, str]:
    """What a model is called, and which version of it this is; empty for one without."""
    model, _, version = name.partition("@")
    return model, version


def _standing(entry: Entry, at: _Place | None) -> Version:
    return Version(entry) if at is None else Version(entry, at.stage, at.percent, at.note)


def _lines(entry: Entry) -> list[str]:
    return _ENTRY.dump_json(entry, indent=1).decode().splitlines()


def _is_plain(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not (set("@?#") & set(url))


def _moved(entry: Entry, move: Callable[[Path], Path]) -> Entry:
    """The entry with its file elsewhere."""
    return entry if isinstance(entry, Hosted) else replace(entry, file=replace(entry.file, path=move(entry.file.path)))


def _within(folder: Path, path: Path) -> Path:
    return path.relative_to(folder) if path.is_relative_to(folder) else path


def _glance(file: ModelFile) -> FileState:
    try:
        size = file.path.stat().st_size
    except OSError:
        return FileState.MISSING
    return FileState.THERE if size == file.bytes else FileState.CHANGED


def _first(error: ValidationError) -> str:
    """The first thing that is wrong, and where."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}".removeprefix(": ")


__all__ = [
    "Advance",
    "Entry",
    "FileState",
    "Hosted",
    "Kind",
    "ModelFile",
    "ModelRegistry",
    "Open",
    "Origin",
    "Own",
    "Version",
    "sha256_of",
    "unseen",
]
