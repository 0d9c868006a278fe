"""Erasing what is kept of somebody, or what is older than it may be: whole, however often it is interrupted.

An erasure is a run of the journal: one event that says what will be destroyed, one that says that it was. In between
every step may be done again. Keys go last, since without them nobody knows any more whose the rest was.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

from ringwall.deployment.base import Policy
from ringwall.deployment.journal import CARRIED, Draft, Head, RunRecord, RunStatus
from ringwall.deployment.runlog import event_body
from ringwall.deployment.sealing import SealedJournal, is_alias
from ringwall.errors import ActionDenied, InvalidInput, JournalConflict
from ringwall.principal import Principal
from ringwall.schema import JSON, dumps

OWNER: Final = "service:erasure"
DAY: Final = 86400.0
_APP: Final = "ringwall:"
"""How the owners of an app's own runs begin: rules that stand are in force, however old they are."""

_OPEN: Final = (*CARRIED, RunStatus.WAITING)

Forget = Callable[[], Awaitable[None]]
"""Makes something forget; may be called again."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What an erasure came to. `run` is where the journal tells of it.

    `runs` were erased, of which `closed` were still going on or waiting; `unsealed` are runs of the subject that were
    written before the journal was sealed: they are closed, and still there to be read.
    """

    run: str
    runs: int
    closed: int
    unsealed: int


async def may_erase(policy: Policy, subject: Principal, by: Principal) -> None:
    """Check that `by` may `erase` `subject:<id>`, or `subject:self` if it is its own. Raises `ActionDenied`."""
    if by.tenant not in ("", subject.tenant):
        raise ActionDenied("an erasure is for whoever is of the same tenant, or of none")
    resource = "subject:self" if by.own_grant == subject.own_grant else f"subject:{subject.id}"
    decision = await policy.decide(by, "erase", resource)
    if not decision:
        raise ActionDenied(f"{by.id} may not erase it: {decision.reason}", rule=decision.rule)


async def erase(journal: SealedJournal, subject: str, *, by: str, forget: Sequence[Forget] = ()) -> Erasure:
    """Erase all that is kept of a subject, known by its own grant; `by` is who had it erased.

    `forget` are the other places that keep something of it. What was begun and not ended is ended. Raises what the
    parts raise: then call it again.
    """
    by = "itself" if by == subject else by
    return await _erase(journal, await journal.sealer.held(subject=subject), subject, by, forget)


async def retain(journal: SealedJournal, days: float, *, by: str, now: Callable[[], float] = time.time) -> Erasure:
    """Erase the runs that began on days which ended longer ago than this, whosever they are.

    Profiles, memories and standing rules are not touched. Raises `InvalidInput` for a negative number, and what the
    journal raises.
    """
    if not days >= 0:
        raise InvalidInput(f"runs cannot be retained for {days} days", expected="a number of days, 0 or more")
    held = await journal.sealer.held(before=now() - days * DAY)
    subjects = await journal.sealer.subjects(held)
    aliases = [alias for alias in held if not subjects.get(alias, "").startswith(_APP)]
    return await _erase(journal, aliases, None, by, ())


async def _erase(
    journal: SealedJournal, aliases: Collection[str], subject: str | None, by: str, forget: Sequence[Forget]
) -> Erasure:
    await _end_interrupted(journal)
    told = await _begun(journal, aliases, by)
    mine = {*aliases, *([subject] if subject else [])}
    records = [record for record in await journal.inner.runs() if record.owner in mine]
    still_open = [record for record in records if record.status in _OPEN]
    for record in still_open:
        await _close(journal, record)
    for each in forget:
        await each()
    await journal.sealer.destroy(aliases)
    unsealed = sum(record.owner == subject for record in records)
    done = Erasure(told.run, len(records) - unsealed, len(still_open), unsealed)
    await _finish(journal, told, {name: value for name, value in asdict(done).items() if name != "run"})
    await _end_interrupted(journal)
    return done


async def _begun(journal: SealedJournal, aliases: Collection[str], by: str) -> RunRecord:
    """The erasure that was begun for these keys and not ended, or else a new one."""
    async for record, keys in _unfinished(journal):
        if keys == set(aliases):
            return record
    run = f"erasure:{secrets.token_hex(16)}"
    body: dict[str, JSON] = {"by": by, "keys": sorted(aliases)}
    await journal.start(run, OWNER, [_draft("erasure.begun", body)], durable=True)
    return await journal.inner.record(run)


async def _end_interrupted(journal: SealedJournal) -> None:
    """End the erasures whose keys are gone: keys go last, so all the rest was done."""
    async for record, keys in _unfinished(journal):
        if not await journal.sealer.subjects(keys):
            await _finish(journal, record, {"interrupted": True})


async def _unfinished(journal: SealedJournal) -> AsyncIterator[tuple[RunRecord, set[str]]]:
    for record in await journal.inner.runs(RunStatus.RUNNING):
        if record.owner == OWNER:
            yield record, set(event_body((await journal.inner.read(record.run))[0])["keys"])


async def _finish(journal: SealedJournal, record: RunRecord, body: dict[str, JSON]) -> None:
    with suppress(JournalConflict):  # somebody else has ended it
        head = Head(record.length, record.head)
        await journal.append(record.run, [_draft("erasure.finished", body)], head, status=RunStatus.DONE, durable=True)


async def _close(journal: SealedJournal, record: RunRecord) -> None:
    """Cancel a run: whoever still works on it is refused its next event."""
    told = [_draft("run.cancelled", {"why": "erased"})]
    while record.status in _OPEN:
        head, status = Head(record.length, record.head), RunStatus.CANCELLED
        with suppress(JournalConflict):
            if is_alias(record.owner) and not await journal.sealer.subjects([record.owner]):
                await journal.inner.append(record.run, [], head, status=status)  # somebody else destroyed its key
            else:
                await journal.append(record.run, told, head, status=status, durable=True)
        record = await journal.inner.record(record.run)


def _draft(kind: str, body: dict[str, JSON]) -> Draft:
    return Draft(kind, dumps(body), "", time.time())


__all__ = ["Erasure", "erase", "may_erase", "retain"]
