"""Log lines: each says which run it is about, and none tells what it may not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog
from structlog.testing import CapturingLogger

from ringwall import CallContext, Pipeline, Turn
from ringwall.deployment.logs import LogSink, logger_for
from ringwall.deployment.sink_contract import EventSinkContract
from ringwall.deployment.sinks import EventSink
from ringwall.errors import StepFailed
from tests.scenes import ANA, RULES, app_with


@pytest.fixture
def said() -> Iterator[CapturingLogger]:
    """What is logged while structlog writes into this."""
    lines = CapturingLogger()
    structlog.configure(processors=[], logger_factory=lambda *names: lines, cache_logger_on_first_use=False)
    yield lines
    structlog.reset_defaults()


class TestLogSink(EventSinkContract):
    @pytest.fixture
    def sink(self, said: CapturingLogger) -> EventSink:
        self.said = said
        return LogSink()

    def put_out(self, sink: EventSink) -> str:
        return "\n".join(map(str, self.said.calls))


async def test_each_event_is_a_line_with_its_run_its_app_and_its_facts(said: CapturingLogger) -> None:
    app = app_with(["Yes."], sinks=[LogSink()])
    run = (await app.ask("Is it?", as_=ANA)).run
    await app.close()
    lines = [call.kwargs for call in said.calls]
    assert {(line["run"], line["app"]) for line in lines} == {(run, "app")}
    (replied,) = (line for line in lines if line["event"] == "model.replied")
    assert replied["provider"] == "scripted"
    assert "body" not in replied


async def test_contents_are_logged_only_if_they_were_wanted_and_granted(said: CapturingLogger) -> None:
    app = app_with(["Yes."], sinks=[LogSink(contents=True)], rules=f"{RULES}\ngrant sink:log collection:questions")
    await app.ask("Is it?", as_=ANA)
    await app.close()
    assert "Is it?" in str(said.calls)


async def test_a_failed_run_is_an_error(said: CapturingLogger) -> None:
    async def fail(turn: Turn) -> Turn:
        raise ValueError("the wine is gone")

    app = app_with(["Yes."], sinks=[LogSink()], pipeline=Pipeline(fail))
    with pytest.raises(StepFailed):
        await app.ask("Is it?", as_=ANA)
    await app.close()
    last = said.calls[-1]
    assert (last.method_name, last.kwargs["event"], last.kwargs["error"]) == ("error", "run.failed", "StepFailed")
    assert "wine" not in str(said.calls)


def test_what_a_step_or_a_tool_logs_names_its_run(said: CapturingLogger) -> None:
    context = CallContext("r1", "0.0", "user:ana", "key", 1.0)
    logger_for(context.run, "acme", tool="book").info("began")
    assert said.calls[0].kwargs == {"run": "r1", "tenant": "acme", "tool": "book", "event": "began"}


def test_structlog_is_not_imported_before_there_is_something_to_say() -> None:
    code = "import sys, ringwall; ringwall.App; from ringwall.deployment.logs import LogSink; LogSink(); "
    code += "assert 'structlog' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
