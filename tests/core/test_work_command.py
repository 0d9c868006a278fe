"""`ringwall work`: another process takes up what a killed one left, and ends when it is told to."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ringwall import RunStatus
from ringwall_sql import SqlJournal

MAIN = '''
import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

from ringwall import App, CallContext, InMemoryJournal, Label, Principal, Rules, ScriptedModel, call, tool
from ringwall.model import Delta, ModelRequest
from ringwall_sql import SqlJournal

RULES = """
allow user:* ask app:app
allow user:* call tool:book
grant tool:* collection:questions
ask user:* call tool:pay within 1s
"""


class Slow(ScriptedModel):
    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        Path("asked").touch()
        while Path("slow").exists():
            await asyncio.sleep(0.01)
        async for delta in super().stream(request):
            yield delta


@tool(effect="write", idempotent=True, label=Label())
async def book(table: str, context: CallContext) -> str:
    "Book a table."
    Path("begun").touch()
    while Path("hang").exists():
        await asyncio.sleep(0.01)
    Path(f"booked {context.key.replace('/', '-')}").touch()
    return "booked"


@tool(effect="irreversible")
async def pay(euros: int) -> str:
    "Pay."
    return "paid"


model = Slow([call("book", table="7"), "It is booked."])
app = App(policy=Rules(RULES), model=model, tools=[book, pay], journal=SqlJournal("journal.db"), lease=60.0)
paying = App(
    policy=Rules(RULES), model=ScriptedModel([call("pay", euros=1), "Pity."]), tools=[book, pay],
    journal=SqlJournal("journal.db"),
)
alone = App(policy=Rules(RULES), model=model, journal=InMemoryJournal())
nothing = 1


def ask(app: App) -> None:
    app.ask_sync("Book a table", as_=Principal.user("ana"))
'''
CLI = "from ringwall.cli import main; main()"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(MAIN)
    return tmp_path


def python(folder: Path, code: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def worker(folder: Path) -> subprocess.Popen[str]:
    return python(folder, CLI, "work", "main:app", "--every", "0.05")


def until(comes_true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not comes_true():
        assert time.monotonic() < end, "it did not happen in a minute"
        time.sleep(0.02)


def told(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    """Exit status and what was said, once it was told to end."""
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    return process.returncode, out, error


def stands(folder: Path) -> tuple[list[str], list[str]]:
    """The status of each run, and who holds a lease."""

    async def look() -> tuple[list[str], list[str]]:
        journal = SqlJournal(folder / "journal.db")
        found = [str(record.status) for record in await journal.runs()], await journal.workers()
        await journal.close()
        return found

    return asyncio.run(look())


def killed_in_the_middle(folder: Path) -> None:
    """A process that was killed while it booked."""
    (folder / "hang").touch()
    asking = python(folder, "import main; main.ask(main.app)")
    until((folder / "begun").exists)
    asking.kill()
    asking.communicate()
    (folder / "hang").unlink()
    (folder / "asked").unlink()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_takes_up_what_a_killed_process_left_and_ends_quietly_when_it_is_told(folder: Path, number: int) -> None:
    killed_in_the_middle(folder)
    working = worker(folder)
    until(lambda: stands(folder)[0] == [RunStatus.DONE])
    assert told(working, number) == (0, "", "")
    assert stands(folder) == (["done"], [])
    assert len(list(folder.glob("booked *"))) == 1


def test_what_it_has_begun_when_it_is_told_to_end_is_left_to_the_next_at_once(folder: Path) -> None:
    killed_in_the_middle(folder)
    (folder / "slow").touch()
    working = worker(folder)
    until((folder / "asked").exists)
    assert told(working, signal.SIGTERM) == (0, "", "")
    assert stands(folder) == (["running"], [])  # its lease of a minute is over
    (folder / "slow").unlink()
    working = worker(folder)
    until(lambda: stands(folder)[0] == [RunStatus.DONE])
    assert told(working, signal.SIGINT)[0] == 0


def test_it_goes_on_with_what_nobody_answered_in_time(folder: Path) -> None:
    asking = python(folder, "import main; main.ask(main.paying)")
    assert asking.communicate()[1] == ""
    assert stands(folder)[0] == ["waiting"]
    time.sleep(1.1)  # the question is open for a second
    working = python(folder, CLI, "work", "main:paying", "--every", "0.05")
    until(lambda: stands(folder)[0] == [RunStatus.DONE])
    assert told(working, signal.SIGTERM) == (0, "", "")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("main",), 1, "ConfigurationError: no app 'main'; expected: MODULE:NAME"),
        (("none:app",), 1, "ConfigurationError: no app 'none:app': ModuleNotFoundError"),
        (("main:none",), 1, "ConfigurationError: no app 'main:none': AttributeError"),
        (("main:nothing",), 1, "ConfigurationError: 'main:nothing' is a int"),
        (("main:alone",), 1, "ConfigurationError: the app keeps its journal in its own process"),
        (("main:app", "--every", "0"), 2, "Invalid value for '--every'"),
        ((), 2, "Missing argument"),
    ],
)
def test_a_mistake_is_told(folder: Path, words: tuple[str, ...], status: int, said: str) -> None:
    process = python(folder, CLI, "work", *words)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, out, said in error, "Traceback" in error) == (status, "", True, False), error
