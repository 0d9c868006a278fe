"""`ringwall policy`: what it says, and how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest

from ringwall import ACL, cli
from ringwall_sql import SqlJournal
from tests.scenes import ANA, RULES, app_with

Said = tuple[int, str, str]


class Typing:
    """Types `ringwall policy WORDS`; returns the exit status, and what was said on either side."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *words: str) -> Said:
        self._monkeypatch.setattr(sys, "argv", ["ringwall", "policy", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = self._capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        return int(left.value.code or 0), said.out, said.err


CASBIN = """p, role:guest, *, app:app, ask, allow
p, doc:*, *, tool:book, call, ask
g, user:ana, role:guest, *
"""
APP = """
from ringwall import App, Rules, ScriptedModel, tool

@tool(effect="irreversible")
def pay(amount: int) -> str:
    "Pay."
    return "paid"

app = App(name="app", policy=Rules(""), model=ScriptedModel(["Yes."]), tools=[pay])
other = "no app"
"""


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Typing]:
    """In a folder with policies, tests of them, an app, and a journal of one run."""
    with chdir(tmp_path):
        Path("policy.txt").write_text(
            f"{RULES}allow role:auditor audit app:app\ngrant role:auditor collection:questions\n"
        )
        Path("draft.txt").write_text(f"{Path('policy.txt').read_text()}deny user:ana ask app:*\n")
        Path("policy.csv").write_text(CASBIN)
        Path("good.tests").write_text("allow user:ana (guest) ask app:app\nask doc:x call tool:book\n")
        Path("bad.tests").write_text("allow user:eve ask app:app\n")
        Path("ringwall_tested_app.py").write_text(APP)
        with app_with(["It is in the cellar."], journal=SqlJournal("journal.db")) as app:
            app.run_sync(app.ingest([("wine.md", "the secret wine is in the cellar")], ACL.of("role:guest")))
            app.run_sync(app.ask("where is the wine?", as_=ANA, run="r0"))
        yield Typing(monkeypatch, capsys)


def test_check_names_lines_and_ends_with_one_if_a_line_is_to_be_mended(typed: Typing) -> None:
    assert typed("check", "policy.txt", "--role", "guest", "--role", "manager", "--role", "auditor")[0] == 0
    status, said, _ = typed("check", "draft.txt", "--role", "guest", "--json")
    found = json.loads(said)
    assert (status, {finding["kind"] for finding in found}) == (1, {"held-by-nobody"})


def test_check_knows_the_tools_of_an_app(typed: Typing) -> None:
    status, said, _ = typed("check", "policy.txt", "--app", "ringwall_tested_app:app")
    assert (status, "there is no tool 'book'" in said) == (1, True)


@pytest.mark.parametrize("policy", ["policy.txt", "policy.csv"])
def test_tests_pass_or_say_what_came_out(typed: Typing, policy: str) -> None:
    status, said, _ = typed("test", policy, "good.tests")
    assert (status, "2 tests, 0 failed" in said) == (0, True)
    status, said, _ = typed("test", policy, "bad.tests")
    assert (status, "got: deny, by default: no rule lets user:eve ask app:app" in said) == (1, True)
    status, said, _ = typed("test", policy, "bad.tests", "--json")
    assert (status, json.loads(said)["failed"]) == (1, 1)


def test_explain_tells_the_rule_and_the_smallest_change(typed: Typing) -> None:
    status, said, _ = typed("explain", "policy.txt", "user:eve", "ask", "app:app", "--tenant", "acme")
    assert (status, "smallest change: add a rule: allow user:eve ask app:app in acme" in said) == (0, True)
    assert "or: add a role: member user:eve role:guest in acme" in said
    status, said, _ = typed("explain", "policy.csv", "user:ana", "call", "tool:book", "--with", "doc:x", "--json")
    assert (status, [part["decision"]["verdict"] for part in json.loads(said)["parts"]]) == (0, ["ask", "deny"])


def test_simulate_lists_differences_for_who_may_audit_and_shows_no_contents(typed: Typing) -> None:
    asked = ("simulate", "journal.db", "--policy", "policy.txt", "--as", "user:uta", "--role", "auditor")
    status, said, _ = typed(*asked, "--new", "policy.txt")
    assert (status, "in 1 runs, 0 would be others" in said) == (0, True)
    status, said, _ = typed(*asked, "--new", "draft.txt")
    assert (status, "user:ana ask app:app: allow, would be deny" in said) == (1, True)
    assert not {"cellar", "secret", "where"} & set(said.split())
    status, said, _ = typed(*asked, "--new", "policy.csv", "--json", "--since", "2020-01-01")
    assert (status, json.loads(said)["runs"]) == (0, 1)
    assert typed(*asked, "--new", "draft.txt", "--until", "2020-01-01")[0] == 0
    assert typed(*asked[:5], "user:eve", "--new", "draft.txt")[0] == 0


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("check", "none.txt"), 2, "none.txt"),
        (("check", "good.tests"), 1, "BadPolicy: rules, line 1"),
        (("check", "policy.csv"), 1, "InvalidInput: policy.csv holds Casbin's lines"),
        (("check", "policy.txt", "--app", "nothing:app"), 1, "ConfigurationError: no app 'nothing:app'"),
        (("check", "policy.txt", "--app", "app"), 1, "ConfigurationError: no app 'app'"),
        (("check", "policy.txt", "--app", "ringwall_tested_app:other"), 1, "ConfigurationError: "),
        (("test", "policy.txt", "policy.txt"), 1, "BadPolicy: policy test, line "),
        (("explain", "policy.txt", "eve", "ask", "app:app"), 1, "InvalidInput: principal id 'eve' has no kind"),
        (("explain", "policy.txt", "user:e", "ask", "app:app", "--with", "x"), 1, "InvalidInput: principal id 'x'"),
        (("simulate", "policy.txt", "--policy", "policy.txt", "--new", "policy.txt", "--as", "user:a"), 1, "Journal"),
    ],
)
def test_a_mistake_is_one_line(typed: Typing, words: tuple[str, ...], status: int, said: str) -> None:
    got, _, err = typed(*words)
    assert (got, said in err) == (status, True)
    assert status == 2 or err.count("\n") == 1
