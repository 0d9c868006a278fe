"""Events read as spans: a run is a workflow; in it inferences, retrievals and tools.

A run that waits for somebody ends its span there, and begins another when it is resumed, perhaps in another process:
both carry the run's id as the conversation's.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from opentelemetry.util.genai.handler import TelemetryHandler
from opentelemetry.util.genai.invocation import GenAIInvocation, InferenceInvocation, ToolInvocation, WorkflowInvocation
from opentelemetry.util.genai.types import Error, InputMessage, OutputMessage, TextPart

from ringwall.deployment import Told
from ringwall_otel.clock import Clock, ending

STATUS: Final = "ringwall.run.status"
TENANT: Final = "ringwall.tenant"
PROMPT: Final = "ringwall.prompt"
RULE: Final = "ringwall.rule"
COST: Final = "ringwall.cost"
"""Attributes that the conventions have no name for. A cost is in US dollars."""

_MOST_OPEN: Final = 10_000
"""Runs that are read at once; of more the oldest is given up, since its end was dropped."""

_FAILURES: Final = frozenset(("ProviderUnavailable", "BadReply"))
"""Why a provider was passed over that was asked, or would have been."""


@dataclass
class _Open:
    """A span that has begun."""

    invocation: GenAIInvocation
    began: float


@dataclass
class _Run:
    """A stretch of a run: its span, and those of the tools that are at work."""

    span: _Open
    last: float
    tools: dict[str, _Open] = field(default_factory=dict)

    @property
    def workflow(self) -> WorkflowInvocation:
        return cast(WorkflowInvocation, self.span.invocation)


class Reading:
    """Makes spans, and what is measured along with them, of events as they are told."""

    def __init__(self, handler: TelemetryHandler, clock: Clock) -> None:
        self._handler, self._clock = handler, clock
        self._runs: OrderedDict[str, _Run] = OrderedDict()
        self._readers: Mapping[str, Callable[[_Run, Told], None]] = {
            "run.started": self._begun,
            "run.resumed": self._begun,
            "turn.changed": self._changed,
            "data.searched": self._searched,
            "model.replied": self._replied,
            "model.skipped": self._skipped,
            "call.started": self._called,
            "call.finished": self._returned,
            "call.in_doubt": self._returned,
            "call.refused": self._refused,
            "run.waiting": self._ended,
            "run.finished": self._ended,
            "run.failed": self._ended,
            "run.cancelled": self._ended,
        }

    def read(self, event: Told) -> None:
        """Read the next event."""
        reader = self._readers.get(event.kind)
        if reader is None:
            return
        run = self._runs.get(event.run)
        if run is None and event.kind in _INSIDE:
            run = self._begin(event)
        if run is not None:
            run.last = event.at
            reader(run, event)

    def finish(self) -> None:
        """Give up the runs whose ends were not told."""
        while self._runs:
            self._give_up()

    # What a kind of event means

    def _begun(self, run: _Run, event: Told) -> None:
        run.workflow.attributes.update({TENANT: event.tenant} if event.tenant else {})
        body = _contents(event, run.workflow)
        if "question" in body:
            run.workflow.input_messages = [InputMessage("user", [TextPart(body["question"])])]

    def _changed(self, run: _Run, event: Told) -> None:
        if "prompt" in event.facts:
            run.workflow.attributes[PROMPT] = str(event.facts["prompt"])
        body = _contents(event, run.workflow)
        if body.get("changed", {}).get("answer"):
            run.workflow.output_messages = [OutputMessage("assistant", [TextPart(body["changed"]["answer"])])]

    def _searched(self, run: _Run, event: Told) -> None:
        self._clock.began = began = event.at - _milliseconds(event) / 1e3
        span = self._handler.retrieval(context=run.workflow.context, _attach_to_context=False)
        span.top_k = cast(int, event.facts.get("k"))
        self._end(_Open(span, began), event.at)

    def _replied(self, run: _Run, event: Told) -> None:
        facts, seconds = event.facts, _milliseconds(event) / 1e3
        span = self._inference(run, event, seconds)
        span.input_tokens = cast(int, facts.get("prompt_tokens"))
        span.output_tokens = cast(int, facts.get("completion_tokens"))
        span.cache_read_input_tokens = cast(int, facts.get("cached_tokens"))
        if facts.get("finish"):
            span.finish_reasons = [str(facts["finish"])]
        span.attributes[COST] = cast(float, facts.get("cost", 0.0))
        self._end(_Open(span, event.at - seconds), event.at)

    def _skipped(self, run: _Run, event: Told) -> None:
        why = str(event.facts.get("why"))
        if why in _FAILURES:
            self._end(_Open(self._inference(run, event, 0.0), event.at), event.at, error=why)

    def _called(self, run: _Run, event: Told) -> None:
        self._clock.began = event.at
        span = self._handler.tool(
            str(event.facts.get("tool")), tool_type="function", context=run.workflow.context, _attach_to_context=False
        )
        span.tool_call_id = call = _call(event)
        if event.facts.get("rule"):
            span.attributes[RULE] = str(event.facts["rule"])
        span.arguments = _contents(event, span).get("arguments")
        run.tools[call] = _Open(span, event.at)

    def _returned(self, run: _Run, event: Told) -> None:
        opened = run.tools.pop(_call(event), None)
        if opened is not None:
            span = cast(ToolInvocation, opened.invocation)
            span.tool_result = _contents(event, span).get("text")
            status = str(event.facts.get("status", "in_doubt"))
            self._end(opened, event.at, error="" if status == "done" else status)

    def _refused(self, run: _Run, event: Told) -> None:
        self._called(run, event)
        self._returned(run, event)

    def _ended(self, run: _Run, event: Told) -> None:
        status = event.kind.removeprefix("run.")
        error = {"failed": str(event.facts.get("error", "failed")), "cancelled": "cancelled"}.get(status, "")
        self._close(event.run, status, event.at, error, _contents(event, run.workflow).get("what"))

    # Spans

    def _begin(self, event: Told) -> _Run:
        if len(self._runs) >= _MOST_OPEN:
            self._give_up()
        self._clock.began = event.at
        span = self._handler.workflow(event.app, conversation_id=event.run, _attach_to_context=False)
        run = self._runs[event.run] = _Run(_Open(span, event.at), event.at)
        return run

    def _inference(self, run: _Run, event: Told, seconds: float) -> InferenceInvocation:
        self._clock.began = event.at - seconds
        provider, context = str(event.facts.get("provider")), run.workflow.context
        return self._handler.inference(provider, request_model=provider, context=context, _attach_to_context=False)

    def _end(self, opened: _Open, at: float, *, error: str = "", message: str | None = None) -> None:
        span = opened.invocation
        span.span = ending(span.span, max(at, opened.began))
        self._clock.seconds = max(at - opened.began, 0.0)
        if error:
            span.fail(Error(message, error))
        else:
            span.stop()

    def _give_up(self) -> None:
        name, run = next(iter(self._runs.items()))
        self._close(name, "unknown", run.last, "unknown", None)

    def _close(self, name: str, status: str, at: float, error: str, message: str | None) -> None:
        run = self._runs.pop(name)
        for opened in run.tools.values():
            self._end(opened, at, error="unknown")
        run.workflow.attributes[STATUS] = status
        self._end(run.span, at, error=error, message=message)


_INSIDE: Final = frozenset((
    "run.started", "run.resumed", "data.searched", "model.replied", "model.skipped", "call.started", "call.refused",
))  # fmt: skip
"""What happens within a stretch of a run only: who is told of it first has missed that it began."""


def _contents(event: Told, span: GenAIInvocation) -> dict[str, Any]:
    """What an event tells beyond its facts, if that was not withheld and whoever set OpenTelemetry up wants it."""
    return cast("dict[str, Any]", json.loads(event.body)) if event.body and span.should_capture_content else {}


def _call(event: Told) -> str:
    return str(event.facts.get("call"))


def _milliseconds(event: Told) -> float:
    return cast(float, event.facts.get("ms", 0.0))
