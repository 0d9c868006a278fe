"""OpenTelemetry with the times that are told of, not the time of telling: spans and durations of what is over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from opentelemetry.metrics import Histogram, Meter, MeterProvider
from opentelemetry.trace import Span, Tracer, TracerProvider


@dataclass
class Clock:
    """When what is told of began, in Unix seconds, and how long it took, in seconds."""

    began: float = 0.0
    seconds: float = 0.0


def nanoseconds(seconds: float) -> int:
    """Unix time as OpenTelemetry counts it."""
    return round(seconds * 1e9)


class Tracers(TracerProvider):
    """A provider whose spans begin when the clock says."""

    def __init__(self, inner: TracerProvider, clock: Clock) -> None:
        self._inner, self._clock = inner, clock

    def get_tracer(self, *args: Any, **kwargs: Any) -> Tracer:
        return _Tracer(self._inner.get_tracer(*args, **kwargs), self._clock)


class _Tracer(Tracer):
    def __init__(self, inner: Tracer, clock: Clock) -> None:
        self._inner, self._clock = inner, clock

    def start_span(self, *args: Any, **kwargs: Any) -> Span:
        return self._inner.start_span(*args, **{**kwargs, "start_time": nanoseconds(self._clock.began)})

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner.start_as_current_span(*args, **kwargs)


def ending(span: Span, at: float) -> Span:
    """The span, which will have ended at this time however late it is told."""
    return cast(Span, _Ending(span, at))


class _Ending:
    def __init__(self, span: Span, at: float) -> None:
        self._span, self._at = span, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self._span, name)

    def end(self) -> None:
        self._span.end(nanoseconds(self._at))


def timed(inner: MeterProvider, clock: Clock) -> MeterProvider:
    """A provider whose histograms of seconds record what the clock says."""
    return cast(MeterProvider, _Meters(inner, clock))


class _Meters:
    def __init__(self, inner: MeterProvider, clock: Clock) -> None:
        self._inner, self._clock = inner, clock

    def get_meter(self, *args: Any, **kwargs: Any) -> _Meter:
        return _Meter(self._inner.get_meter(*args, **kwargs), self._clock)


class _Meter:
    def __init__(self, inner: Meter, clock: Clock) -> None:
        self._inner, self._clock = inner, clock

    def create_histogram(self, name: str, unit: str = "", **kwargs: Any) -> Histogram | _Seconds:
        histogram = self._inner.create_histogram(name, unit, **kwargs)
        return _Seconds(histogram, self._clock) if unit == "s" else histogram


class _Seconds:
    def __init__(self, inner: Histogram, clock: Clock) -> None:
        self._inner, self._clock = inner, clock

    def record(self, amount: float, **kwargs: Any) -> None:
        self._inner.record(self._clock.seconds, **kwargs)
