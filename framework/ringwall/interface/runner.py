"""Runs tools in this process, each within its time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ringwall.errors import ConfigurationError
from ringwall.interface.base import CallContext, CallStatus, PreparedCall, Tool, ToolOutcome, ToolRunner


class LocalToolRunner(ToolRunner):
    """The smallest runner. Ungoverned: inside a run the gate stands in front of it."""

    def __init__(self, tools: Sequence[Tool] = ()) -> None:
        names = [tool.name for tool in tools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(f"two tools are named {', '.join(twice)}", hint="rename one of them")
        self._tools = tuple(tools)

    def tools(self) -> Sequence[Tool]:
        return self._tools

    async def execute(self, prepared: PreparedCall, context: CallContext) -> ToolOutcome:
        tool = prepared.tool
        seconds = min(tool.timeout, context.deadline)
        try:
            async with asyncio.timeout(seconds) as clock:
                text = await tool.run(prepared.arguments, context)
        except Exception as error:  # noqa: BLE001 (the edge to foreign code: what it raises is its failure)
            if clock.expired():
                return ToolOutcome(CallStatus.TIMED_OUT, f"{tool.name} did not return within {seconds:g} s")
            return ToolOutcome(CallStatus.FAILED, f"{tool.name} failed: {type(error).__name__}: {error}")
        return ToolOutcome(CallStatus.DONE, text)
