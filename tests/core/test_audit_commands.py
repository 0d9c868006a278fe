"""`ringwall audit`: what it says, and to whom."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import chdir, closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ringwall import ACL, cli
from ringwall_guards import MaxLength, Secrets
from ringwall_sql import SqlJournal
from tests.plugins.tampering import rewrite
from tests.scenes import ANA, RULES, app_with

Said = tuple[int, str, str]


class Audit:
    """Types `ringwall audit WORDS`; returns the exit status, and what was said on either side."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["ringwall", "audit", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = self._capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return int(left.value.code or 0), said.out, said.err


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Audit]:
    """In a folder with a journal of two runs, `r0` and `r1`, a policy, and a checkpoint that was kept."""
    with chdir(tmp_path):
        Path("policy.txt").write_text(f"{RULES}\nallow role:auditor audit app:app")
        with app_with(["It is [1] in the cellar."], journal=SqlJournal("journal.db")) as app:
            app.run_sync(app.ingest([("wine.md", "the wine is in the cellar")], ACL.of("role:guest")))
            for run in ("r0", "r1"):
                app.run_sync(app.ask("where is the wine?", as_=ANA, run=run))
        typed = Audit(monkeypatch, capsys)
        assert typed("key", "key")[0] == 0
        assert typed("checkpoint", "journal.db", "--key", "key", "--keep", "kept.jsonl")[0] == 0
        yield typed


def forget_the_last_run() -> None:
    """Cut off the newest run and the checkpoint, records and all."""
    with closing(sqlite3.connect("journal.db", isolation_level=None)) as database:
        database.execute("DELETE FROM events WHERE run > 1")
        database.execute("DELETE FROM runs WHERE number > 1")


def test_a_journal_that_was_cut_off_is_good_until_it_is_held_against_a_checkpoint(audit: Audit) -> None:
    held = ("--key", "key.pub", "--kept", "kept.jsonl")
    status, said, _ = audit("verify", "journal.db", *held)
    assert (status, "every chain verified" in said, "checkpoint 1 of" in said) == (0, True, True)
    forget_the_last_run()
    assert audit("verify", "journal.db")[0] == 0
    status, _, said = audit("verify", "journal.db", *held)
    assert (status, said.startswith("ChainBroken: event 0 of run 'r1' is missing")) == (1, True)


def test_an_exported_journal_is_verified_and_explained_like_the_journal(audit: Audit) -> None:
    status, out, _ = audit("export", "journal.db")
    assert status == 0
    Path("journal.jsonl").write_text(out)
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["run"] for line in lines if "head" in line] == ["r0", "r1", "audit:checkpoints"]
    held = ("--key", "key.pub", "--kept", "kept.jsonl")
    assert audit("verify", "journal.jsonl", *held) == audit("verify", "journal.db", *held)
    who = ("r0", "--as", "user:ana")
    assert audit("explain", "journal.jsonl", *who) == audit("explain", "journal.db", *who)
    Path("journal.jsonl").write_text(out.replace("cellar", "kitchen", 1))
    status, _, said = audit("verify", "journal.jsonl")
    assert (status, "event" in said, "of run 'r0' was changed after it was written" in said) == (1, True, True)


def test_a_run_is_explained_as_a_tree_and_as_json_to_whom_it_belongs(audit: Audit) -> None:
    status, said, _ = audit("explain", "journal.db", "r0", "--as", "user:ana", "--role", "guest")
    assert status == 0
    assert all(part in said for part in ("user:ana: where is the wine?", "D1 passage wine.md#0", "answer: It is [1]"))
    told: dict[str, Any] = json.loads(
        audit("explain", "journal.db", "r0", "--as", "user:ana", "--role", "guest", "--json")[1]
    )
    assert told["seen"][0]["why"] == "for role:guest: user:ana held role:guest"
    assert told["withheld"] == 0


def test_a_role_that_nobody_vouches_for_is_not_held(audit: Audit) -> None:
    said = audit("explain", "journal.db", "r0", "--as", "user:ana")[1]
    assert "where is the wine?" in said
    assert "wine.md" not in said
    assert "events are withheld" in said


@pytest.mark.parametrize(
    "who",
    [
        ("--as", "user:ben"),
        ("--as", "user:ben", "--role", "auditor"),
        ("--as", "user:ben", "--policy", "policy.txt"),
        ("--as", "user:ana", "--tenant", "acme"),
    ],
)
def test_whoever_may_not_audit_is_told_of_no_run(audit: Audit, who: tuple[str, ...]) -> None:
    status, out, said = audit("explain", "journal.db", "r0", *who)
    assert (status, out, said.startswith("UnknownRun: no run 'r0' that you may see")) == (1, "", True)


def test_an_auditor_may_see_the_run_and_of_it_what_the_labels_let(audit: Audit) -> None:
    who = ("--as", "user:eve", "--role", "auditor", "--policy", "policy.txt")
    status, said, _ = audit("explain", "journal.db", "r0", *who)
    assert (status, "wine" in said) == (0, False)
    assert "events are withheld: their labels do not admit you" in said
    said = audit("explain", "journal.db", "r0", *who, "--role", "manager", "--role", "guest")[1]
    assert "where is the wine?" in said


def test_the_kept_file_gets_what_it_lacks_and_nothing_that_contradicts_it(audit: Audit) -> None:
    again = ("checkpoint", "journal.db", "--key", "key", "--keep", "kept.jsonl")
    assert audit(*again)[1] == "nothing came since the last checkpoint\n"
    assert len(Path("kept.jsonl").read_text().splitlines()) == 1
    forget_the_last_run()
    status, _, said = audit(*again)
    assert (status, said.startswith("InvalidInput: kept.jsonl ends with another checkpoint")) == (1, True)
    assert len(Path("kept.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("verify", "journal.db", "--kept", "kept.jsonl"), 1, "InvalidInput: kept checkpoints without a key"),
        (("verify", "journal.db", "--key", "key"), 1, "ConfigurationError: key holds no public Ed25519 key"),
        (("verify", "journal.db", "--key", "key.pub", "--kept", "no"), 1, "InvalidInput: no cannot be read"),
        (("verify", "journal.db", "--key", "key.pub", "--kept", "journal.db"), 1, "InvalidInput: "),
        (("verify", "journal.db", "--key", "key.pub", "--kept", "policy.txt"), 1, "InvalidInput: a checkpoint that"),
        (("verify", "policy.txt"), 1, "JournalUnavailable: "),
        (("checkpoint", "journal.db", "--key", "key.pub"), 1, "ConfigurationError: key.pub holds no secret"),
        (("key", "key"), 1, "ConfigurationError: key cannot be written"),
        (("explain", "journal.db", "r9", "--as", "user:ana"), 1, "UnknownRun: "),
        (("explain", "journal.db", "audit:checkpoints", "--as", "user:ana"), 1, "UnknownRun: "),
        (("explain", "journal.db", "r0", "--as", "ana"), 1, "InvalidInput: principal id 'ana' has no kind"),
        (("explain", "journal.db", "r0", "--as", "user:ana", "--policy", "kept.jsonl"), 1, "BadPolicy: "),
        (("explain", "journal.db", "r0"), 2, "--as"),
    ],
)
def test_a_mistake_is_one_line(audit: Audit, words: tuple[str, ...], status: int, said: str) -> None:
    got, _, err = audit(*words)
    assert (got, said in err) == (status, True)
    assert status == 2 or err.count("\n") == 1


def test_a_journal_is_written_out_as_traces_without_contents(audit: Audit) -> None:
    status, out, _ = audit("export", "journal.db", "--format", "otel")
    assert status == 0
    batches = [json.loads(line) for line in out.splitlines()]
    scopes = [scope for batch in batches for each in batch["resourceSpans"] for scope in each["scopeSpans"]]
    names = [span["name"] for scope in scopes for span in scope["spans"]]
    assert names.count("invoke_workflow app") == 2
    assert "wine" not in out


def test_a_form_that_is_none_is_refused_by_name(audit: Audit) -> None:
    status, _, err = audit("export", "journal.db", "--format", "xml")
    assert status == 2
    assert "xml" in err


def test_the_tree_says_what_guards_did_and_never_with_what(audit: Audit) -> None:
    guards = [Secrets(), MaxLength(2000)]
    with app_with(["Noted."], journal=SqlJournal("journal.db"), guards=guards) as app:
        app.run_sync(app.ask("my key is AKIAIOSFODNN7EXAMPLE", as_=ANA, run="r2"))
    said = audit("explain", "journal.db", "r2", "--as", "user:ana", "--role", "guest")[1]
    assert "secrets rewrote the question" in said
    assert "found 1 aws_access_key" in said
    assert "nothing found: secrets at prompt, secrets at answer, length at answer" in said
    assert "AKIA" not in said


# A journal in PostgreSQL


@pytest.fixture
def on_postgresql(audit: Audit, postgresql: str) -> Audit:
    """As `audit`, with the same two runs in PostgreSQL, too."""
    with app_with(["It is [1] in the cellar."], journal=SqlJournal(postgresql)) as app:
        app.run_sync(app.ingest([("wine.md", "the wine is in the cellar")], ACL.of("role:guest")))
        for run in ("r0", "r1"):
            app.run_sync(app.ask("where is the wine?", as_=ANA, run=run))
    return audit


def test_a_journal_with_a_url_is_signed_verified_exported_and_explained_like_one_in_a_file(
    on_postgresql: Audit, postgresql: str
) -> None:
    audit = on_postgresql
    assert audit("checkpoint", postgresql, "--key", "key", "--keep", "pg.jsonl")[0] == 0
    held = ("--key", "key.pub", "--kept", "pg.jsonl")
    status, said, _ = audit("verify", postgresql, *held)
    assert (status, "every chain verified" in said, "checkpoint 1 of" in said) == (0, True, True)
    Path("pg-journal.jsonl").write_text(audit("export", postgresql)[1])
    assert audit("verify", "pg-journal.jsonl", *held)[1] == said
    explain = ("r0", "--as", "user:ana", "--role", "guest")
    assert "D1 passage wine.md#0" in audit("explain", postgresql, *explain)[1]
    rewrite(postgresql, "r1", None, [])
    status, _, said = audit("verify", postgresql, *held)
    assert (status, said.startswith("ChainBroken: event 0 of run 'r1' is missing")) == (1, True)


def test_a_database_without_a_journal_is_told_of_and_gets_none(audit: Audit, postgresql: str) -> None:
    status, _, said = audit("verify", postgresql)
    assert (status, said.startswith("JournalUnavailable: there is no journal in the database 'postgres'")) == (1, True)
    engine = sa.create_engine(postgresql)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


SECRET = "geheim"


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        (f"postgresql+psycopg://ana:{SECRET}@localhost:1/books", 1, "JournalUnavailable: the database 'books' cannot"),
        (f"postgresql+psycopg://ana:{SECRET}@localhost:port/books", 1, "ConfigurationError: what should be the URL"),
        (f"postgresql+psycopg://ana:x@{SECRET}@localhost:1/", 1, "JournalUnavailable: the database"),
        (f"postgres://ana:{SECRET}@localhost/books", 1, "ConfigurationError: 'postgres' is no kind of database"),
        (f"postgresql+psycopg:/ana:{SECRET}@localhost/books", 2, "it is no file, and no URL such as"),
        ("sqlite:///none.db", 2, "'none.db' is no file, and no URL such as"),
    ],
)
def test_a_url_with_a_slip_is_told_of_without_its_password(audit: Audit, url: str, status: int, said: str) -> None:
    for words in (("verify", url), ("export", url), ("explain", url, "r0", "--as", "user:ana")):
        found, out, told = audit(*words)
        assert (found, out, said in " ".join(told.split())) == (status, "", True), told
        assert SECRET not in told
    assert not Path("none.db").exists()
