"""The command line: what a mistake looks like to whoever typed it."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import chdir, closing
from pathlib import Path
from typing import Any

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


# ---- models


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Models]:
    """Types `ringwall models WORDS` in an empty folder."""
    with chdir(tmp_path):
        yield Models(monkeypatch, capsys)


class Models:
    """What is said to whoever types, with the exit status."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> tuple[int, str]:
        status = typed(self._monkeypatch, "models", *words)
        said = self._capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return status, said.out + said.err

    def json(self, *words: str) -> Any:
        status, said = self(*words, "--json")
        assert status == 0
        return json.loads(said)


HOSTED = ("--origin", "hosted", "--model", "gpt-4.1", "--base-url", "https://api.example.org/v1", "--window", "128000")


def test_the_model_that_comes_along_is_listed_as_it_is(models: Models) -> None:
    (bundled,) = models.json("list")
    assert (bundled["name"], bundled["origin"], bundled["licence"]) == ("smollm2-135m-instruct", "open", "Apache-2.0")
    assert bundled["state"] == "there"
    assert models("verify") == (0, "smollm2-135m-instruct: unchanged\n")


def test_models_of_all_origins_are_added_listed_and_removed(models: Models) -> None:
    Path("own.gguf").write_bytes(b"weights")
    Path("chats.jsonl").write_text("{}")
    own = ("--origin", "own", "--base", "smollm2-135m-instruct", "--recipe", "lora", "--data", "chats.jsonl")
    assert models("add", "big", *HOSTED, "--price", "2", "8")[0] == 0
    assert models("add", "desk", "own.gguf", *own, "--kind", "adapter")[0] == 0
    assert models("add", "weights", "own.gguf", "--licence", "MIT", "--source", "https://example.org")[0] == 0
    assert [entry["origin"] for entry in models.json("list")] == ["hosted", "own", "open", "open"]
    assert "gpt-4.1 at" in models("list")[1]
    assert models("remove", "big") == (0, "removed big\n")
    assert len(models.json("list")) == 3


def test_versions_of_a_model_are_staged_compared_and_told_of(models: Models) -> None:
    for version, window in (("1", "1000"), ("2", "2000")):
        assert models("add", f"big@{version}", *HOSTED[:-1], window)[0] == 0
    assert models("stage", "big@1", "production") == (0, "big@1: production\n")
    assert models("stage", "big@2", "canary", "--percent", "5", "--note", "longer") == (0, "big@2: canary for 5 %\n")
    assert [entry["stage"] for entry in models.json("list")[:2]] == ["production", "canary"]
    assert '+ "window": 2000,' in models("diff", "big@1", "big@2")[1]
    status, said = models("history")
    assert (status, len(said.splitlines())) == (0, 2)
    assert said.endswith("big@2 canary longer\n")
    assert models("stage", "big@3", "production")[0] == models("stage", "big@1", "retired")[0] != 0


def test_a_changed_file_is_found_and_not_opened(models: Models) -> None:
    Path("x.gguf").write_bytes(b"weights")
    assert models("add", "x", "x.gguf", "--licence", "MIT", "--source", "here")[0] == 0
    Path("x.gguf").write_bytes(b"weighed")
    assert models("verify", "x") == (1, "x: changed\n")
    status, said = models("inspect", "x")
    assert status == 1
    assert said.startswith("BadModelFile: ")
    assert "is not the file that was pinned as 'x'" in said


def test_what_a_file_tells_is_shown_and_written_as_json(models: Models) -> None:
    told = models.json("inspect", "smollm2-135m-instruct")
    assert (told["layers"], told["kv_bytes"], told["flops"]) == (30, 23_040, 268_959_744)
    assert told["kv_bytes_of_window"] == 8192 * 23_040
    assert told["misfit"] == ""
    shown = models("inspect", told["path"])[1]
    assert all(word in shown for word in ("llama", "Q4_1, 5.74 bits per weight", "8,192 tokens", "134,515,008"))


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("inspect", "nobody"), 1, "InvalidInput: 'nobody' is no file"),
        (("verify", "nobody"), 1, "ConfigurationError: no model is named 'nobody'"),
        (("remove", "smollm2-135m-instruct"), 1, "ConfigurationError: "),
        (("add", "x", "nobody.gguf"), 1, "nobody.gguf cannot be read: No such file"),
        (("add", "x"), 2, "needs its file"),
        (("add", "x", "models.json", "--origin", "own"), 2, "--data FILE"),
        (("add", "two words", *HOSTED), 1, "ConfigurationError: the model 'two words' cannot be added"),
        (("tune", "--formats", "Q9"), 1, "InvalidInput: the format 'Q9'"),
        (("tune", "--threads", "many"), 2, "is no number of threads"),
    ],
)
def test_a_mistake_about_models_is_one_line(models: Models, words: tuple[str, ...], status: int, said: str) -> None:
    got, shown = models(*words)
    assert got == status
    assert said in shown
    assert status == 2 or shown.count("\n") == 1


def test_without_the_plugin_hosted_models_are_listed_and_files_ask_for_the_extra(
    models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert models("add", "big", *HOSTED)[0] == 0
    Path("x.gguf").write_bytes(b"weights")
    for module in [name for name in sys.modules if name.startswith("ringwall_llama")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    assert [entry["name"] for entry in models.json("list")] == ["big"]
    status, said = models("inspect", "x.gguf")
    assert status == 1
    assert "pip install 'ringwall[llama]'" in said


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
