"""What every event sink must pass. Shipped to plugin authors; needs pytest with pytest-asyncio.

class TestMySink(EventSinkContract):
    @pytest.fixture
    def sink(self) -> EventSink: ...

    def put_out(self, sink: EventSink) -> str: ...   # all that it sent, wrote or kept, as one text
"""

from __future__ import annotations

from typing import Final

import pytest

from ringwall.deployment.facts import facts_of
from ringwall.deployment.sinks import EventSink, Told
from ringwall.schema import JSON, dumps

SECRET: Final = "secret-4711"
"""Stands in the contents of each event below, and in nothing else."""

_LABEL: Final = dumps({"secrecy": [["user:ana"]], "influence": ["user:ana"]})
_CALL: Final[dict[str, JSON]] = {"call": "0.0", "tool": "book", "arguments": f'{{"table": "{SECRET}"}}'}
_RESULT: Final[dict[str, JSON]] = {"call": "0.0", "status": "done", "text": SECRET, "label": {}}
_BODIES: Final[tuple[tuple[str, dict[str, JSON]], ...]] = (
    ("run.started", {"app": "app", "steps": ["Agent"], "principal": {"id": SECRET}, "question": SECRET}),
    ("turn.changed", {"next": 1, "changed": {"prompt": "answer@1", "answer": SECRET}}),
    ("data.searched", {"k": 4, "found": [SECRET], "scores": [0.5], "ms": 1.5}),
    ("model.skipped", {"provider": "far", "why": "ProviderUnavailable"}),
    ("model.replied", {
        "provider": "near", "prompt_tokens": 7, "cached_tokens": 2, "completion_tokens": 3, "cost": 0.5,
        "finish": SECRET, "calls": [["book", SECRET]], "ms": 2.5,
    }),
    ("call.asked", {**_CALL, "reason": SECRET, "rule": "rules:1", "label": {}}),
    ("call.approved", {"call": "0.0", "by": SECRET, "note": SECRET}),
    ("call.started", {**_CALL, "rule": "rules:1", "reason": SECRET}),
    ("call.finished", _RESULT),
    ("call.refused", {**_CALL, **_RESULT, "call": "0.1", "status": "refused", "rule": "flow"}),
    ("call.started", {**_CALL, "call": "0.2", "rule": "rules:1", "reason": SECRET}),
    ("call.in_doubt", {"call": "0.2", "reason": SECRET}),
    ("a.kind.of.another.plugin", {"text": SECRET}),
    ("flow.denied", {"receiver": SECRET}),
    ("run.failed", {"error": "StepFailed", "what": SECRET}),
)  # fmt: skip


def a_run(run: str, *, contents: bool) -> list[Told]:
    """A run in which about everything happens, as a sink is told of it with its contents, or without."""
    events = []
    for seq, (kind, body) in enumerate(_BODIES):
        text = dumps(body)
        shown = (text, _LABEL) if contents else ("", "")
        events.append(Told("app", "", run, seq, kind, 1_700_000_000.0 + seq, facts_of(kind, text), *shown))
    return events


@pytest.mark.asyncio
class EventSinkContract:
    """Override the fixture `sink` and the method `put_out`."""

    @pytest.fixture
    def sink(self) -> EventSink:
        raise NotImplementedError("return a sink")

    def put_out(self, sink: EventSink) -> str:
        """Return all that the sink sent, wrote or kept, as one text."""
        raise NotImplementedError("return what the sink put out")

    async def test_it_says_who_it_is(self, sink: EventSink) -> None:
        assert sink.principal.id.startswith("sink:")

    async def test_it_puts_out_something_of_a_run(self, sink: EventSink) -> None:
        await sink.receive(a_run("r1", contents=sink.contents))
        await sink.close()
        assert self.put_out(sink)

    async def test_of_withheld_contents_it_puts_out_nothing(self, sink: EventSink) -> None:
        await sink.receive(a_run("r1", contents=False))
        await sink.close()
        assert SECRET not in self.put_out(sink)

    async def test_it_takes_a_run_whose_beginning_was_dropped(self, sink: EventSink) -> None:
        for event in a_run("r1", contents=sink.contents)[3:]:
            await sink.receive([event])
        await sink.close()

    async def test_it_takes_runs_whose_ends_never_come(self, sink: EventSink) -> None:
        runs = [a_run(f"r{number}", contents=sink.contents)[:-1] for number in range(3)]
        for together in zip(*runs, strict=True):
            await sink.receive(together)
        await sink.close()

    async def test_it_takes_nothing_for_an_answer(self, sink: EventSink) -> None:
        await sink.receive([])
        await sink.close()


__all__ = ["SECRET", "EventSinkContract", "a_run"]
