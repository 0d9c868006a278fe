"""An event sink for OpenTelemetry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider as SdkMeterProvider
from opentelemetry.sdk.trace import TracerProvider as SdkTracerProvider
from opentelemetry.util.genai.handler import TelemetryHandler

from ringwall import Principal
from ringwall.deployment import EventSink, Told
from ringwall_otel.clock import Clock, Tracers, timed
from ringwall_otel.reading import COST, TENANT, Reading

SCOPE: Final = "ringwall_otel"


class OtelSink(EventSink):
    """Makes spans and measurements of what happens in runs, by the GenAI conventions.

    Without providers the global ones are used, as OpenTelemetry's own set-up left them. Contents (the question, the
    answer, arguments and results of tools) are put out only if `contents` is set, `sink:otel` may receive them, and
    `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` asks for them.

    Counted besides: `ringwall.events` by `ringwall.event.kind`, `ringwall.cost` in US dollars.
    """

    def __init__(
        self,
        *,
        tracers: trace.TracerProvider | None = None,
        meters: metrics.MeterProvider | None = None,
        contents: bool = False,
        name: str = "otel",
    ) -> None:
        self.contents = contents
        self._principal = Principal(f"sink:{name}")
        self._tracers = tracers or trace.get_tracer_provider()
        self._meters = meters or metrics.get_meter_provider()
        clock = Clock()
        handler = TelemetryHandler(
            tracer_provider=Tracers(self._tracers, clock),
            meter_provider=timed(self._meters, clock),
            instrumentation_scope_name=SCOPE,
        )
        self._reading = Reading(handler, clock)
        meter = self._meters.get_meter(SCOPE)
        self._events = meter.create_counter("ringwall.events", unit="{event}", description="Events of runs")
        self._cost = meter.create_counter(COST, unit="{USD}", description="What replies of models cost")

    @property
    def principal(self) -> Principal:
        return self._principal

    async def receive(self, events: Sequence[Told]) -> None:
        for event in events:
            whose = {TENANT: event.tenant} if event.tenant else {}
            self._events.add(1, {"ringwall.event.kind": event.kind, **whose})
            if cost := event.facts.get("cost"):
                self._cost.add(float(str(cost)), whose)
            self._reading.read(event)

    async def close(self) -> None:
        """Put out what is held. The providers are whoever's made them."""
        self._reading.finish()
        if isinstance(self._tracers, SdkTracerProvider):
            self._tracers.force_flush()
        if isinstance(self._meters, SdkMeterProvider):
            self._meters.force_flush()
