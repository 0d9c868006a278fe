"""A journal that can forget: what it holds of somebody is sealed under keys, and is gone when they are destroyed.

The chain covers the sealed texts. So it stays as it was, and can be verified, checkpointed and exported without any
key, before and after; copies of the journal forget with it, as far as the keys are nowhere else.
"""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from ringwall.deployment.journal import (
    Draft,
    Event,
    Head,
    Inspection,
    Journal,
    RunRecord,
    RunStatus,
    Worker,
    chain_hash,
)
from ringwall.errors import ChainBroken, JournalConflict
from ringwall.principal import TENANT_MARK, scoped

ERASED: Final = '{"erased":true}'
"""The body of an event whose key was destroyed; its kind, place and time are still told."""

IN_THE_OPEN: Final = frozenset(("service:audit", "service:erasure"))
"""Owners of the runs that are nobody's: checkpoints, and what tells of erasures."""

_ALIAS: Final = re.compile(rf"(?:[^:]+{TENANT_MARK})?sealed:[0-9a-f]{{32}}")
_OPEN: Final = "open|"  # begins what stands in the open within a sealed run; no sealed text holds it
_MOST_KNOWN: Final = 10_000


def new_alias(subject: str) -> str:
    """What a journal calls somebody instead: it tells the tenant, and nothing else."""
    tenant = subject.partition(TENANT_MARK)[0] if TENANT_MARK in subject else ""
    return scoped(f"sealed:{secrets.token_hex(16)}", "" if ":" in tenant else tenant)


def is_alias(owner: str) -> bool:
    """Whether the owner in a run's record is an alias; in an older run it may be the owner itself."""
    return _ALIAS.fullmatch(owner) is not None


class Sealer(ABC):
    """Seals texts under a key of somebody, which is known by an alias; and destroys keys.

    A subject has a key for each day: what is of that day can be erased without the rest. The caller relies on this:

    - a text opens as what was sealed, or not at all: not if it was changed, nor under another alias or `about`;
    - after `destroy` returned, neither the key nor the subject of the alias is in the store any more, also after a
      crash, and no process opens anything with it.

    Methods raise `StoreError` when the keys cannot be read or written.
    """

    @abstractmethod
    async def alias(self, subject: str) -> str:
        """The alias of the subject's key of today, which is made if there is none (`new_alias`)."""

    @abstractmethod
    async def subjects(self, aliases: Collection[str]) -> Mapping[str, str]:
        """Whose these are; those that were destroyed are left out."""

    @abstractmethod
    async def seal(self, alias: str, texts: Sequence[tuple[bytes, bytes]]) -> list[str] | None:
        """Seal each text for what it is about; None if the key was destroyed."""

    @abstractmethod
    async def open(self, alias: str, sealed: Sequence[tuple[str, bytes]]) -> list[bytes | None] | None:
        """Open each sealed text, None for one that was not sealed like this; None if the key was destroyed."""

    @abstractmethod
    async def held(self, *, subject: str | None = None, before: float | None = None) -> list[str]:
        """The aliases of the keys of a subject, or of the days that ended before this moment (Unix time)."""

    @abstractmethod
    async def destroy(self, aliases: Collection[str]) -> None:
        """Destroy keys, durably; those that are not there are fine."""

    async def close(self) -> None:
        """Release what the sealer holds; called once, with the journal."""


class OpenedEvent(Event):
    """An event as it was before it was sealed; `hash` is that of what stands in the journal, `sealed`."""

    sealed: str = ""

    def computed_hash(self) -> str:
        """The hash of the event as it stands in the journal."""
        if not self.sealed:  # changed since it was opened
            return super().computed_hash()
        return chain_hash(self.run, self.seq, self.kind, self.at, "", self.sealed, self.previous)


class SealedJournal(Journal):
    """`inner`, in which bodies, labels and owners are sealed by `sealer`; who reads through here reads them opened.

    What a destroyed key had sealed is told as `ERASED`, and the owner by its alias. `inspect`, and so `verify`, sees
    what truly stands in the journal. Runs that were written to `inner` before it was sealed stay readable, and cannot
    be erased. Closes both.
    """

    def __init__(self, inner: Journal, sealer: Sealer) -> None:
        self.inner, self.sealer = inner, sealer
        self._owners: dict[str, str] = {}

    async def start(
        self,
        run: str,
        owner: str,
        drafts: Sequence[Draft],
        *,
        status: RunStatus = RunStatus.RUNNING,
        durable: bool = False,
        worker: Worker | None = None,
    ) -> Head:
        if owner not in IN_THE_OPEN:
            owner = await self.sealer.alias(owner)
            drafts = await self._sealed(run, owner, drafts)
        return await self.inner.start(run, owner, drafts, status=status, durable=durable, worker=worker)

    async def append(
        self,
        run: str,
        drafts: Sequence[Draft],
        after: Head,
        *,
        status: RunStatus | None = None,
        durable: bool = False,
        worker: Worker | None = None,
    ) -> Head:
        owner = await self._owner(run)
        if is_alias(owner):
            drafts = await self._sealed(run, owner, drafts)
        return await self.inner.append(run, drafts, after, status=status, durable=durable, worker=worker)

    async def read(self, run: str) -> list[Event]:
        events, owner = await self.inner.read(run), await self._owner(run)
        return await open_events(self.sealer, owner, events) if is_alias(owner) else events

    async def record(self, run: str) -> RunRecord:
        record = await self.inner.record(run)
        return (await self._told([record]))[0]

    async def runs(self, status: RunStatus | None = None) -> list[RunRecord]:
        return await self._told(await self.inner.runs(status))

    async def keep(self, worker: str, seconds: float) -> None:
        await self.inner.keep(worker, seconds)

    async def workers(self) -> list[str]:
        return await self.inner.workers()

    async def take(self, worker: Worker, drafts: Sequence[Draft], *, limit: int = 1) -> list[str]:
        # Which runs are taken is found out while they are: what is written then stands in the open.
        told = [draft._replace(body=_OPEN + _text(draft), label="") for draft in drafts]
        return await self.inner.take(worker, told, limit=limit)

    async def inspect(self, inspection: Inspection) -> None:
        await self.inner.inspect(inspection)

    async def close(self) -> None:
        try:
            await self.inner.close()
        finally:
            await self.sealer.close()

    async def _owner(self, run: str) -> str:
        """The owner as it stands in the journal; it never changes."""
        owner = self._owners.get(run)
        if owner is None:
            owner = (await self.inner.record(run)).owner
            if len(self._owners) >= _MOST_KNOWN:
                self._owners.clear()
            self._owners[run] = owner
        return owner

    async def _told(self, records: Iterable[RunRecord]) -> list[RunRecord]:
        records = list(records)
        subjects = await self.sealer.subjects({record.owner for record in records if is_alias(record.owner)})
        return [record._replace(owner=subjects.get(record.owner, record.owner)) for record in records]

    async def _sealed(self, run: str, alias: str, drafts: Sequence[Draft]) -> list[Draft]:
        texts = [(_packed(draft), _about(run, draft.kind)) for draft in drafts]
        sealed = await self.sealer.seal(alias, texts) if texts else []
        if sealed is None:
            raise JournalConflict(f"run {run!r} was erased", hint="nothing goes on with it; ask again")
        return [Draft(draft.kind, body, "", draft.at) for draft, body in zip(drafts, sealed, strict=True)]


async def open_events(sealer: Sealer, alias: str, events: Sequence[Event]) -> list[Event]:
    """The events of a run as they were before they were sealed. Raises `ChainBroken` for one that was not sealed so."""
    sealed = [event for event in events if not event.body.startswith(_OPEN)]
    texts = await sealer.open(alias, [(event.body, _about(event.run, event.kind)) for event in sealed])
    if texts is None:
        return [_opened(event, ERASED, "") for event in events]
    by_place = {event.seq: text for event, text in zip(sealed, texts, strict=True)}
    return [_opened(event, *_unpacked(event, by_place.get(event.seq, _in_the_open(event)))) for event in events]


def is_erased(events: Sequence[Event]) -> bool:
    """Whether these are the events of a run that was erased."""
    return events[0].body == ERASED


def _opened(event: Event, body: str, label: str) -> Event:
    opened = OpenedEvent(*event)._replace(body=body, label=label)
    opened.sealed = event.body
    return opened


def _about(run: str, kind: str) -> bytes:
    """What a sealed text belongs to, so that it opens nowhere else; its place in the run is what the chain tells."""
    return f"{len(run)}|{run}{kind}".encode("utf-8", "surrogatepass")


def _text(draft: Draft) -> str:
    return f"{len(draft.label)}|{draft.label}{draft.body}"


def _packed(draft: Draft) -> bytes:
    return _text(draft).encode("utf-8", "surrogatepass")


def _in_the_open(event: Event) -> bytes:
    return event.body.removeprefix(_OPEN).encode("utf-8", "surrogatepass")


def _unpacked(event: Event, text: bytes | None) -> tuple[str, str]:
    """Body and label."""
    length, _, rest = (text or b"").decode("utf-8", "surrogatepass").partition("|")
    if not length.isdecimal():
        raise ChainBroken(
            f"event {event.seq} of run {event.run!r} does not open with the key of its owner",
            run=event.run,
            seq=event.seq,
            hint="verify the journal; if it is good, the keys are those of another",
        )
    return rest[int(length) :], rest[: int(length)]


__all__ = ["ERASED", "OpenedEvent", "SealedJournal", "Sealer", "is_alias", "is_erased", "new_alias", "open_events"]
