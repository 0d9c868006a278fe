"""The interface ring: what a tool is, and what running one can come to.

A plugin author reads this file alone. Subclass `Tool` (or decorate a function with `@tool`), then run
`ringwall.interface.contract` on it.
"""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from types import MappingProxyType
from typing import cast

from ringwall.errors import InvalidInput
from ringwall.label import BOTTOM, Label
from ringwall.schema import JSON, JsonSchema, canonical, digest


class Effect(StrEnum):
    """What a tool does to the world. What is not stated is taken to be `IRREVERSIBLE`."""

    READ = "read"
    WRITE = "write"
    IRREVERSIBLE = "irreversible"


@dataclass(frozen=True)
class ToolCall:
    """One call: a tool, its arguments as JSON text, and an id that is unique in its run."""

    id: str
    tool: str
    arguments: str

    @cached_property
    def parsed(self) -> JSON:
        """The arguments as JSON; no text is no arguments. Raises `ValueError` for text that is no JSON."""
        return cast(JSON, json.loads(self.arguments)) if self.arguments else {}

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the tool and its arguments in canonical JSON: what an approval is bound to.

        Arguments that are no JSON are taken as they are.
        """
        arguments = self.arguments
        with contextlib.suppress(ValueError):
            arguments = canonical(self.parsed)
        return digest(f"{self.tool}\n{arguments}")


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a tool may know of the call it serves.

    `key` is the same each time this very call is tried, and differs from every other call's: store it with
    the effect and an interrupted call can be completed without doing it twice. `deadline` is in seconds
    from now.
    """

    run: str
    call: str
    principal: str
    key: str
    deadline: float


@dataclass(frozen=True, slots=True)
class Change:
    """What a call would change, as its tool can tell before: a text as it is and as it would be.

    `label` is what that text carries beyond the call's arguments and the tool's results; None: nothing more.
    """

    before: str
    after: str
    name: str = ""
    label: Label | None = None

    def __str__(self) -> str:
        """The difference, line by line."""
        import difflib

        old, new = self.before.splitlines(), self.after.splitlines()
        names = (self.name, self.name) if self.name else ("before", "after")
        return "\n".join(difflib.unified_diff(old, new, *names, lineterm=""))


class Tool(ABC):
    """Something a model may ask for.

    Class attributes say what it does, so that the gate can decide before it runs:

    - `effect`: see `Effect`.
    - `control`: the arguments that decide who or what is affected (recipient, amount, path, URL). The
      others are content.
    - `recipients`: those control arguments that name who receives the content (`("to", "cc")`).
    - `idempotent`: a second call with the same `CallContext.key` does nothing more and returns the same.
    - `label`: what its results are worth: who may read them, and what influences whoever reads them.
      None: readable by the run's principal only, influenced by `tool:<name>`.
    - `fields`: labels of named fields of a result that is JSON, at any depth; `label` holds for the rest. Name those
      that only the tool's owner or the user's own account can fill in. `*` stands for the order of records.
    - `timeout`: seconds until it is given up.
    - `undoable`: `undo` takes a call back.

    The caller relies on this: `run` is called with arguments that fit `parameters`; it returns text or raises;
    it does nothing after it raised. The same goes for `undo`.
    """

    name: str
    description: str = ""
    effect: Effect = Effect.IRREVERSIBLE
    control: tuple[str, ...] | None = None
    recipients: tuple[str, ...] = ()
    idempotent: bool = False
    label: Label | None = None
    fields: Mapping[str, Label] = MappingProxyType({})
    timeout: float = 30.0
    undoable: bool = False

    @property
    @abstractmethod
    def parameters(self) -> JsonSchema:
        """JSON schema (draft 2020-12) of the arguments: an object."""

    @abstractmethod
    def check(self, arguments: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """Return the arguments as `run` wants them; raise `InvalidInput` naming each that does not fit."""

    @abstractmethod
    async def run(self, arguments: Mapping[str, JSON], context: CallContext) -> str:
        """Do it, and return what the model shall read."""

    async def undo(self, arguments: Mapping[str, JSON], result: str, context: CallContext) -> str:
        """Take back what `run` did with these arguments, and returned as `result`; return what became of it.

        Called for an `undoable` tool when its run is cancelled, or failed for good; `context.key` is another one
        than that of the call.
        """
        raise NotImplementedError(f"{self.name} cannot take a call back")

    async def preview(self, arguments: Mapping[str, JSON], context: CallContext) -> Change | str | None:
        """Say what `run` would change, for the person who is asked to approve it; None: it cannot be said.

        Changes nothing. What it returns is shown to whoever may receive the arguments and the tool's results.
        """
        return None

    @cached_property
    def control_arguments(self) -> frozenset[str]:
        """The control arguments; a tool that names none has them all controlled."""
        if self.control is not None:
            return frozenset(self.control) | frozenset(self.recipients)
        properties = self.parameters.get("properties")
        return frozenset(properties) if isinstance(properties, Mapping) else frozenset()


class CallStatus(StrEnum):
    """What asking for a tool call came to."""

    DONE = "done"
    REJECTED = "rejected"
    """Invented tool or arguments that do not fit: the model may try again."""
    REFUSED = "refused"
    """The policy or an approver said no."""
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    WAITING = "waiting"
    """A human must approve it, or say whether it happened."""


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """What asking for a tool call came to: `text` is for the model, `label` what that text carries."""

    status: CallStatus
    text: str
    label: Label = BOTTOM


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """A call whose tool exists and whose arguments fit its schema: `arguments` is what the tool's `check` made."""

    call: ToolCall
    tool: Tool
    arguments: Mapping[str, JSON]


class ToolRunner(ABC):
    """Where the agent hands its calls in. Neither method raises for what a model or a tool did wrong."""

    @abstractmethod
    def tools(self) -> Sequence[Tool]:
        """The tools on offer."""

    @abstractmethod
    async def execute(self, prepared: PreparedCall, context: CallContext) -> ToolOutcome:
        """Run a call that was checked."""

    async def run(self, call: ToolCall, context: CallContext) -> ToolOutcome:
        """Check a call and run it; an invented tool or arguments that do not fit come back as `REJECTED`."""
        try:
            prepared = self.prepare(call)
        except InvalidInput as error:
            return ToolOutcome(CallStatus.REJECTED, str(error))
        return await self.execute(prepared, context)

    def prepare(self, call: ToolCall) -> PreparedCall:
        """Find the tool and check the arguments. Raises `InvalidInput` saying what would fit."""
        tool = next((t for t in self.tools() if t.name == call.tool), None)
        if tool is None:
            offered = ", ".join(sorted(t.name for t in self.tools())) or "none"
            raise InvalidInput(f"there is no tool named {call.tool!r}", expected=f"one of: {offered}")
        try:
            arguments = call.parsed
        except ValueError as error:
            raise InvalidInput(f"the arguments of {tool.name} are not JSON: {error}") from None
        if not isinstance(arguments, dict):
            raise InvalidInput(f"the arguments of {tool.name} are not a JSON object")
        return PreparedCall(call, tool, tool.check(cast("dict[str, JSON]", arguments)))
