"""Erasing what is kept of somebody: all of it, whatever comes between, and nothing of anybody else."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ringwall import App, InMemoryJournal, Label, Principal, Rules, RunStatus, ScriptedModel, call, cli, tool
from ringwall.deployment.checkpoints import checkpoint, verify
from ringwall.deployment.erasure import retain
from ringwall.deployment.journal import Draft
from ringwall.deployment.runlog import event_body
from ringwall.deployment.sealing import SealedJournal
from ringwall.errors import ActionDenied, ConfigurationError, InvalidInput, JournalConflict, RunErased, UnknownRun
from ringwall.model import ModelRequest, Reply, Sampling
from ringwall.model.cache import CachedModel, InMemoryReplies
from ringwall.personalization import Profile
from ringwall.pipeline import Pipeline
from ringwall.steps import Agent, Answer, Compose, Personalize, Remember, Retrieve
from ringwall_audit import AesSealer, InMemoryKeys, SecretKey, SqliteKeys
from ringwall_sql import SqlJournal, SqlMemories, SqlProfiles

ANA, BEN = Principal("user:ana-lovelace", "acme"), Principal("user:ben-bitdiddle", "acme")
PRI, AUDE = Principal("user:pri", "acme", frozenset(("privacy",))), Principal("user:aude", "", frozenset(("auditor",)))
RULES = """
allow user:* ask app:app
ask   user:* call tool:book
grant tool:book collection:questions in acme
grant user:ben-bitdiddle collection:questions in acme
allow user:* approve tool:book
allow role:privacy erase subject:*
allow user:ana-lovelace erase subject:self
allow role:auditor audit app:app
"""
KEY = SecretKey.generate()


@tool(effect="write", label=Label())
async def book(text: str) -> str:
    return "booked"


def tell(request: ModelRequest) -> Reply:
    """Books when it is asked to, and says what it was asked."""
    asked = str(request.messages[-1].content)
    return Reply("", (call("book", text=asked),)) if "book" in asked else Reply(f"you said: {asked}")


class CountedModel(ScriptedModel):
    def __init__(self) -> None:
        super().__init__(self.count)
        self.asked = 0

    def count(self, request: ModelRequest) -> Reply:
        self.asked += 1
        return tell(request)


@dataclass
class Days:
    """A clock, in days."""

    today: float = 100.5

    def __call__(self) -> float:
        return self.today * 86400


class Scene:
    """An app on a database and on keys in a folder, which may be opened again."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.database, self.days = folder, database, Days()
        self.open()

    def open(self) -> None:
        self.journal = self.sealed()
        self.sealer = self.journal.sealer
        self.model, self.replies = CountedModel(), InMemoryReplies()
        agent = partial(Agent, sampling=Sampling(temperature=0.0))
        steps = Pipeline(Personalize, Retrieve, Compose, agent, Answer, Remember)
        self.app = App(
            policy=Rules(RULES),
            model=CachedModel(self.model, self.replies),
            tools=[book],
            journal=self.journal,
            profiles=SqlProfiles(self.database),
            memories=SqlMemories(self.database),
            pipeline=steps,
        )

    def sealed(self) -> SealedJournal:
        return SealedJournal(SqlJournal(self.database), AesSealer(SqliteKeys(self.folder / "keys.db"), now=self.days))

    async def reopen(self) -> None:
        await self.app.close()
        self.open()

    async def live(self) -> None:
        """Both ask, are remembered, and wait for a yes."""
        for who, word in ((ANA, "difference-engine"), (BEN, "bitdiddle-lisp")):
            waiting = await self.app.ask(f"book {word}", as_=who, run=f"{word}-books")
            assert waiting.status is RunStatus.WAITING
            await self.app.profiles.put(who, Profile(who.own_grant, name=f"{word}-name"))
            await self.app.ask(f"remember that I like {word}", as_=who, run=f"{word}-remembers")
            await self.app.ask(f"what of {word}?", as_=who, run=f"{word}-asks")

    def raw(self) -> bytes:
        """Every byte of every file; of PostgreSQL, whose files keep what was deleted until `VACUUM`, every row."""
        files = all_bytes(self.folder)
        return files if self.database.startswith("sqlite") else files + _rows(self.database)


def all_bytes(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


def _rows(url: str) -> bytes:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names()
        rows = [row for name in tables for row in connection.exec_driver_sql(f"SELECT t::text FROM {name} t").scalars()]
    engine.dispose()
    return "\n".join(rows).encode()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'all.db'}"
    url: str = request.getfixturevalue("postgresql")
    return url


@pytest.fixture
async def scene(tmp_path: Path, database: str) -> Any:
    scene = Scene(tmp_path, database)
    yield scene
    await scene.app.close()


async def test_nothing_of_the_subject_is_left_in_any_byte_and_all_of_the_others_is(scene: Scene) -> None:
    await scene.live()
    made = await checkpoint(scene.journal, KEY)
    assert made is not None
    before = await verify(scene.journal, [KEY.verifier], [made])
    raw = scene.raw()
    assert b"difference-engine-name" in raw
    assert b"lovelace" in raw  # the keys tell whose they are
    done = await scene.app.erase(ANA, by=PRI)
    assert (done.runs, done.closed, done.unsealed) == (3, 1, 0)
    raw = scene.raw()
    for trace in (b"difference-engine-name", b"like difference-engine", b"lovelace"):
        assert trace not in raw
    assert b"bitdiddle-lisp-name" in raw
    after = await verify(scene.journal, [KEY.verifier], [made])
    assert (after.covered, after.events) == (before.covered, before.events + 3)
    assert (await scene.app.ask("what of bitdiddle-lisp?", as_=BEN)).text.startswith("you said")
    assert "difference" not in repr(await scene.app.memories.recall(ANA, "like", frozenset((ANA.own_grant,)), 9))
    assert (await scene.app.memories.recall(BEN, "like", await scene.app.policy.grants(BEN), 9))[0].text


async def test_what_a_sealed_journal_was_told_never_reached_a_file_of_the_server(
    tmp_path: Path, postgresql: str, postgresql_server: sa.Engine
) -> None:
    """Nor its log: so nobody has to wait for `VACUUM`, or for archives to expire."""
    scene = Scene(tmp_path, postgresql)
    who = Principal("user:charles-babbage", "acme")
    await scene.app.ask("what of the analytical-engine?", as_=who, run="told-in-the-open")
    await scene.app.close()
    with postgresql_server.connect() as connection:
        connection.exec_driver_sql("CHECKPOINT")
        folder = Path(connection.exec_driver_sql("SHOW data_directory").scalar_one())
    raw = all_bytes(folder)
    assert b"told-in-the-open" in raw
    assert b"analytical-engine" not in raw
    assert b"babbage" not in raw


async def test_doors_to_an_erased_run_say_so(scene: Scene) -> None:
    await scene.live()
    assert [q.run for q in await scene.app.waiting(as_=BEN)] == ["difference-engine-books"]
    await scene.app.erase(ANA, by=PRI)
    assert await scene.app.waiting(as_=BEN) == []
    for run in ("difference-engine-books", "difference-engine-asks"):
        with pytest.raises(RunErased, match=f"run '{run}' was erased"):
            await scene.app.resume(run)
        with pytest.raises(RunErased):
            await scene.app.approve(run, by=BEN)
        for who in (ANA, BEN, PRI):
            with pytest.raises(UnknownRun, match="that you may see"):
                await scene.app.events(run, as_=who)
        events = await scene.app.events(run, as_=AUDE)
        assert events[0].kind == "run.started"
        explained = await scene.app.explain(run, as_=AUDE)
        assert (explained.erased, explained.withheld, explained.outcomes) == (len(events), 0, ())


async def test_a_kept_reply_is_forgotten_with_the_asker(scene: Scene) -> None:
    for who in (ANA, BEN):
        for _ in range(2):
            await scene.app.ask("what of it?", as_=who)
    assert scene.model.asked == 2
    await scene.app.erase(ANA, by=ANA)
    for who in (ANA, BEN):
        await scene.app.ask("what of it?", as_=who)
    assert scene.model.asked == 3


async def test_an_erasure_is_told_in_the_journal_without_whose_it_was(scene: Scene) -> None:
    await scene.live()
    done = await scene.app.erase(ANA, by=ANA)
    begun, finished = await scene.journal.read(done.run)
    assert (begun.kind, event_body(begun)["by"], len(event_body(begun)["keys"])) == ("erasure.begun", "itself", 1)
    assert event_body(finished) == {"runs": 3, "closed": 1, "unsealed": 0}
    assert (await scene.app.erase(BEN, by=PRI)).runs == 3
    (told, _) = await scene.journal.read((await scene.journal.runs())[-1].run)
    assert event_body(told)["by"] == PRI.own_grant


async def test_who_may_erase_whom_is_for_the_policy_to_say(scene: Scene) -> None:
    other = Principal("user:pri", "zeta", frozenset(("privacy",)))
    for by, subject in ((BEN, ANA), (BEN, BEN), (ANA, BEN), (other, ANA)):
        with pytest.raises(ActionDenied):
            await scene.app.erase(subject, by=by)
    assert (await scene.app.erase(ANA, by=ANA)).runs == 0


async def test_a_journal_that_is_not_sealed_cannot_forget() -> None:
    async with App(policy=Rules(RULES), model=ScriptedModel(["hm"]), journal=InMemoryJournal()) as app:
        with pytest.raises(ConfigurationError, match="not sealed"):
            await app.erase(ANA, by=PRI)


async def test_runs_from_before_the_journal_was_sealed_are_counted() -> None:
    inner = InMemoryJournal()
    async with App(policy=Rules(RULES), model=ScriptedModel(["hm"]), journal=inner) as app:
        await app.ask("who am I?", as_=ANA)
    async with App(
        policy=Rules(RULES), model=ScriptedModel(["hm"]), journal=SealedJournal(inner, AesSealer(InMemoryKeys()))
    ) as app:
        await app.ask("who am I?", as_=ANA)
        done = await app.erase(ANA, by=PRI)
        assert (done.runs, done.unsealed) == (1, 1)


class Killed(BaseException):
    """The process ends here."""


STEPS = {
    "begin": ("journal.inner", "start"),
    "close a run": ("journal.inner", "append"),
    "profile": ("app.profiles", "forget"),
    "memories": ("app.memories", "forget"),
    "replies": ("replies", "forget"),
    "keys": ("sealer", "destroy"),
}


def killed(scene: Scene, step: str, *, after: bool, patch: pytest.MonkeyPatch) -> None:
    """The process ends before or after this step is done."""
    path, name = STEPS[step]
    part: Any = scene
    for attribute in path.split("."):
        part = getattr(part, attribute)
    truly: Callable[..., Awaitable[object]] = getattr(part, name)

    async def until_then(*args: Any, **options: Any) -> object:
        if after:
            await truly(*args, **options)
        raise Killed

    patch.setattr(part, name, until_then)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("step", STEPS)
async def test_an_erasure_that_was_killed_is_completed_when_it_is_called_again(
    scene: Scene, step: str, *, after: bool
) -> None:
    await scene.live()
    with pytest.MonkeyPatch.context() as patch:
        killed(scene, step, after=after, patch=patch)
        with pytest.raises(Killed):
            await scene.app.erase(ANA, by=PRI)
    await scene.reopen()
    await scene.app.erase(ANA, by=PRI)
    raw = scene.raw()
    for trace in (b"difference-engine-name", b"like difference-engine", b"lovelace"):
        assert trace not in raw
    assert (await scene.journal.record("difference-engine-books")).status is RunStatus.CANCELLED
    assert [r.run for r in await scene.journal.runs(RunStatus.RUNNING)] == []
    assert (await scene.app.events("bitdiddle-lisp-asks", as_=BEN))[0].body
    await scene.journal.verify()


async def test_whoever_still_works_on_a_run_is_refused_its_next_event(scene: Scene) -> None:
    async def erased_meanwhile(request: ModelRequest) -> None:
        await scene.app.erase(ANA, by=PRI)

    class Slow(CountedModel):
        async def stream(self, request: ModelRequest) -> Any:
            await erased_meanwhile(request)
            async for delta in super().stream(request):
                yield delta

    async with App(policy=Rules(RULES), model=Slow(), journal=scene.sealed()) as app:
        with pytest.raises(JournalConflict, match=r"went on elsewhere|was erased"):
            await app.ask("who am I?", as_=ANA, run="slow")
    assert (await scene.journal.record("slow")).status is RunStatus.CANCELLED


# Retention


async def test_runs_are_erased_when_the_days_they_began_on_are_long_over(scene: Scene) -> None:
    for day in (100.5, 101.1, 102.9):
        scene.days.today = day
        await scene.app.ask("what of it?", as_=ANA, run=f"day {day}")
        await scene.app.ask("book it", as_=BEN, run=f"waits {day}")

    async def left() -> list[str]:
        return [r.run for r in await scene.journal.runs() if r.owner in (ANA.own_grant, BEN.own_grant)]

    assert (await retain(scene.journal, 2, by="timer", now=scene.days)).runs == 0
    scene.days.today = 103.0
    done = await retain(scene.journal, 2, by="timer", now=scene.days)
    assert (done.runs, done.closed) == (2, 1)
    assert await left() == ["day 101.1", "waits 101.1", "day 102.9", "waits 102.9"]
    with pytest.raises(RunErased):
        await scene.app.resume("waits 100.5")
    assert (await retain(scene.journal, 0, by="timer", now=scene.days)).runs == 4
    assert await left() == []
    with pytest.raises(InvalidInput):
        await retain(scene.journal, -1, by="timer")


async def test_rules_that_stand_are_no_runs_that_grow_old(scene: Scene) -> None:
    await scene.journal.start("standing:app", "ringwall:standing", [Draft("rule.granted", "{}")])
    scene.days.today += 1000
    assert (await retain(scene.journal, 1, by="timer", now=scene.days)).runs == 0
    assert (await scene.journal.read("standing:app"))[0].body == "{}"


# From the command line


def test_the_command_line_erases_retains_and_explains(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys.db"

    async def lived() -> Scene:
        scene = Scene(tmp_path, database)
        await scene.live()
        await scene.app.close()
        return scene

    def typed(*words: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ringwall", "audit", *map(str, words)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        told = capsys.readouterr()
        return int(left.value.code or 0), told.out + told.err

    scene = asyncio.run(lived())
    explain = ("explain", database, "difference-engine-asks", "--as", ANA.id, "--tenant", "acme")
    assert "--keys" in typed(*explain)[1]
    assert "what of difference-engine?" in typed(*explain, "--keys", keys)[1]
    stores = ("--tenant", "acme", "--profiles", database, "--memories", database)
    assert "3 runs erased, 1 of them open" in typed("erase", ANA.id, database, "--keys", keys, *stores)[1]
    assert typed(*explain, "--keys", keys)[0] != 0
    assert "3 runs erased" in typed("retain", database, "--keys", keys, "--days", 1)[1]
    assert typed("verify", database)[0] == 0
    assert typed("retain", database, "--keys", tmp_path / "none.db", "--days", 1)[0] != 0
    assert not (tmp_path / "none.db").exists()
    assert b"lovelace" not in scene.raw()
