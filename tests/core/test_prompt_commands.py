"""`ringwall prompts`: what it says, and what it refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from ringwall import cli

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Typed]:
    """In a folder with the prompts `dinner@1`, in production, and `dinner@2`: types `ringwall prompts WORDS`."""

    def typed(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ringwall", "prompts", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return int(left.value.code or 0), said.out, said.err

    with chdir(tmp_path):
        Path("1.txt").write_text("Answer.\n")
        Path("2.txt").write_text("Answer.\nNever guess.\n")
        assert typed("add", "dinner", "1", "1.txt")[0] == 0
        assert typed("move", "dinner", "1", "production")[0] == 0
        assert typed("add", "dinner", "2", "2.txt", "--note", "it guessed")[0] == 0
        yield typed


def test_versions_are_listed_with_their_stages(prompts: Typed) -> None:
    assert prompts("move", "dinner", "2", "canary", "--percent", "10") == (0, "dinner@2: canary for 10 %\n", "")
    _, out, _ = prompts("list", "--json")
    told = {(v["template"]["name"], v["template"]["version"]): v["stage"] for v in json.loads(out)}
    assert told[("dinner", "1")] == "production"
    assert told[("dinner", "2")] == "canary"
    status, out, _ = prompts("list")
    assert status == 0
    assert "canary 10 %" in out


def test_a_difference_is_shown(prompts: Typed) -> None:
    assert "+system: Never guess." in prompts("diff", "dinner", "1", "2")[1]


def test_what_was_done_is_told_with_its_note(prompts: Typed) -> None:
    assert prompts("history")[1].splitlines()[-1].endswith("dinner@2 draft it guessed")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("add", "dinner", "2", "1.txt"), 1, "dinner@2 is there already"),
        (("add", "a dinner", "3", "1.txt"), 1, "a prompt named"),
        (("add", "dinner", "3", "nowhere.txt"), 2, "nowhere.txt"),
        (("diff", "dinner", "1", "9"), 1, "has no version '9'"),
        (("diff", "lunch", "1", "2"), 1, "no prompt is named 'lunch'"),
        (("move", "dinner", "2", "canary"), 1, "percent"),
        (("move", "dinner", "2", "moon"), 2, "moon"),
        (("move", "dinner", "1", "retired"), 1, "in production"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_said_in_a_line(prompts: Typed, words: tuple[str, ...], status: int, said: str) -> None:
    code, _, err = prompts(*words)
    assert code == status
    assert said in err


def test_a_registry_that_is_none_is_said_so(prompts: Typed) -> None:
    Path("bad.json").write_text("no JSON")
    code, _, err = prompts("list", "--registry", "bad.json")
    assert code == 1
    assert "bad.json cannot be used" in err
