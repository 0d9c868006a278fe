"""A journal as traces: each run as it would have been put out while it happened."""

from __future__ import annotations

from collections.abc import Iterable
from typing import IO

from opentelemetry._logs import NoOpLoggerProvider
from opentelemetry.exporter.otlp.json.file.trace_exporter import FileSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.util.genai.handler import TelemetryHandler

from ringwall.deployment import Event, Inspection, RunRecord, Told
from ringwall.deployment.facts import facts_of
from ringwall.deployment.journal import bad
from ringwall.principal import TENANT_MARK
from ringwall_otel.clock import Clock, Tracers
from ringwall_otel.reading import Reading
from ringwall_otel.sink import SCOPE


class OtelExport(Inspection):
    """Writes the runs that it is handed as OTLP in JSON Lines, without any contents. Raises `ChainBroken`."""

    def __init__(self, file: IO[str], *, service: str = "ringwall") -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": service}))
        self._provider.add_span_processor(BatchSpanProcessor(FileSpanExporter(stream=file)))
        clock = Clock()
        handler = TelemetryHandler(
            tracer_provider=Tracers(self._provider, clock),
            meter_provider=NoOpMeterProvider(),
            logger_provider=NoOpLoggerProvider(),
            instrumentation_scope_name=SCOPE,
        )
        self._reading = Reading(handler, clock)

    def run(self, record: RunRecord, events: Iterable[Event]) -> None:
        tenant, mark, _ = record.owner.partition(TENANT_MARK)
        app = ""
        for event in events:
            try:
                told = _told(event, app, tenant if mark else "")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise bad(event.run, event.seq, "cannot be read") from error
            app = told.app
            self._reading.read(told)

    def finish(self) -> None:
        """Write what is left."""
        self._reading.finish()
        self._provider.shutdown()


def _told(event: Event, app: str, tenant: str) -> Told:
    facts = facts_of(event.kind, event.body)
    return Told(str(facts.get("app", app)), tenant, event.run, event.seq, event.kind, event.at, facts)
