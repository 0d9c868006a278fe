"""Checkpoints, and every way of tampering with what they tell of."""

from __future__ import annotations

import asyncio
import io
import json
import random
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall.deployment.checkpoints import CHECKPOINTS, Checkpoint, Verified, checkpoint, read_checkpoints, verify
from ringwall.deployment.export import Export, ExportedJournal
from ringwall.deployment.journal import Draft, Head, InMemoryJournal, Journal
from ringwall.deployment.sealing import SealedJournal
from ringwall.errors import ChainBroken, ConfigurationError, InvalidInput, JournalConflict
from ringwall_audit import AesSealer, InMemoryKeys, PublicKey, SecretKey
from ringwall_sql import SqlJournal
from tests.plugins.tampering import Run, Tables, forged, rechained

pytestmark = pytest.mark.asyncio

KEY: Final = SecretKey.generate()


async def filled(path: Path | str, *, is_sealed: bool = False) -> tuple[SqlJournal, list[Checkpoint]]:
    """A journal of several runs that went on at the same time, with three checkpoints between.

    If it is sealed, what two of the owners had in it was erased in the end.
    """
    inner, kept, heads = SqlJournal(path), [], dict[str, Head]()
    journal = SealedJournal(inner, AesSealer(InMemoryKeys())) if is_sealed else inner
    for round_ in range(3):
        for number in range(2 * round_, 2 * round_ + 2):
            heads[f"r{number}"] = await journal.start(f"r{number}", f"user:{number}", drafts(number, 3))
        for run in list(heads)[round_:]:
            heads[run] = await journal.append(run, drafts(round_, 2), heads[run])
        made = await checkpoint(journal, KEY)
        assert made is not None
        kept.append(made)
    if isinstance(journal, SealedJournal):
        for subject in ("user:1", "user:2"):
            await journal.sealer.destroy(await journal.sealer.held(subject=subject))
    return inner, kept


def drafts(first: int, count: int) -> list[Draft]:
    return [Draft("noted", f'{{"n":{number},"é":"\\""}}', "", 1.5e9 + number) for number in range(first, first + count)]


async def named(tampered: SqlJournal | ExportedJournal, kept: Sequence[Checkpoint]) -> tuple[str, int | None] | None:
    """The event that `verify` calls the first bad one, if any."""
    try:
        await verify(tampered, [KEY.verifier], kept)
    except ChainBroken as broken:
        return broken.run, broken.seq
    return None


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'journal.db'}"
    url: str = request.getfixturevalue("postgresql")
    return url


@pytest.mark.parametrize("is_sealed", [False, True], ids=["open", "sealed"])
async def test_of_1000_tamperings_in_the_tables_the_first_bad_event_is_named_in_each(
    database: str, *, is_sealed: bool
) -> None:
    journal, kept = await filled(database, is_sealed=is_sealed)
    runs = [Run(record, await journal.read(record.run)) for record in await journal.runs()]
    with closing(Tables(database)) as tables:
        rng, seen = random.Random(5), 0
        while seen < 1000:
            if rng.random() < 0.5:
                tables.tamper(rng)
            else:
                tables.write(forged([Run(run.record, list(run.events)) for run in runs], rng))
            first = tables.first_difference()
            assert await named(journal, kept) == first
            seen += first is not None  # an event that is swapped with itself is no tampering
            tables.restore()
    assert await named(journal, kept) is None
    await journal.close()


async def exported(journal: Journal, path: Path) -> Path:
    with path.open("wb") as file:
        export = Export(file)
        await journal.inspect(export)
        export.finish()
    return path


def tampered_lines(lines: list[bytes], rng: random.Random) -> list[bytes]:
    """An exported file, header aside, with one line or two changed, moved or gone."""
    place, other = sorted(rng.sample(range(len(lines) - 1), 2))
    match rng.choice(["flip", "drop", "swap", "cut", "cut within a line"]):
        case "flip" if b'"seq"' in lines[place]:
            at = rng.randrange(len(lines[place]))
            lines[place] = (
                lines[place][:at] + bytes([lines[place][at] ^ rng.randrange(1, 256)]) + lines[place][at + 1 :]
            )
        case "drop":
            del lines[place]
        case "swap":
            lines[place], lines[other] = lines[other], lines[place]
        case "cut":
            del lines[place:]
        case "cut within a line":
            lines[place:] = [lines[place][: rng.randrange(len(lines[place]))]]
    return lines


def first_different_line(before: Sequence[bytes], after: Sequence[bytes]) -> tuple[str, int] | None:
    """The run and number of the first event that differs, or that stands first below a run's line that does."""
    for place, line in enumerate(before[:-1]):
        if place >= len(after) or without_end(after[place]) != without_end(line):
            value = json.loads(line)
            return value["run"], value.get("seq", 0)
    return None


def without_end(line: bytes) -> bytes:
    """The line of a run without what it says of its end: where events are changed, that fits or it does not."""
    return line.partition(b',"length":')[0]


@pytest.mark.parametrize("is_sealed", [False, True], ids=["open", "sealed"])
async def test_of_1000_tamperings_in_an_exported_file_the_first_bad_event_is_named_in_each(
    tmp_path: Path, *, is_sealed: bool
) -> None:
    journal, kept = await filled(tmp_path / "journal.db", is_sealed=is_sealed)
    runs = [Run(record, await journal.read(record.run)) for record in await journal.runs()]
    path = await exported(journal, tmp_path / "journal.jsonl")
    await journal.close()
    header, *lines = path.read_bytes().splitlines(keepends=True)
    rng, seen = random.Random(6), 0
    while seen < 1000:
        if rng.random() < 0.5:
            after = tampered_lines(list(lines), rng)
        else:
            after = written([*forged([Run(run.record, list(run.events)) for run in runs], rng)])
        path.write_bytes(header + b"".join(after))
        first = first_different_line(lines, after)
        assert await named(ExportedJournal(path), kept) == first
        seen += first is not None
    path.write_bytes(header + b"".join(lines))
    assert await named(ExportedJournal(path), kept) is None


def written(runs: Sequence[Run]) -> list[bytes]:
    """The lines of a file that holds these runs."""
    file = io.BytesIO()
    export = Export(file)
    for run in runs:
        export.run(run.record, run.events)
    export.finish()
    return file.getvalue().splitlines(keepends=True)[1:]


# Making checkpoints, and who may rely on them


@pytest.fixture
def journal() -> InMemoryJournal:
    return InMemoryJournal()


async def test_nothing_new_needs_no_checkpoint(journal: InMemoryJournal) -> None:
    assert await checkpoint(journal, KEY) is None
    await journal.start("a", "user:a", drafts(0, 2))
    made = await checkpoint(journal, KEY)
    assert made is not None
    assert [(s.run, s.begins, s.length) for s in made.stretches] == [("a", 0, 2)]
    assert await checkpoint(journal, KEY) is None


async def test_a_checkpoint_tells_only_what_came_since_the_one_before(journal: InMemoryJournal) -> None:
    head = await journal.start("a", "user:a", drafts(0, 2))
    await checkpoint(journal, KEY)
    await journal.append("a", drafts(2, 1), head)
    await journal.start("b", "user:b", drafts(0, 1))
    made = await checkpoint(journal, KEY)
    assert made is not None
    told = [(s.run, s.begins, s.length) for s in made.stretches]
    assert told == [("a", 2, 3), (CHECKPOINTS, 0, 1), ("b", 0, 1)]
    assert await verify(journal, [KEY.verifier]) == Verified(6, 6, made)


async def test_what_came_later_is_counted_and_may_be_cut_off_unseen(journal: InMemoryJournal) -> None:
    head = await journal.start("a", "user:a", drafts(0, 2))
    await checkpoint(journal, KEY)
    await journal.append("a", drafts(2, 5), head)
    found = await verify(journal, [KEY.verifier])
    assert (found.events, found.covered) == (8, 3)


async def test_a_key_without_any_checkpoint_is_a_finding(journal: InMemoryJournal) -> None:
    await journal.start("a", "user:a", drafts(0, 2))
    with pytest.raises(ChainBroken, match=f"event 0 of run '{CHECKPOINTS}' is missing"):
        await verify(journal, [KEY.verifier])


async def test_checkpoints_that_were_cut_off_with_all_they_tell_of_are_seen_by_whoever_kept_them(
    tmp_path: Path,
) -> None:
    journal, kept = await filled(tmp_path / "journal.db")
    runs = [Run(record, await journal.read(record.run)) for record in await journal.runs()]
    young = [run for run in runs if run.record.run in ("r0", "r1", CHECKPOINTS)]
    for run, length in zip(young, (5, 5, 1), strict=True):
        del run.events[length:]
    with closing(Tables(f"sqlite:///{tmp_path / 'journal.db'}")) as tables:
        tables.write(rechained(young))
    assert (await verify(journal, [KEY.verifier])).events == 11  # all as it was at the first checkpoint
    assert await named(journal, kept) == ("r1", 5)
    assert await named(journal, kept[-1:]) == (CHECKPOINTS, 1)
    await journal.close()


async def test_a_checkpoint_of_another_key_is_no_checkpoint(journal: InMemoryJournal) -> None:
    await journal.start("a", "user:a", drafts(0, 2))
    made = await checkpoint(journal, KEY)
    assert made is not None
    other = SecretKey.generate()
    with pytest.raises(ChainBroken, match="signed with a key that you gave"):
        await checkpoint(journal, other)
    with pytest.raises(InvalidInput, match="line 1 of the kept checkpoints is not signed"):
        read_checkpoints([made.text], [other.verifier])
    with pytest.raises(InvalidInput, match="cannot be read"):
        read_checkpoints(['{"number":1}'], [KEY.verifier])


async def test_a_key_is_changed_by_naming_the_one_before(journal: InMemoryJournal) -> None:
    new = SecretKey.generate()
    head = await journal.start("a", "user:a", drafts(0, 2))
    await checkpoint(journal, KEY)
    await journal.append("a", drafts(2, 1), head)
    await checkpoint(journal, new, older_keys=[KEY.verifier])
    assert (await verify(journal, [KEY.verifier, new.verifier])).covered == 5
    with pytest.raises(ChainBroken, match=f"event 1 of run '{CHECKPOINTS}'"):
        await verify(journal, [KEY.verifier])


async def test_nothing_is_signed_over_a_journal_that_lost_something(tmp_path: Path) -> None:
    journal, _ = await filled(tmp_path / "journal.db")
    await journal.start("new", "user:n", drafts(0, 1))
    with closing(sqlite3.connect(tmp_path / "journal.db", isolation_level=None)) as database:
        database.execute("DELETE FROM events WHERE run = 1 AND seq > 2")
        head = "(SELECT hash FROM events WHERE run = 1 AND seq = 2)"
        database.execute(f"UPDATE runs SET length = 3, head = {head} WHERE number = 1")
    with pytest.raises(ChainBroken, match="event 3 of run 'r0' is missing"):
        await checkpoint(journal, KEY)
    await journal.close()


async def test_of_two_who_make_a_checkpoint_at_once_one_is_told(tmp_path: Path) -> None:
    journal, _ = await filled(tmp_path / "journal.db")
    await journal.start("new", "user:n", drafts(0, 1))
    results = await asyncio.gather(*(checkpoint(journal, KEY) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(result, Checkpoint) for result in results) == 1
    assert all(result is None or isinstance(result, Checkpoint | JournalConflict) for result in results)
    await verify(journal, [KEY.verifier])
    await journal.close()


async def test_checkpoints_work_on_postgresql(postgresql: str) -> None:
    journal, kept = await filled(postgresql)
    assert (await verify(journal, [KEY.verifier], kept)).newest == kept[-1]
    await journal.close()


async def test_keys_come_back_from_their_files_and_others_are_refused(tmp_path: Path) -> None:
    KEY.save(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert SecretKey.load(tmp_path / "key").verifier.id == PublicKey.load(tmp_path / "key.pub").id == KEY.verifier.id
    for path in (tmp_path / "key.pub", tmp_path / "nothing", Path(__file__)):
        with pytest.raises(ConfigurationError, match="holds no secret Ed25519 key"):
            SecretKey.load(path)
    with pytest.raises(ConfigurationError, match="holds no public Ed25519 key"):
        PublicKey.load(tmp_path / "key")
    with pytest.raises(ConfigurationError, match="cannot be written"):
        KEY.save(tmp_path / "key")


@settings(max_examples=50, deadline=None)
@given(
    drafts_=st.lists(
        st.builds(
            Draft,
            st.text(max_size=5),
            st.text(st.characters(exclude_categories=()), max_size=9),
            st.text(max_size=5),
            st.floats(allow_nan=False, allow_infinity=False),
        ),
        min_size=1,
        max_size=4,
    ),
    run=st.text(st.characters(exclude_categories=()), min_size=1, max_size=9),
)
async def test_any_history_of_any_text_can_be_exported_and_verified(run: str, drafts_: list[Draft]) -> None:
    journal = InMemoryJournal()
    await journal.start(run, f"user:{run}", drafts_)
    await journal.start(f"{run}2", "user:a", drafts_)
    made = await checkpoint(journal, KEY)
    assert made is not None
    with tempfile.TemporaryDirectory() as folder:
        path = await exported(journal, Path(folder) / "journal.jsonl")
        assert await verify(ExportedJournal(path), [KEY.verifier], [made]) == await verify(journal, [KEY.verifier])
        assert await ExportedJournal(path).read(run) == await journal.read(run)
