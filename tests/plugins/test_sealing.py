"""A journal that can forget: what it promises before and after a key is destroyed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ringwall.deployment.journal import Draft, Event, Head, InMemoryJournal, Journal, RunRecord
from ringwall.deployment.journal_contract import JournalContract
from ringwall.deployment.sealing import ERASED, OpenedEvent, SealedJournal
from ringwall.errors import ChainBroken, JournalConflict, StoreError
from ringwall_audit import AesSealer, InMemoryKeys, Keys, SqliteKeys, SubjectKey
from ringwall_sql import SqlJournal
from tests.plugins.tampering import rewrite

ANA, BEN = "acme::user:ana", "acme::user:ben"


def as_it_stands(event: Event) -> Event:
    """An event that was only read is put back as it stood; one that was changed, as it was changed."""
    if isinstance(event, OpenedEvent) and event.sealed:
        return Event(*event)._replace(body=event.sealed, label="")
    return Event(*event)


class TestSealedInMemory(JournalContract):
    @pytest.fixture
    def journal(self) -> Journal:
        return SealedJournal(InMemoryJournal(), AesSealer(InMemoryKeys()))

    async def rewrite(self, journal: Journal, run: str, record: RunRecord | None, events: Sequence[Event]) -> None:
        assert isinstance(journal, SealedJournal)
        inner = journal.inner
        assert isinstance(inner, InMemoryJournal)
        stored_events, records = inner._events, inner._records  # noqa: SLF001  tampering knows no doors
        stored_events[run] = [as_it_stands(event) for event in events]
        if record is None:
            del records[run]
            return
        if record.owner == (await journal.record(run)).owner:
            record = record._replace(owner=records[run].owner)
        records[run] = record


class SealedInADatabase(JournalContract):
    """A sealed journal in a database, and its keys in a file."""

    folder: Path
    database: str

    def _open(self) -> SealedJournal:
        return SealedJournal(SqlJournal(self.database), AesSealer.at(self.folder / "keys.db"))

    async def reopen(self, journal: Journal) -> Journal:
        await journal.close()
        return self._open()

    async def rewrite(self, journal: Journal, run: str, record: RunRecord | None, events: Sequence[Event]) -> None:
        assert isinstance(journal, SealedJournal)
        before = await journal.record(run)
        if record is not None and record.owner == before.owner:
            record = record._replace(owner=(await journal.inner.record(run)).owner)
        rewrite(self.database, run, record, [as_it_stands(event) for event in events])


class TestSealedInSqlite(SealedInADatabase):
    @pytest.fixture
    async def journal(self, tmp_path: Path) -> AsyncIterator[Journal]:
        self.folder, self.database = tmp_path, f"sqlite:///{tmp_path / 'journal.db'}"
        journal = self._open()
        yield journal
        await journal.close()


class TestSealedInPostgresql(SealedInADatabase):
    @pytest.fixture
    async def journal(self, tmp_path: Path, postgresql: str) -> AsyncIterator[Journal]:
        self.folder, self.database = tmp_path, postgresql
        journal = self._open()
        yield journal
        await journal.close()


# What stands in the journal


@pytest.fixture
def journal() -> SealedJournal:
    return SealedJournal(InMemoryJournal(), AesSealer(InMemoryKeys()))


async def started(journal: SealedJournal, run: str = "r", owner: str = ANA) -> Head:
    return await journal.start(run, owner, [Draft("said", '"secret"', '{"label":"of ana"}', 1.0)])


async def test_neither_what_is_said_nor_its_label_nor_who_said_it_stands_in_the_journal(
    journal: SealedJournal,
) -> None:
    await started(journal)
    raw = repr([await journal.inner.read("r"), await journal.inner.runs()])
    assert "said" in raw
    for word in ("secret", "of ana", "user:ana"):
        assert word not in raw
    (event,) = await journal.read("r")
    assert (event.body, event.label) == ('"secret"', '{"label":"of ana"}')
    assert event.hash == event.computed_hash()


async def test_after_its_key_is_destroyed_a_run_tells_what_happened_when_and_no_more(journal: SealedJournal) -> None:
    head = await started(journal)
    await started(journal, "other", BEN)
    before = [await journal.inner.read(run) for run in ("r", "other")]
    await journal.sealer.destroy(await journal.sealer.held(subject=ANA))
    (event,) = await journal.read("r")
    assert (event.kind, event.at, event.body, event.label) == ("said", 1.0, ERASED, "")
    assert event.hash == event.computed_hash()
    assert (await journal.record("r")).owner.startswith("acme::sealed:")
    assert (await journal.read("other"))[0].body == '"secret"'
    assert [await journal.inner.read(run) for run in ("r", "other")] == before
    assert await journal.verify() == 2
    with pytest.raises(JournalConflict, match="was erased"):
        await journal.append("r", [Draft("more", "")], head)


async def test_whoever_was_erased_may_come_back_as_somebody_new(journal: SealedJournal) -> None:
    await started(journal)
    await journal.sealer.destroy(await journal.sealer.held(subject=ANA))
    await started(journal, "again")
    assert (await journal.record("again")).owner == ANA
    assert (await journal.inner.record("again")).owner != (await journal.inner.record("r")).owner
    assert (await journal.read("r"))[0].body == ERASED


async def test_runs_from_before_stay_readable_when_a_journal_begins_to_be_sealed() -> None:
    inner = InMemoryJournal()
    head = await inner.start("old", ANA, [Draft("said", "plain", "{}")])
    journal = SealedJournal(inner, AesSealer(InMemoryKeys()))
    await journal.append("old", [Draft("said", "more")], head)
    await started(journal, "new")
    assert [event.body for event in await journal.read("old")] == ["plain", "more"]
    assert [record.owner for record in await journal.runs()] == [ANA, ANA]
    assert await journal.verify() == 3


@pytest.mark.parametrize("moved", ["run", "kind", "text"])
async def test_a_sealed_text_opens_nowhere_but_where_it_was_sealed(journal: SealedJournal, moved: str) -> None:
    await started(journal)
    await started(journal, "s")
    inner = journal.inner
    assert isinstance(inner, InMemoryJournal)
    (event,) = await inner.read("r")
    if moved == "run":
        event = event._replace(body=(await inner.read("s"))[0].body)
    elif moved == "kind":
        event = event._replace(kind="call.approved")
    else:
        event = event._replace(body=event.body[:20] + ("A" if event.body[20] != "A" else "B") + event.body[21:])
    inner._events["r"] = [event]  # noqa: SLF001
    with pytest.raises(ChainBroken, match="event 0 of run 'r' does not open"):
        await journal.read("r")


# The keys


@pytest.fixture(params=["memory", "sqlite"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Keys:
    return InMemoryKeys() if request.param == "memory" else SqliteKeys(tmp_path / "keys.db")


KEY = SubjectKey("acme::sealed:" + "0" * 32, ANA, 7, b"0123456789abcdef" * 2)


async def test_a_key_is_kept_until_it_is_destroyed_and_one_for_each_subject_and_day(keys: Keys) -> None:
    assert await keys.put(KEY) == KEY
    assert await keys.put(replace(KEY, alias="another", secret=b"")) == KEY
    next_day = await keys.put(replace(KEY, alias="next", day=8))
    bens = await keys.put(replace(KEY, alias="ben", subject=BEN))
    assert await keys.of(ANA, 8) == next_day
    assert await keys.of("user:ana", 7) is None
    assert sorted(await keys.aliases(subject=ANA)) == sorted([KEY.alias, "next"])
    assert sorted(await keys.aliases(before=8)) == sorted([KEY.alias, "ben"])
    await keys.destroy([KEY.alias, "unknown"])
    assert await keys.get([KEY.alias, "next", "ben"]) in ([next_day, bens], [bens, next_day])
    await keys.close()


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.iterdir())


async def test_a_destroyed_key_stands_in_no_byte_of_its_file(tmp_path: Path) -> None:
    keys = SqliteKeys(tmp_path / "keys.db")
    for number in range(300):
        await keys.put(replace(KEY, alias=f"alias-{number}", subject=f"user:{number}-of-many"))
    mine = await keys.put(replace(KEY, secret=b"mine" * 8))
    raw = all_bytes(tmp_path)
    assert all(trace in raw for trace in (mine.secret, mine.alias.encode(), ANA.encode()))
    await keys.destroy([mine.alias])
    raw = all_bytes(tmp_path)
    assert not any(trace in raw for trace in (mine.secret, mine.alias.encode(), ANA.encode()))
    await keys.close()


async def test_the_file_of_the_keys_is_for_its_owner_alone(tmp_path: Path) -> None:
    await SqliteKeys(tmp_path / "keys.db").close()
    assert (tmp_path / "keys.db").stat().st_mode & 0o077 == 0


async def test_keys_that_cannot_be_read_are_told_of_by_file(tmp_path: Path) -> None:
    (tmp_path / "keys.db").write_text("no database" * 100)
    with pytest.raises(StoreError, match=r"keys\.db"):
        SqliteKeys(tmp_path / "keys.db")
