"""Log lines that say which run they are about, with structlog as whoever runs the app has configured it.

Nothing is configured here, and structlog is not imported before there is something to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from ringwall.deployment.sinks import EventSink, Told
from ringwall.principal import Principal

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

_LEVELS: Final[Mapping[str, str]] = {
    "run.failed": "error",
    "call.in_doubt": "warning",
    "call.refused": "warning",
    "flow.denied": "warning",
    "model.skipped": "warning",
    "turn.changed": "debug",
    "data.ranked": "debug",
}
"""Of the kinds of events that are not told at `info`."""


def logger_for(run: str, tenant: str = "", **more: str) -> FilteringBoundLogger:
    """A logger for one run, for steps and tools: `logger_for(turn.run)`, `logger_for(context.run)`.

    What is logged through it goes where the log goes, past every gate: log what happened, never what was read.
    """
    import structlog

    whose = {"tenant": tenant} if tenant else {}
    return cast("FilteringBoundLogger", structlog.get_logger("ringwall").bind(run=run, **whose, **more))


class LogSink(EventSink):
    """Writes a line for each event: its kind, its run, its facts, and as `body` its contents if they were wanted."""

    def __init__(self, *, contents: bool = False, name: str = "log") -> None:
        self.contents = contents
        self._principal = Principal(f"sink:{name}")

    @property
    def principal(self) -> Principal:
        return self._principal

    async def receive(self, events: Sequence[Told]) -> None:
        for event in events:
            logger = logger_for(event.run, event.tenant, app=event.app)
            said: dict[str, Any] = {"seq": event.seq, "at": event.at, **event.facts}
            if event.body:
                said["body"] = event.body
            getattr(logger, _LEVELS.get(event.kind, "info"))(event.kind, **said)


__all__ = ["LogSink", "logger_for"]
