"""Journal, profiles and memories in SQLite."""

from __future__ import annotations

import asyncio
import random
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from ringwall.deployment.journal import Draft, Event, Head, Journal, RunRecord
from ringwall.deployment.journal_contract import OWNER, JournalContract, bodies, drafts
from ringwall.errors import ChainBroken, ConfigurationError, JournalUnavailable, StoreError
from ringwall.personalization import MemoryStore, Profile, ProfileStore
from ringwall.personalization.contract import ANA, BEN, EVERYTHING, MemoryStoreContract, ProfileStoreContract, memory
from ringwall.principal import Principal
from ringwall_sql import SqlJournal, SqlMemories, SqlProfiles

pytestmark = pytest.mark.asyncio


class TestSqlProfiles(ProfileStoreContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[ProfileStore]:
        store = SqlProfiles(tmp_path / "state.db")
        yield store
        await store.close()


class TestSqlMemories(MemoryStoreContract):
    @pytest_asyncio.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[MemoryStore]:
        store = SqlMemories(tmp_path / "state.db")
        yield store
        await store.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest_asyncio.fixture
async def journal(path: Path) -> AsyncIterator[Journal]:
    journal = SqlJournal(path, busy_timeout=0.2)
    yield journal
    await journal.close()


class TestSqlJournal(JournalContract):
    @pytest_asyncio.fixture
    async def journal(self, journal: Journal, path: Path) -> Journal:
        self.path = path
        return journal

    async def reopen(self, journal: Journal) -> Journal:
        await journal.close()
        return SqlJournal(self.path)

    async def rewrite(self, journal: Journal, run: str, record: RunRecord | None, events: Sequence[Event]) -> None:
        rows = [(e.run, e.seq, e.kind, e.at, e.label, e.body, e.previous, e.hash) for e in events]
        with sqlite3.connect(self.path) as database:
            (number,) = database.execute("SELECT number FROM runs WHERE run = ?", (run,)).fetchone()
            database.execute("DELETE FROM events WHERE run = ?", (number,))
            insert = f"INSERT INTO events VALUES ({number}, ?2, ?3, ?4, ?5, ?6, ?7, ?8)"
            database.executemany(insert, rows)
            if record is None:
                database.execute("DELETE FROM runs WHERE number = ?", (number,))
            else:
                update = "UPDATE runs SET owner = ?, length = ?, head = ? WHERE number = ?"
                database.execute(update, (record.owner, record.length, record.head, number))
        database.close()


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's transaction that keeps everybody else from writing."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


async def test_a_locked_database_is_reported_and_used_again_once_it_is_free(journal: Journal, path: Path) -> None:
    head = await journal.start("r", OWNER, drafts("0"))
    with locked(path):
        with pytest.raises(JournalUnavailable, match=r"locked.*next: end what holds the lock"):
            await journal.append("r", drafts("1"), head)
        with pytest.raises(JournalUnavailable):
            await journal.start("other", OWNER, drafts("0"))
        assert bodies(await journal.read("r")) == ["0"]
    await journal.append("r", drafts("1"), head)
    assert await journal.verify() == 2


async def test_the_event_loop_goes_on_while_the_database_is_locked(path: Path) -> None:
    journal = SqlJournal(path, busy_timeout=30)
    head = await journal.start("r", OWNER, drafts("0"))
    with locked(path) as other:
        waiting = asyncio.ensure_future(journal.append("r", drafts("1"), head))
        assert bodies(await journal.read("r")) == ["0"]
        assert not waiting.done()
        other.execute("ROLLBACK")
        assert await waiting == Head(2, (await journal.read("r"))[-1].hash)
    await journal.close()


async def test_a_database_locked_from_the_start_cannot_be_opened(path: Path) -> None:
    with locked(path), pytest.raises(JournalUnavailable, match="locked"):
        SqlJournal(path, busy_timeout=0.1)


async def test_a_read_only_database_can_be_read_and_verified_but_not_written(journal: Journal, path: Path) -> None:
    head = await journal.start("r", OWNER, drafts("0"))
    audit = SqlJournal(f"sqlite:///file:{path}?mode=ro&uri=true")
    with pytest.raises(JournalUnavailable, match=r"read-only.*next: allow"):
        await audit.append("r", drafts("1"), head)
    assert bodies(await audit.read("r")) == ["0"]
    assert await audit.verify() == 1
    await audit.close()


async def test_a_full_disk_is_reported_and_leaves_what_was_written(journal: Journal, path: Path) -> None:
    head = await journal.start("r", OWNER, drafts("0"))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    written_ahead = path.with_name(f"{path.name}-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (written_ahead + 100, unlimited[1]))
    try:
        with pytest.raises(JournalUnavailable, match=r"next: .* disk"):
            await journal.append("r", drafts("x" * 100_000), head, durable=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    await journal.append("r", drafts("1"), head)
    assert bodies(await journal.read("r")) == ["0", "1"]
    assert await journal.verify() == 2


async def test_a_damaged_database_is_reported(journal: Journal, path: Path) -> None:
    head = await journal.start("r", OWNER, drafts("0"))
    await journal.append("r", drafts("x" * 100_000), head)
    await journal.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 90_000)
    with pytest.raises(JournalUnavailable, match=r"damaged.*next: .*backup"):
        await SqlJournal(path).verify()


async def test_what_is_no_database_or_has_no_directory_cannot_be_opened(tmp_path: Path) -> None:
    path = Path(__file__)
    with pytest.raises(JournalUnavailable, match="not an SQLite database"):
        SqlJournal(path)
    with pytest.raises(JournalUnavailable, match="cannot be opened; next: create its directory"):
        SqlJournal(tmp_path / "nowhere" / "journal.db")
    with pytest.raises(StoreError, match="not an SQLite database"):
        SqlMemories(path)


@pytest.mark.parametrize("url", [":memory:", "sqlite://", "sqlite:///:memory:"])
async def test_a_database_in_memory_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="in-memory stores"):
        SqlJournal(url)


async def test_a_closed_journal_takes_nothing(path: Path) -> None:
    journal = SqlJournal(path)
    head = await journal.start("r", OWNER, drafts("0"))
    await journal.close()
    with pytest.raises(JournalUnavailable, match="closed"):
        await journal.append("r", drafts("1"), head)


async def test_what_the_database_refuses_of_one_caller_harms_no_other(journal: Journal) -> None:
    not_a_time = [Draft("noted", "0", at=float("nan"))]
    good = [journal.start(f"r{i}", OWNER, drafts("0")) for i in range(3)]
    bad, *fine = await asyncio.gather(journal.start("bad", OWNER, not_a_time), *good, return_exceptions=True)
    assert isinstance(bad, JournalUnavailable)
    assert [type(head) for head in fine] == [Head] * 3
    assert [r.run for r in await journal.runs()] == ["r0", "r1", "r2"]
    assert await journal.verify() == 3


async def test_everything_can_wait_for_the_disk(path: Path) -> None:
    journal = SqlJournal(path, synchronous="FULL")
    head = await journal.start("r", OWNER, drafts("0"))
    await journal.append("r", drafts("1"), head, durable=True)
    assert await journal.verify() == 2
    await journal.close()


async def test_the_log_of_sqlite_is_copied_back_though_nothing_waits_for_the_disk(path: Path) -> None:
    journal = SqlJournal(path)
    for number in range(2500):
        await journal.start(str(number), OWNER, [Draft("run.started", "x" * 4096)])
    size = path.with_name(path.name + "-wal").stat().st_size
    await journal.close()
    assert size < 40e6  # 2500 commits of some 5 pages each would be 50 MB


async def test_the_events_of_a_run_without_record_are_found(journal: Journal, path: Path) -> None:
    for run in ("a", "b"):
        await journal.start(run, OWNER, drafts("0"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DELETE FROM runs WHERE run = 'b'")
    with pytest.raises(ChainBroken, match="record of run number 2 is missing"):
        await journal.verify()


WRITE_FOREVER = """
import asyncio, sys
from ringwall.deployment.journal import Draft
from ringwall_sql import SqlJournal

async def write(journal, name):
    head = await journal.start(name, "user:ana", [Draft("noted", "0")])
    for number in range(1_000_000):
        head = await journal.append(name, [Draft("noted", str(number))] * 3, head, durable=number % 10 == 0)
        print(name, head.length, head.hash, flush=True)

async def main():
    journal = SqlJournal(sys.argv[1])
    await asyncio.gather(*(write(journal, f"{sys.argv[2]}-{i}") for i in range(3)))

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9_at_any_moment(path: Path) -> None:
    acknowledged: dict[str, tuple[int, str]] = {}
    for life in range(3):
        writer = run_python(WRITE_FOREVER, path, str(life))
        assert writer.stdout is not None
        lines = [writer.stdout.readline() for _ in range(random.randrange(1, 200))]
        writer.kill()
        lines += writer.communicate()[0].splitlines(keepends=True)
        for line in lines:
            if line.endswith("\n"):
                name, length, head = line.split()
                acknowledged[name] = int(length), head
    journal = SqlJournal(path)
    assert acknowledged
    for run, (end, hash_) in acknowledged.items():
        assert (await journal.read(run))[end - 1].hash == hash_
    assert await journal.verify() >= sum(end for end, _ in acknowledged.values())
    await journal.close()


RACE = """
import asyncio, sys
from ringwall.deployment.journal import Draft, Head
from ringwall.errors import JournalConflict
from ringwall_sql import SqlJournal

async def main():
    journal = SqlJournal(sys.argv[1])
    firsts = [(await journal.read(record.run))[0] for record in await journal.runs()]
    print("ready", flush=True)
    input()
    won = 0
    for first in firsts:
        try:
            await journal.append(first.run, [Draft("noted", sys.argv[2])] * 2, Head(1, first.hash))
            won += 1
        except JournalConflict:
            pass
    await journal.start(f"new-{sys.argv[2]}", "user:ana", [Draft("noted", "0")])
    print(won)
    await journal.close()

asyncio.run(main())
"""


async def test_of_processes_that_go_on_with_the_same_run_exactly_one_wins(journal: Journal, path: Path) -> None:
    for number in range(40):
        await journal.start(f"r{number}", OWNER, drafts("0"))
    racers = [run_python(RACE, path, str(racer)) for racer in range(3)]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert sum(int(racer.communicate()[0]) for racer in racers) == 40
    for number in range(40):
        assert bodies(await journal.read(f"r{number}")) in (["0", x, x] for x in "012")
    assert await journal.verify() == 40 * 3 + 3


OPEN = """
import asyncio, sys
from ringwall.personalization import Profile
from ringwall.principal import Principal
from ringwall.principal import Principal
from ringwall_sql import SqlJournal, SqlProfiles

async def main():
    who = Principal.user(sys.argv[2])
    journal, profiles = SqlJournal(sys.argv[1]), SqlProfiles(sys.argv[1])
    await profiles.put(who, Profile(who.own_grant, sys.argv[2]))
    await profiles.close()
    await journal.close()

asyncio.run(main())
"""


async def test_processes_may_create_one_database_at_the_same_time(path: Path) -> None:
    names = ["ana", "ben", "cleo", "dora"]
    processes = [run_python(OPEN, path, name) for name in names]
    assert [process.communicate()[0] for process in processes] == [""] * 4
    assert [process.returncode for process in processes] == [0] * 4
    profiles = SqlProfiles(path)
    assert [(await profiles.get(Principal.user(name))).name for name in names] == names
    await profiles.close()


async def test_profiles_and_memories_outlive_their_process_in_the_journals_database(
    journal: Journal, path: Path
) -> None:
    profiles, memories = SqlProfiles(path), SqlMemories(path)
    await profiles.put(ANA, Profile(ANA.own_grant, "Ana"))
    await memories.add(ANA, [memory(ANA, "1", "likes red wine")])
    await profiles.close()
    await memories.close()
    profiles, memories = SqlProfiles(path), SqlMemories(path)
    assert (await profiles.get(ANA)).name == "Ana"
    assert await memories.recall(ANA, "wine", EVERYTHING, 1) == [memory(ANA, "1", "likes red wine")]
    await profiles.close()
    await memories.close()
    assert await journal.verify() == 0


async def test_a_locked_store_says_so(path: Path) -> None:
    memories = SqlMemories(path, busy_timeout=0.1)
    with locked(path):
        with pytest.raises(StoreError, match="locked"):
            await memories.add(ANA, [memory(ANA, "1", "likes red wine")])
        assert await memories.recall(ANA, "wine", EVERYTHING, 1) == []
    await memories.close()


async def test_the_oldest_memories_of_an_owner_make_room_and_the_newest_come_first(path: Path) -> None:
    memories = SqlMemories(path, limit=2)
    await memories.add(BEN, [memory(BEN, "0", "a fact")])
    for id_ in ("1", "2", "3", "2"):
        await memories.add(ANA, [memory(ANA, id_, "a fact")])
    assert [m.id for m in await memories.recall(ANA, "fact", EVERYTHING, 9)] == ["2", "3"]
    assert len(await memories.recall(BEN, "fact", EVERYTHING, 9)) == 1
    await memories.close()


def run_python(program: str, path: Path, name: str) -> subprocess.Popen[str]:
    """A process of its own that runs `program` on the database at `path`."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", program, str(path), name], stdin=pipe, stdout=pipe, text=True)
