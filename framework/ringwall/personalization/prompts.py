"""Prompts by name, with versions that never change and the stage that each is in, in one small file."""

from __future__ import annotations

import string
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, TypeAdapter

from ringwall.cohort import Cohort, everybody
from ringwall.errors import ConfigurationError, InvalidInput
from ringwall.keptfile import KeptFile
from ringwall.personalization.compose import DEFAULT_PROMPT, PROMPT_NAME, PromptTemplate
from ringwall.staging import Change, Stage, check_move, chosen, difference, moved

_FIELDS: Final = {
    "context": frozenset(("passages", "question")),
    "bare": frozenset(("question",)),
    "passage": frozenset(("number", "text")),
}


@dataclass(frozen=True, slots=True)
class Version:
    """A version of a prompt. `percent` of the askers get a canary. `note` says why it is there, or at its stage."""

    template: PromptTemplate
    stage: Stage = Stage.DRAFT
    percent: Annotated[float, Field(ge=0, le=100)] = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Book:
    """The file's content; `version` is that of its form."""

    version: Literal[1] = 1
    prompts: tuple[Version, ...] = ()
    history: tuple[Change, ...] = ()


_BOOK: Final = TypeAdapter(_Book)

Choice = Callable[[str], PromptTemplate]
"""Gives an asker, by its grant, the prompt that it gets."""


class PromptRegistry:
    """The prompts in the JSON file `path`, which need not be there yet, and those that come `bundled`.

    A bundled prompt is in production until another version of its name is. Each change is written whole or not at all,
    and other processes see it at their next run. Raises `ConfigurationError` when the file cannot be used.
    """

    def __init__(self, path: str | Path, *, bundled: Sequence[PromptTemplate] = (DEFAULT_PROMPT,)) -> None:
        self._bundled = tuple(Version(template, Stage.PRODUCTION) for template in bundled)
        self._file = KeptFile(path, _BOOK, _Book())

    def versions(self, name: str | None = None) -> tuple[Version, ...]:
        """All versions, or those of one prompt, in the order they were added. Raises `ConfigurationError` for none."""
        kept = self._file.read().prompts
        written_over = {v.template.name for v in kept if v.stage is Stage.PRODUCTION}
        taken = {(v.template.name, v.template.version) for v in kept}
        bundled = tuple(
            replace(v, stage=Stage.RETIRED) if v.template.name in written_over else v
            for v in self._bundled
            if (v.template.name, v.template.version) not in taken
        )
        found = tuple(v for v in (*bundled, *kept) if name in (None, v.template.name))
        if name is not None and not found:
            known = ", ".join(sorted({v.template.name for v in (*bundled, *kept)})) or "none"
            raise ConfigurationError(f"no prompt is named {name!r}", expected=f"one of: {known}")
        return found

    def find(self, name: str, version: str) -> Version:
        """One version. Raises `ConfigurationError`."""
        found = self.versions(name)
        for each in found:
            if each.template.version == version:
                return each
        known = ", ".join(each.template.version for each in found)
        raise ConfigurationError(f"prompt {name!r} has no version {version!r}", expected=f"one of: {known}")

    def history(self, name: str | None = None) -> tuple[Change, ...]:
        """What was done, oldest first."""
        return tuple(change for change in self._file.read().history if name in (None, change.name))

    def add(self, template: PromptTemplate, *, note: str = "") -> None:
        """Add a version as a draft. Raises `InvalidInput` for a template that could not be filled in.

        Raises `ConfigurationError` if the name has a version of that name: versions never change.
        """
        check_template(template)
        self._file.change(lambda book: self._with(book, template, note))

    def move(self, name: str, version: str, stage: Stage, *, percent: float = 0.0, note: str = "") -> None:
        """Bring a version to a stage; whichever was there is retired. `percent` of the askers get a canary.

        Raises `ConfigurationError` for a version that is not there, a canary for nobody, and for the production
        version, which leaves its stage only when another takes it.
        """
        found = self.find(name, version)
        check_move(f"{name}@{version}", found.stage, stage, percent)
        self._file.change(lambda book: _moved(book, Version(found.template, stage, percent, note)))

    def roll_back(self, name: str, *, note: str) -> None:
        """Retire the canary of a prompt, if there is one: from the next run on everybody gets what is in production."""
        for each in self.versions(name):
            if each.stage is Stage.CANARY:
                self.move(name, each.template.version, Stage.RETIRED, note=note)

    def diff(self, name: str, old: str, new: str) -> str:
        """What changed between two versions, line by line (a unified diff); empty if nothing did."""
        before, after = self.find(name, old).template, self.find(name, new).template
        return difference(_lines(before), _lines(after), (str(before), str(after)))

    def choice(self, name: str, *, cohort: Cohort = everybody) -> Choice:
        """Who gets which version, for `Compose(choice=...)`: the canary for its share of a cohort, else production.

        An asker is always of the same side for the same canary; with a larger percentage nobody who was in gets out.
        Raises `ConfigurationError` for a name that has nothing in production.
        """

        def choose(asker: str) -> PromptTemplate:
            found = chosen(self.versions(name), asker, cohort, lambda version: str(version.template))
            if found is None:
                raise ConfigurationError(f"no version of prompt {name!r} is in production", hint="bring one there")
            return found.template

        choose("")
        return choose

    def _with(self, book: _Book, template: PromptTemplate, note: str) -> _Book:
        for each in (*self._bundled, *book.prompts):
            if (each.template.name, each.template.version) == (template.name, template.version):
                raise ConfigurationError(f"{template} is there already", hint="a version never changes: choose another")
        change = Change(time.time(), template.name, template.version, Stage.DRAFT, note)
        return replace(book, prompts=(*book.prompts, Version(template, note=note)), history=(*book.history, change))


def check_template(template: PromptTemplate) -> None:
    """Raise `InvalidInput` for a name that could not stand in a journal, or a field that nothing is filled into."""
    if not PROMPT_NAME.fullmatch(str(template)):
        raise InvalidInput(
            f"a prompt named {str(template)!r}", expected="`name@version` of letters, digits, `.`, `_`, `-`"
        )
    for part, known in _FIELDS.items():
        try:
            used = {field for _, field, _, _ in string.Formatter().parse(getattr(template, part)) if field is not None}
        except ValueError as error:
            raise InvalidInput(f"{part} of {template} cannot be read: {error}") from None
        if not used <= known:
            raise InvalidInput(
                f"{part} of {template} asks for {', '.join(sorted(used - known))}",
                expected=f"only {', '.join(sorted(known))}; a brace that is meant is written twice",
            )


def _moved(book: _Book, version: Version) -> _Book:
    change = Change(time.time(), version.template.name, version.template.version, version.stage, version.note)
    prompts = moved(book.prompts, version, lambda each: (each.template.name, each.template.version))
    return replace(book, prompts=prompts, history=(*book.history, change))


def _lines(template: PromptTemplate) -> list[str]:
    parts = {part: getattr(template, part) for part in ("system", "context", "bare", "passage")}
    return [f"{part}: {line}" for part, text in parts.items() for line in text.splitlines()]


__all__ = ["Change", "Choice", "PromptRegistry", "Stage", "Version", "check_template"]
