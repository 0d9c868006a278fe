"""OpenTelemetry: what spans and measurements a run makes, live and from a journal, and what they never tell."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from ringwall import ACL, App, InMemoryJournal, Pipeline, Turn, call
from ringwall.deployment import EventSink, Told
from ringwall.deployment.sink_contract import SECRET, EventSinkContract, a_run
from ringwall.errors import ChainBroken, StepFailed
from ringwall_otel import OtelExport, OtelSink
from tests.scenes import ANA, CARLA, RULES, app_with, booking_tool

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"


class Collector:
    """Takes spans and measurements in this process."""

    def __init__(self, **options: Any) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracers, meters = TracerProvider(), MeterProvider([self._reader])
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.sink = OtelSink(tracers=tracers, meters=meters, **options)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def span(self, name: str) -> ReadableSpan:
        (found,) = (span for span in self.spans if span.name == name)
        return found

    def metrics(self) -> dict[str, list[Any]]:
        data = self._reader.get_metrics_data()
        assert data is not None
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
        return {metric.name: list(metric.data.data_points) for scope in scopes for metric in scope.metrics}

    def text(self) -> str:
        return "\n".join([*(span.to_json() for span in self.spans), str(self.metrics())])


class TestSink(EventSinkContract):
    @pytest.fixture
    def sink(self) -> Iterator[EventSink]:
        self.collector = Collector()
        return self.collector.sink  # type: ignore[return-value]

    def put_out(self, sink: EventSink) -> str:
        return self.collector.text()


def facts(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


async def booking(collector: Collector, **parts: Any) -> App:
    """An app whose model books a table and then answers from a document; both were asked for and done."""
    app = app_with(
        [call("book", table="7"), "Booked, as [1] says."],
        sinks=[collector.sink],
        tools=[booking_tool([])],
        rules=RULES.replace("ask   doc:*", "allow doc:*").replace(' because "a document may not book"', ""),
        **parts,
    )
    await app.ingest([("menu.md", "table 7 is free")], ACL.of("public"))
    return app


async def test_a_run_is_a_workflow_with_its_retrieval_inferences_and_tool_inside() -> None:
    collector = Collector()
    app = await booking(collector)
    result = await app.ask("book a table", as_=ANA)
    await app.close()
    root = collector.span("invoke_workflow app")
    assert root.context is not None
    assert facts(root)["gen_ai.conversation.id"] == result.run
    assert facts(root)["ringwall.run.status"] == "finished"
    inside = [span for span in collector.spans if span is not root]
    assert {span.parent.span_id for span in inside if span.parent} == {root.context.span_id}
    assert sorted(span.name for span in inside) == ["chat scripted", "chat scripted", "execute_tool book", "retrieval"]
    for span in inside:
        assert root.start_time <= span.start_time + 1_000_000 <= span.end_time + 1_000_000  # type: ignore[operator]
        assert span.end_time <= root.end_time  # type: ignore[operator]


async def test_an_inference_tells_its_tokens_and_how_it_ended_and_a_tool_its_rule() -> None:
    collector = Collector()
    app = await booking(collector)
    await app.ask("book a table", as_=ANA)
    await app.close()
    last = facts([span for span in collector.spans if span.name == "chat scripted"][-1])
    assert last["gen_ai.usage.output_tokens"] > 0
    assert last["gen_ai.usage.input_tokens"] > 0
    assert last["gen_ai.response.finish_reasons"] == ("stop",)
    assert last["gen_ai.provider.name"] == "scripted"
    assert "gen_ai.system" not in last
    tool = facts(collector.span("execute_tool book"))
    assert (tool["gen_ai.tool.name"], tool["gen_ai.tool.call.id"]) == ("book", "0.0")
    assert tool["ringwall.rule"].startswith("rules:")


async def test_what_is_measured_is_the_time_that_was_told_of() -> None:
    collector = Collector()
    await collector.sink.receive(a_run("r", contents=False))
    await collector.sink.close()
    points = collector.metrics()
    durations = {p.attributes.get("gen_ai.provider.name"): p.sum for p in points["gen_ai.client.operation.duration"]}
    assert durations == {None: pytest.approx(0.0015, abs=1e-6), "near": pytest.approx(0.0025, abs=1e-6), "far": 0.0}
    assert {p.attributes["gen_ai.token.type"]: p.sum for p in points["gen_ai.client.token.usage"]} == {
        "input": 7,
        "output": 3,
    }
    assert points["gen_ai.invoke_workflow.duration"][0].sum == pytest.approx(14.0)
    assert seconds(collector.span("invoke_workflow app")) == pytest.approx(14.0)
    assert sum(point.value for point in points["ringwall.events"]) == 15
    assert points["ringwall.cost"][0].value == 0.5


async def test_a_failed_run_and_a_refused_call_are_errors_of_their_kind() -> None:
    collector = Collector()

    async def fail(turn: Turn) -> Turn:
        raise ValueError("the wine is gone")

    app = app_with(["Yes."], sinks=[collector.sink], pipeline=Pipeline(fail))
    with pytest.raises(StepFailed):
        await app.ask("where is the wine?", as_=ANA)
    await app.close()
    root = collector.span("invoke_workflow app")
    assert root.status.status_code is StatusCode.ERROR
    assert facts(root)["error.type"] == "StepFailed"
    assert "wine" not in collector.text()


async def test_a_run_that_waits_and_is_resumed_is_two_workflows_of_one_conversation() -> None:
    collector = Collector()
    app = app_with([call("book", table="7"), "Booked."], sinks=[collector.sink], tools=[booking_tool([])])
    await app.ingest([("menu.md", "book table 7")], ACL.of("public"))
    result = await app.ask("book a table", as_=ANA)
    await app.approve(result.run, by=CARLA)
    await app.resume(result.run)
    await app.close()
    stretches = [facts(span) for span in collector.spans if span.name == "invoke_workflow app"]
    assert [stretch["ringwall.run.status"] for stretch in stretches] == ["waiting", "finished"]
    assert {stretch["gen_ai.conversation.id"] for stretch in stretches} == {result.run}


EVERYTHING = frozenset(("captured", "granted", "wanted"))


@pytest.mark.parametrize("given", [EVERYTHING, *(EVERYTHING - {each} for each in EVERYTHING)], ids=" ".join)
async def test_contents_are_put_out_only_if_wanted_granted_and_captured(
    given: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CAPTURE, "SPAN_ONLY" if "captured" in given else "")
    collector = Collector(contents="wanted" in given)
    rules = f"{RULES}\ngrant sink:otel collection:questions" if "granted" in given else RULES
    app = app_with(["In the cellar."], sinks=[collector.sink], rules=rules)
    await app.ask("where is the wine?", as_=ANA)
    await app.close()
    put_out = collector.text()
    for text in ("where is the wine?", "In the cellar."):
        assert (text in put_out) == (given == EVERYTHING)


async def test_withheld_contents_are_not_put_out_even_if_all_is_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CAPTURE, "SPAN_AND_EVENT")
    collector = Collector(contents=True)
    await collector.sink.receive(a_run("r", contents=False))
    await collector.sink.close()
    assert SECRET not in collector.text()


class Receiver(services.TraceServiceServicer):
    def __init__(self) -> None:
        self.requests: list[messages.ExportTraceServiceRequest] = []

    def Export(self, request: Any, context: Any) -> messages.ExportTraceServiceResponse:  # noqa: N802 (its name)
        self.requests.append(request)
        return messages.ExportTraceServiceResponse()


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    """An OTLP receiver on a port of this machine."""
    server, taken = grpc.server(ThreadPoolExecutor(1)), Receiver()
    services.add_TraceServiceServicer_to_server(taken, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield taken, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


async def test_an_otlp_receiver_gets_the_spans_when_the_app_closes(receiver: tuple[Receiver, str]) -> None:
    taken, address = receiver
    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(address, insecure=True)))
    app = app_with(["Yes."], sinks=[OtelSink(tracers=tracers)])
    await app.ask("Is it?", as_=ANA)
    await app.close()
    resources = [resource for request in taken.requests for resource in request.resource_spans]
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert {span.name for span in spans} == {"invoke_workflow app", "retrieval", "chat scripted"}
    tracers.shutdown()


async def exported(journal: InMemoryJournal) -> list[dict[str, Any]]:
    file = io.StringIO()
    export = OtelExport(file)
    await journal.inspect(export)
    export.finish()
    batches = [json.loads(line) for line in file.getvalue().splitlines()]
    scopes = [scope for batch in batches for resource in batch["resourceSpans"] for scope in resource["scopeSpans"]]
    return [span for scope in scopes for span in scope["spans"]]


async def test_an_exported_journal_tells_what_was_told_live() -> None:
    collector, journal = Collector(), InMemoryJournal()
    app = await booking(collector, journal=journal)
    await app.ask("book a table", as_=ANA)
    await app.close()
    live = [(span.name, str(span.start_time), str(span.end_time)) for span in collector.spans]
    told = await exported(journal)
    assert sorted((s["name"], s["startTimeUnixNano"], s["endTimeUnixNano"]) for s in told) == sorted(live)
    assert {len(span["traceId"]) for span in told} == {32}
    assert "table 7" not in json.dumps(told)
    assert "book a table" not in json.dumps(told)


async def test_an_event_that_cannot_be_read_is_named() -> None:
    collector, journal = Collector(), InMemoryJournal()
    app = await booking(collector, journal=journal)
    run = (await app.ask("book a table", as_=ANA)).run
    await app.close()
    record, events = await journal.record(run), await journal.read(run)
    place = next(event.seq for event in events if event.kind == "model.replied")
    events[place] = events[place]._replace(body="no JSON")
    with pytest.raises(ChainBroken, match=f"event {place} of run '{run}' cannot be read"):
        OtelExport(io.StringIO()).run(record, events)


async def test_runs_whose_ends_are_not_told_are_given_up_when_it_closes(tmp_path: Path) -> None:
    collector = Collector()
    await collector.sink.receive([Told("app", "acme", "r", 0, "run.started", 10.0)])
    assert not collector.spans
    await collector.sink.close()
    root = facts(collector.span("invoke_workflow app"))
    assert (root["ringwall.run.status"], root["ringwall.tenant"]) == ("unknown", "acme")
