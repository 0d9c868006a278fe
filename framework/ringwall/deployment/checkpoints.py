"""Checkpoints: signed statements of what the journal held, so that nothing can be cut off or written anew unseen.

A chain proves that nothing between its ends was changed; it cannot prove where it ended. A checkpoint says that: for
each run that grew since the checkpoint before it, how far it went, and a piece of each new event's hash, so that the
first event that differs is found, not only that there is one. Checkpoints are chained to each other. They stand in the
journal, as a run of their own; whoever keeps a copy elsewhere, and the public key, sees what was taken away since.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

from ringwall.deployment.journal import (
    GENESIS,
    ChainCheck,
    Draft,
    Event,
    Head,
    Inspection,
    Journal,
    RunRecord,
    RunStatus,
    bad,
    check_run,
    missing,
)
from ringwall.errors import ChainBroken, InvalidInput, UnknownRun
from ringwall.schema import digest

CHECKPOINTS: Final = "audit:checkpoints"
"""The run that holds the checkpoints, one an event."""

KIND: Final = "audit.checkpoint"
OWNER: Final = "service:audit"
_MARK: Final = 16  # characters of an event's hash that a checkpoint keeps, to find the place; the head proves it
_FOR: Final = b"ringwall checkpoint\n"  # so that no signature made for anything else will do


class Verifier(ABC):
    """A public key."""

    @property
    @abstractmethod
    def id(self) -> str:
        """Tells keys apart; it stands in each checkpoint."""

    @abstractmethod
    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether the holder of the secret key signed exactly this."""


class Signer(ABC):
    """A secret key. Keep it where the app that writes the journal cannot read it."""

    @property
    @abstractmethod
    def verifier(self) -> Verifier:
        """Its public half."""

    @abstractmethod
    def sign(self, message: bytes) -> bytes:
        """Sign exactly this."""


class Evidence(Protocol):
    """What can be verified: a journal, or what was exported from one."""

    async def inspect(self, inspection: Inspection) -> None: ...

    async def read(self, run: str) -> list[Event]: ...


@dataclass(frozen=True, slots=True)
class Stretch:
    """What came to one run since the checkpoint before: events from number `begins` on, up to the one of hash `head`.

    `marks` are the beginnings of their hashes, one after the other.
    """

    run: str
    begins: int
    head: str
    marks: str

    @property
    def length(self) -> int:
        """How many events the run had."""
        return self.begins + len(self.marks) // _MARK


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What the journal held at one moment, on top of what the checkpoint before says.

    `number` counts from 1; `previous` is the digest of the checkpoint before, as text. `text` is one line of ASCII:
    what is signed, signature included, what stands in the journal, and what is kept elsewhere.
    """

    number: int
    at: float
    previous: str
    key: str
    stretches: tuple[Stretch, ...]
    signature: str
    text: str

    @classmethod
    def sign(cls, signer: Signer, number: int, previous: str, stretches: Sequence[Stretch]) -> Checkpoint:
        """Make the next checkpoint."""
        signed: dict[str, Any] = {
            "number": number,
            "at": time.time(),
            "previous": previous,
            "key": signer.verifier.id,
            "since": [[s.run, s.begins, s.head, s.marks] for s in stretches],
        }
        signature = signer.sign(_message(signed)).hex()
        return cls.parse(_text({**signed, "signature": signature}))

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read back what `text` holds. Raises `InvalidInput`; the signature is not looked at."""
        try:
            value = json.loads(text)
            stretches = tuple([Stretch(*map(_typed, each, (str, int, str, str))) for each in value["since"]])
            names, types = ("number", "at", "previous", "key", "signature"), (int, float, str, str, str)
            number, at, previous, key, signature = map(_typed, [value[name] for name in names], types)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInput(
                "a checkpoint that cannot be read",
                expected="a line that `ringwall audit checkpoint` wrote",
                hint="use the copy that was kept, unchanged",
            ) from error
        return cls(number, at, previous, key, stretches, signature, text)

    def is_told_by(self, event: Event) -> bool:
        """Whether the event is the one that put it into the journal."""
        return (event.kind, event.at, event.label, event.body) == (KIND, self.at, "", self.text)

    def is_signed_by(self, keys: Collection[Verifier]) -> bool:
        """Whether all that it says was signed with the one of these keys that it names."""
        try:
            signed = json.loads(self.text)
            signature = bytes.fromhex(signed.pop("signature"))
            is_exact = _text({**signed, "signature": self.signature}) == self.text
        except ValueError:
            return False
        return is_exact and any(key.id == self.key and key.verify(_message(signed), signature) for key in keys)


def read_checkpoints(lines: Iterable[str], keys: Collection[Verifier]) -> list[Checkpoint]:
    """Read checkpoints that were kept elsewhere, a line each. Raises `InvalidInput` unless each is signed."""
    found: dict[int, Checkpoint] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        each = Checkpoint.parse(line.strip())
        if not each.is_signed_by(keys) or found.get(each.number, each) != each:
            raise InvalidInput(
                f"line {number} of the kept checkpoints is not signed with a key that you gave, or contradicts another",
                expected=f"a checkpoint as it was written; this one names key {each.key[:16]!r}",
                hint="use the copy that was kept, unchanged, and the key's public half",
            )
        found[each.number] = each
    return list(found.values())


# Making one


async def checkpoint(journal: Journal, signer: Signer, *, older_keys: Collection[Verifier] = ()) -> Checkpoint | None:
    """Sign what came to the journal since the last checkpoint, and put that into the journal; None if nothing came.

    What the earlier checkpoints say, signed with this key or with one of `older_keys`, must still be so. Raises
    `ChainBroken`, and `JournalConflict` when somebody else made one at the same time.
    """
    records = {record.run: record for record in await journal.runs()}
    mine = records.get(CHECKPOINTS)
    earlier = await stored_checkpoints(journal, (signer.verifier, *older_keys))
    if mine and mine.length != len(earlier):
        raise _unsigned(len(earlier))
    stretches = [s async for s in _stretches(journal, known(earlier), list(records.values()))]
    if not any(s.run != CHECKPOINTS for s in stretches):
        return None
    previous = digest(earlier[-1].text) if earlier else GENESIS
    made = Checkpoint.sign(signer, len(earlier) + 1, previous, stretches)
    await _put(journal, made, mine)
    return made


async def _put(journal: Journal, made: Checkpoint, record: RunRecord | None) -> None:
    drafts = [Draft(KIND, made.text, at=made.at)]
    if record is None:
        await journal.start(CHECKPOINTS, OWNER, drafts, status=RunStatus.DONE, durable=True)
    else:
        await journal.append(CHECKPOINTS, drafts, Head(record.length, record.head), durable=True)


async def stored_checkpoints(evidence: Evidence, keys: Collection[Verifier]) -> list[Checkpoint]:
    """The checkpoints that a journal holds, up to the first that is not signed or is out of place."""
    try:
        events = await evidence.read(CHECKPOINTS)
    except (UnknownRun, ChainBroken):
        return []
    found: list[Checkpoint] = []
    for event in events:
        each = _next_checkpoint(event, found[-1] if found else None, keys)
        if each is None:
            break
        found.append(each)
    return found


def _next_checkpoint(event: Event, before: Checkpoint | None, keys: Collection[Verifier]) -> Checkpoint | None:
    try:
        each = Checkpoint.parse(event.body)
    except InvalidInput:
        return None
    place = (before.number + 1, digest(before.text)) if before else (1, GENESIS)
    fits = (each.number, each.previous) == place and each.is_told_by(event)
    return each if fits and each.is_signed_by(keys) else None


def _unsigned(seq: int) -> ChainBroken:
    return bad(
        CHECKPOINTS, seq, "is no checkpoint that was signed with a key that you gave", "another key, or a forgery"
    )


async def _stretches(
    journal: Journal, before: Mapping[str, Known], records: Sequence[RunRecord]
) -> AsyncIterator[Stretch]:
    for run, record in zip(before, records, strict=False):
        if record.run != run:
            raise missing(run, 0, "the whole run was removed or moved since the last checkpoint")
    for run in list(before)[len(records) :]:
        raise missing(run, 0, "the whole run was removed since the last checkpoint")
    for record in records:
        begins = before[record.run].length if record.run in before else 0
        if record.length < begins:
            raise missing(record.run, record.length, "the end of the run was removed since the last checkpoint")
        if record.length > begins:
            events = (await journal.read(record.run))[: record.length]
            _check_grown(record, events, before.get(record.run))
            marks = "".join(event.hash[:_MARK] for event in events[begins:])
            yield Stretch(record.run, begins, record.head, marks)


def _check_grown(record: RunRecord, events: Sequence[Event], before: Known | None) -> None:
    check_run(record.run, events)
    if len(events) < record.length:
        raise missing(record.run, len(events), "the end of the run was removed")
    if events[-1].hash != record.head:
        raise bad(record.run, len(events) - 1, "is not the end of the run that its record tells of")
    if before:
        for event in events[: before.length]:
            before.compare(event.seq, event)


# Checking against them


@dataclass(frozen=True, slots=True)
class Known:
    """What checkpoints say of one run: its first events, by the beginnings of their hashes, and the last one's hash."""

    run: str
    head: str
    marks: str

    @property
    def length(self) -> int:
        """How many events the run had."""
        return len(self.marks) // _MARK

    def compare(self, seq: int, event: Event) -> None:
        """Raise `ChainBroken` if the event at this place is another than it was."""
        if seq >= self.length:
            return
        was = self.marks[seq * _MARK : (seq + 1) * _MARK]
        if event.hash[:_MARK] != was or (seq == self.length - 1 and event.hash != self.head):
            raise bad(self.run, seq, "is not the one that a checkpoint tells of", "it was written anew")


def known(checkpoints: Sequence[Checkpoint]) -> dict[str, Known]:
    """What consecutive checkpoints, from the first on, say together: each run, in the order they began."""
    heads: dict[str, str] = {}
    marks: dict[str, list[str]] = {}
    for stretch in (stretch for each in checkpoints for stretch in each.stretches):
        heads[stretch.run] = stretch.head
        marks.setdefault(stretch.run, []).append(stretch.marks)
    return {run: Known(run, head, "".join(marks[run])) for run, head in heads.items()}


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found good: so many events, and how many of them the checkpoints vouch for.

    `newest` is the newest checkpoint, which vouches for itself.
    """

    events: int
    covered: int = 0
    newest: Checkpoint | None = None


async def verify(evidence: Evidence, keys: Collection[Verifier] = (), kept: Sequence[Checkpoint] = ()) -> Verified:
    """Check every chain and, with keys, that all is there that the checkpoints tell of: the stored and the kept ones.

    Raises `ChainBroken` naming the first bad event, also when keys are given and there is no checkpoint.
    """
    if not keys:
        chains = ChainCheck()
        await evidence.inspect(chains)
        return Verified(chains.finish())
    checkpoints = _merged(kept, await stored_checkpoints(evidence, keys))
    check = CheckpointCheck(checkpoints, keys)
    await evidence.inspect(check)
    events = check.finish()
    return Verified(events, sum(run.length for run in known(checkpoints).values()) + 1, checkpoints[-1])


def _merged(kept: Sequence[Checkpoint], stored: Sequence[Checkpoint]) -> list[Checkpoint]:
    """All checkpoints from the first on; what was kept counts more than what is stored."""
    by_number = {each.number: each for each in (*stored, *kept)}
    merged: list[Checkpoint] = []
    for number in range(1, max(by_number, default=1) + 1):
        each = by_number.get(number)
        if each is None:
            raise missing(CHECKPOINTS, number - 1, "a checkpoint was removed, or there never was one")
        if merged and each.previous != digest(merged[-1].text):
            raise bad(CHECKPOINTS, number - 2, "is not the checkpoint that the next one follows")
        merged.append(each)
    return merged


class CheckpointCheck(ChainCheck):
    """Checks the chains, and that all is there that the checkpoints tell of."""

    def __init__(self, checkpoints: Sequence[Checkpoint], keys: Collection[Verifier]) -> None:
        super().__init__()
        self._checkpoints, self._keys = list(checkpoints), keys
        self._least = {run.run: run for run in known(checkpoints).values()}
        self._expected = deque(self._least)
        if CHECKPOINTS not in self._least:
            self._expected.append(CHECKPOINTS)

    def run(self, record: RunRecord, events: Iterable[Event]) -> None:
        """Check the next run. Raises `ChainBroken`."""
        known = self._least.get(record.run)
        self._in_order(record.run)
        if record.run == CHECKPOINTS and record.owner != OWNER:
            raise bad(CHECKPOINTS, 0, "does not follow what is before it", "the run was given to another owner")
        before = self._count
        super().run(record, self._compared(record.run, known, events))
        came = self._count - before
        least = len(self._checkpoints) if record.run == CHECKPOINTS else known.length if known else 0
        if came < least:
            raise missing(record.run, came, "the end of the run was removed")

    def lost(self, what: str) -> NoReturn:
        """Told when something is plainly missing before the next run. Raises `ChainBroken`."""
        if self._expected:
            raise missing(self._expected[0], 0, f"{what} is missing")
        super().lost(what)

    def finish(self) -> int:
        """Return the number of events. Raises `ChainBroken` when a run did not come by that a checkpoint tells of."""
        if self._expected:
            raise missing(self._expected[0], 0, "the whole run was removed")
        return super().finish()

    def _in_order(self, run: str) -> None:
        """Runs come in the order they began; the checkpoints' own, if none tells of it yet, at any later place."""
        if not self._expected:
            return
        if run == self._expected[0]:
            self._expected.popleft()
        elif run in self._least or self._expected[0] in self._least:
            raise missing(self._expected[0], 0, "the whole run was removed or moved, or another put before it")

    def _compared(self, run: str, known: Known | None, events: Iterable[Event]) -> Iterator[Event]:
        for place, event in enumerate(events):
            if known:
                known.compare(place, event)
            if run == CHECKPOINTS:
                self._check_checkpoint(place, event)
            yield event

    def _check_checkpoint(self, place: int, event: Event) -> None:
        """A checkpoint in the journal is the one that was kept, or, if it came later, follows it and is signed."""
        if place == len(self._checkpoints):
            later = _next_checkpoint(event, self._checkpoints[-1], self._keys)
            if later is None:
                raise _unsigned(place)
            self._checkpoints.append(later)
        elif not self._checkpoints[place].is_told_by(event):
            raise bad(CHECKPOINTS, place, "is not the checkpoint that was kept")


def _message(signed: Mapping[str, Any]) -> bytes:
    return _FOR + _text(signed).encode()


def _text(value: Mapping[str, Any]) -> str:
    """Canonical, on one line, in ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _typed(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise TypeError(value)
    return value


__all__ = [
    "CHECKPOINTS",
    "Checkpoint",
    "CheckpointCheck",
    "Evidence",
    "Signer",
    "Stretch",
    "Verified",
    "Verifier",
    "checkpoint",
    "read_checkpoints",
    "stored_checkpoints",
    "verify",
]
