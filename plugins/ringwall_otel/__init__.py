"""Traces and metrics by OpenTelemetry's GenAI conventions: of runs while they happen, and of a journal afterwards."""

from ringwall_otel.export import OtelExport
from ringwall_otel.sink import OtelSink

__all__ = ["OtelExport", "OtelSink"]
