"""The command line: what a mistake looks like to whoever typed it."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from ringwall import cli, plugins
from ringwall.errors import ConfigurationError, UnknownPlugin
from ringwall_sql import SqlJournal
from tests.scenes import ANA, app_with


def typed(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Type `ringwall WORDS`; return the exit status."""
    monkeypatch.setattr(sys, "argv", ["ringwall", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "journal.db"
    with app_with(["hi"], journal=SqlJournal(path)) as app:
        app.ask_sync("hello", as_=ANA)
    return path


def test_a_good_journal_is_said_to_be_good(
    journal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert typed(monkeypatch, "audit", "verify", str(journal)) == 0
    assert "every chain verified" in capsys.readouterr().out


def test_a_changed_event_is_one_line_and_status_1(
    journal: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(sqlite3.connect(journal)) as database, database:
        database.execute("update events set body = replace(body, 'hello', 'hullo')")
    assert typed(monkeypatch, "audit", "verify", str(journal)) == 1
    said = capsys.readouterr()
    assert said.err.startswith("ChainBroken: event 0 of run")
    assert "Traceback" not in said.out + said.err


@pytest.mark.parametrize(
    ("content", "status", "said"),
    [
        (None, 2, "Error"),
        (b"this is no database, whatever its name says", 1, "JournalUnavailable: "),
    ],
)
def test_what_is_no_journal_is_refused_without_a_stack_trace(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes | None,
    status: int,
    said: str,
) -> None:
    path = tmp_path / "j.db"
    if content is not None:
        path.write_bytes(content)
    assert typed(monkeypatch, "audit", "verify", str(path)) == status
    shown = capsys.readouterr().err
    assert said in shown.replace("\n", " ")
    assert "Traceback" not in shown


def test_an_unknown_command_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(monkeypatch, "dance") == 2
    assert "No such command" in capsys.readouterr().err


def test_the_doctor_lists_every_plugin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert typed(monkeypatch, "doctor") == 0
    shown = capsys.readouterr().out
    assert all(name in shown for ring in plugins.RINGS for name in plugins.names(ring))


def test_a_plugin_that_nobody_offers_is_named_beside_those_there_are() -> None:
    with pytest.raises(UnknownPlugin, match=r"no data plugin is named 'chrome'; expected: one of: chroma") as caught:
        plugins.find("data", "chrome")
    assert "install the distribution that offers it" in str(caught.value)


def test_a_plugin_whose_needs_are_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("ringwall_chroma")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "chromadb", None)
    with pytest.raises(UnknownPlugin, match=r"needs 'chromadb'.*next: pip install 'ringwall\[chroma\]'"):
        plugins.find("data", "chroma")


def test_a_ring_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="there is no ring 'database'"):
        plugins.find("database", "sql")
