"""How guards are run: in their order, each with its time, whole or piece by piece, and closed when one fails."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from ringwall.deployment.guard import Crossing, Guard, Passing, Ruling
from ringwall.deployment.runlog import RunLog
from ringwall.errors import ConfigurationError, GuardRefused
from ringwall.label import BOTTOM, Label
from ringwall.schema import JSON

_WORD: Final = re.compile(r"[a-z][a-z0-9_-]{0,39}")


class Guards:
    """The guards of an app, by where they stand, in the order given. Raises `ConfigurationError` for a bad name."""

    def __init__(self, guards: Sequence[Guard] = ()) -> None:
        names = [guard.name for guard in guards]
        for name in names:
            if not _WORD.fullmatch(name) or names.count(name) > 1:
                raise ConfigurationError(
                    f"a guard is named {name!r}", expected="a word of small letters, digits, - and _, used once"
                )
        self._all = tuple(guards)
        self.some = bool(guards)
        """Whether there are any; said beforehand, since every run asks."""
        self._at = {crossing: tuple(g for g in guards if crossing in g.crossings) for crossing in Crossing}
        self.questioned = bool(self._at[Crossing.QUESTION])
        """Whether any stand at the question."""

    def at(self, crossing: Crossing) -> tuple[Guard, ...]:
        """Those that stand at a crossing."""
        return self._at[crossing]

    async def close(self) -> None:
        """Close them in reverse order."""
        for guard in reversed(self._all):
            await guard.close()


@dataclass(slots=True)
class _Tally:
    """What one guard did at one crossing."""

    guard: Guard
    seconds: float = 0.0
    texts: int = 0
    did: str = "passed"
    found: dict[str, int] = field(default_factory=dict)

    def add(self, ruling: Ruling, text: str) -> None:
        for kind, count in ruling.found.items():
            known = kind if _WORD.fullmatch(kind) else "other"
            self.found[known] = self.found.get(known, 0) + count
        if ruling.refused:
            self.did = "refused"
        elif ruling.text != text:
            self.did = "rewrote"

    def to_json(self) -> JSON:
        return {
            "guard": self.guard.name,
            "did": self.did,
            "found": dict(sorted(self.found.items())),
            "texts": self.texts,
            "ms": round(self.seconds * 1e3, 3),
        }


class RunGuards:
    """The guards of an app in one run: what they keep, and what they may look up."""

    def __init__(self, guards: Guards, log: RunLog, words: Callable[[], Sequence[str]] = tuple) -> None:
        self.guards, self.log, self.words = guards, log, words
        self._kept: dict[str, dict[str, str]] = {}

    def kept_by(self, guard: Guard) -> dict[str, str]:
        """A guard's own memory of this run."""
        return self._kept.setdefault(guard.name, {})

    def at(self, crossing: Crossing, *, receiver: str, remote: bool = False) -> Passage | None:
        """A passage through the guards that stand there; None if none do."""
        guards = self.guards.at(crossing)
        return Passage(self, crossing, guards, receiver=receiver, remote=remote) if guards else None


class Passage:
    """One crossing: any number of texts through the same guards, told in one event when it is `close`d.

    `label` is the join of what the texts carry: what was found in them is for their readers to know. `suspects` are the
    sources that its guards added to the run's label.
    """

    def __init__(
        self, run: RunGuards, crossing: Crossing, guards: Iterable[Guard], *, receiver: str, remote: bool = False
    ) -> None:
        self._run, self.crossing, self._receiver, self._remote = run, crossing, receiver, remote
        self.tallies = [_Tally(guard) for guard in guards]
        self.label = self.suspects = BOTTOM

    async def text(self, text: str, *, label: Label = BOTTOM, role: str = "") -> str:
        """What may pass of a whole text. Raises `GuardRefused`."""
        return await self.stream(label=label, role=role).end(text)

    async def json(self, value: JSON, *, label: Label = BOTTOM, role: str = "") -> JSON:
        """What may pass of a value: each text in it by itself, names and numbers too. Raises `GuardRefused`."""
        if isinstance(value, str):
            return await self.text(value, label=label, role=role)
        if isinstance(value, Mapping):
            return {
                await self.text(name, label=label, role=role): await self.json(inner, label=label, role=role)
                for name, inner in value.items()
            }
        if isinstance(value, Sequence):
            return [await self.json(inner, label=label, role=role) for inner in value]
        if value is None or isinstance(value, bool):
            return value
        written = str(value)
        passed = await self.text(written, label=label, role=role)
        return value if passed == written else passed

    def stream(self, *, label: Label = BOTTOM, role: str = "") -> GuardedText:
        """A text that comes in pieces."""
        self.label = self.label | label
        return GuardedText([_Stage(self, tally, label, role) for tally in self.tallies])

    def close(self, *, quietly: bool = False) -> None:
        """Write down what was done; `quietly` only if there was something to do."""
        done = [tally for tally in self.tallies if tally.texts]
        if done and not (quietly and all(tally.did == "passed" for tally in done)):
            body: dict[str, JSON] = {
                "at": str(self.crossing),
                "receiver": self._receiver,
                "guards": [tally.to_json() for tally in done],
            }
            self._run.log.note_apart("guard.ran", body, self.label)

    async def ruled(self, tally: _Tally, text: str, *, offset: int, label: Label, role: str) -> str:
        """What one guard lets pass. Raises `GuardRefused`, also when the guard fails, and never says why it failed."""
        guard, began, ruling = tally.guard, time.perf_counter(), None
        passing = Passing(
            text,
            self.crossing,
            self._run.log.principal,
            self._receiver,
            self._remote,
            label,
            role,
            offset,
            self._run.kept_by(guard),
            self._run.words,
        )
        if len(text) <= guard.limit:
            ruling = await _ruling(guard, passing)
        seconds = time.perf_counter() - began
        tally.seconds += seconds
        tally.texts += 1
        if ruling is None or seconds > guard.timeout:
            tally.did = "failed"
            raise GuardRefused(guard.name, str(self.crossing), failed=True)
        tally.add(ruling, text)
        if ruling.suspect:
            mark = Label.of(None, f"guard:{guard.name}")
            self._run.log.saw(mark)
            self.suspects = self.suspects | mark
        if ruling.refused:
            raise GuardRefused(guard.name, str(self.crossing))
        return ruling.text


async def _ruling(guard: Guard, passing: Passing) -> Ruling | None:
    """What a guard says; None when it fails, whose error may hold the text and goes nowhere."""
    try:
        async with asyncio.timeout(guard.timeout):
            ruling = await guard.inspect(passing)
    except Exception:  # noqa: BLE001 (a guard is anyone's code, and whatever it raises, nothing may pass)
        return None
    return ruling if isinstance(cast(object, ruling), Ruling) else None


async def guard_question(run: RunGuards) -> tuple[str, Callable[[], None], GuardRefused | None]:
    """What may pass of a run's question, how to write that down, and the refusal of one that may not pass at all."""
    question = run.log.question
    passage = Passage(run, Crossing.QUESTION, run.guards.at(Crossing.QUESTION), receiver=run.log.principal.id)
    try:
        return await passage.text(question.value, label=question.label), passage.close, None
    except GuardRefused as error:
        return "", passage.close, error


class _Stage:
    """One guard in a line of them: holds text back until the guard can rule on it."""

    def __init__(self, passage: Passage, tally: _Tally, label: Label, role: str) -> None:
        self._passage, self._tally, self._label, self._role = passage, tally, label, role
        self._held, self._offset = "", 0

    async def push(self, text: str, *, last: bool) -> str:
        self._held += text
        cut = len(self._held) if last else self._settled()
        if not cut and not (last and not self._offset):
            return ""
        piece, self._held = self._held[:cut], self._held[cut:]
        passed = await self._passage.ruled(self._tally, piece, offset=self._offset, label=self._label, role=self._role)
        self._offset += cut
        return passed

    def _settled(self) -> int:
        """As far as the guard says; one that fails here will be given the whole."""
        try:
            return min(max(self._tally.guard.settled(self._held, self._passage.crossing), 0), len(self._held))
        except Exception:  # noqa: BLE001 (a guard is anyone's code; holding all back is the safe answer)
            return 0


class GuardedText:
    """A text that comes in pieces and leaves in others: each as soon as every guard can rule on it."""

    def __init__(self, stages: Sequence[_Stage]) -> None:
        self._stages = stages

    async def push(self, text: str) -> str:
        """Give a piece; what may leave now. Raises `GuardRefused`."""
        return await self._through(text, last=False)

    async def end(self, text: str = "") -> str:
        """Give the last piece; the rest of what may leave. Raises `GuardRefused`."""
        return await self._through(text, last=True)

    async def _through(self, text: str, *, last: bool) -> str:
        for stage in self._stages:
            text = await stage.push(text, last=last)
        return text


__all__ = ["GuardedText", "Guards", "Passage", "RunGuards", "guard_question"]
