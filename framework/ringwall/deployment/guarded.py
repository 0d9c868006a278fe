"""Guards around models, tools and answers: where each crossing lies, seen from the gates.

A model's guards stand between its gate and itself, so that the gate decides about, and writes down, what the run
asked for and got. A tool's stand on both sides of its gate: arguments are rewritten before anybody approves them, and
results before they are journaled.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from typing import cast

from langchain_core.messages import AIMessage, BaseMessage

from ringwall.deployment.disarm import Disarm
from ringwall.deployment.gates import ModelGate
from ringwall.deployment.guard import Crossing, Guard
from ringwall.deployment.guarding import GuardedText, Passage, RunGuards
from ringwall.deployment.results import result_label, result_of
from ringwall.deployment.runlog import CallPhase, CallState, RunLog
from ringwall.errors import GuardRefused, InvalidInput
from ringwall.interface.base import CallContext, CallStatus, PreparedCall, Tool, ToolCall, ToolOutcome, ToolRunner
from ringwall.label import Label
from ringwall.model.base import Delta, Location, ModelProvider, ModelRequest, RequestedCall
from ringwall.schema import JSON, canonical


class GuardedModel(ModelGate):
    """Guards the prompt on its way to a provider, and what comes back."""

    def __init__(self, inner: ModelProvider, guards: RunGuards) -> None:
        self._inner, self._guards = inner, guards

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        if prompt := self._at(Crossing.PROMPT):
            try:
                request = replace(request, messages=await _guarded_messages(prompt, request))
            finally:
                prompt.close()
        deltas = self._inner.stream(request)
        try:
            if reply := self._at(Crossing.REPLY):
                async for delta in _guarded_reply(reply, deltas, request.label):
                    yield delta
            else:
                async for delta in deltas:
                    yield delta
        finally:
            await deltas.aclose()

    def _at(self, crossing: Crossing) -> Passage | None:
        remote = self._inner.info.location is Location.REMOTE
        return self._guards.at(crossing, receiver=self._inner.principal.id, remote=remote)


async def _guarded_messages(prompt: Passage, request: ModelRequest) -> tuple[BaseMessage, ...]:
    labels = request.labels or (request.label,) * len(request.messages)
    return tuple(
        [
            await _guarded_message(prompt, message, label)
            for message, label in zip(request.messages, labels, strict=True)
        ]
    )


async def _guarded_message(prompt: Passage, message: BaseMessage, label: Label) -> BaseMessage:
    changed: dict[str, object] = {
        "content": await prompt.json(cast(JSON, message.content), label=label, role=message.type)
    }
    if isinstance(message, AIMessage) and message.tool_calls:
        changed["tool_calls"] = [
            {**call, "args": await prompt.json(call["args"], label=label, role="ai")} for call in message.tool_calls
        ]
    return message.model_copy(update=changed)


async def _guarded_reply(
    reply: Passage, deltas: AsyncGenerator[Delta, None], label: Label
) -> AsyncGenerator[Delta, None]:
    """The deltas with guarded text and calls; probabilities are left out, they tell the tokens as they were."""
    words = reply.stream(label=label)
    said = False
    try:
        async for delta in deltas:
            text = delta.text
            if text:
                said, text = True, await words.push(text)
            if delta.finish and said:
                said, text = False, text + await words.end()
            calls = tuple([await _guarded_call(reply, call, label) for call in delta.calls])
            yield delta._replace(text=text, calls=calls, logprobs=())
        if said and (rest := await words.end()):
            yield Delta(rest)
    finally:
        reply.close()


async def _guarded_call(reply: Passage, call: RequestedCall, label: Label) -> RequestedCall:
    return call._replace(arguments=await _guarded_arguments(reply, call.arguments, label))


async def _guarded_arguments(passage: Passage, arguments: str, label: Label) -> str:
    """Arguments as JSON text: as they are if nothing in them was rewritten; as one text if they are no JSON."""
    if not arguments:
        return arguments
    try:
        value = cast(JSON, json.loads(arguments))
    except ValueError:
        return await passage.text(arguments, label=label)
    passed = await passage.json(value, label=label)
    return arguments if passed == value else canonical(passed)


class GuardedArguments(ToolRunner):
    """Guards the arguments of every call before its gate decides: what is approved is what is done."""

    def __init__(self, inner: ToolRunner, log: RunLog, guards: RunGuards) -> None:
        self._inner, self._log, self._guards = inner, log, guards

    def tools(self) -> Sequence[Tool]:
        return self._inner.tools()

    async def execute(self, prepared: PreparedCall, context: CallContext) -> ToolOutcome:
        state = self._log.calls.get(prepared.call.id)
        passage = self._guards.at(Crossing.ARGUMENTS, receiver=f"tool:{prepared.tool.name}")
        if passage is None or (state is not None and state.phase is CallPhase.FINISHED):
            return await self._inner.execute(prepared, context)
        call = prepared.call
        label = self._log.proposals.get((call.tool, call.arguments), self._log.floor)
        try:
            arguments = await _guarded_arguments(passage, call.arguments, label)
        except GuardRefused as error:
            return self._refuse(call, error)
        finally:
            passage.close()
        self._log.proposals[call.tool, arguments] = label | passage.suspects
        self._log.guarded[call.id] = (call.arguments, passage.suspects)
        if arguments != call.arguments:
            try:
                prepared = self.prepare(replace(call, arguments=arguments))
            except InvalidInput:
                what = f"what the guards left of the arguments does not fit {call.tool}"
                return ToolOutcome(CallStatus.REJECTED, what)
        return await self._inner.execute(prepared, context)

    def _refuse(self, call: ToolCall, error: GuardRefused) -> ToolOutcome:
        outcome = ToolOutcome(CallStatus.REFUSED, f"{call.tool} was refused: {error.what}", self._log.floor)
        body: dict[str, JSON] = {
            "call": call.id,
            "tool": call.tool,
            "arguments": call.arguments,
            "status": str(outcome.status),
            "text": outcome.text,
            "label": cast(JSON, outcome.label.to_json()),
            "rule": error.rule,
        }
        self._log.note("call.refused", body)
        self._log.calls[call.id] = CallState(call, CallPhase.FINISHED, outcome=outcome)
        return outcome


class GuardedResults(ToolRunner):
    """Guards what tools return; a result that may not pass is withheld, which does not undo the call."""

    def __init__(self, inner: ToolRunner, guards: RunGuards) -> None:
        self._inner, self._guards = inner, guards

    def tools(self) -> Sequence[Tool]:
        return self._inner.tools()

    async def execute(self, prepared: PreparedCall, context: CallContext) -> ToolOutcome:
        outcome = await self._inner.execute(prepared, context)
        passage = self._guards.at(Crossing.RESULT, receiver=f"tool:{prepared.tool.name}")
        if passage is None:
            return outcome
        try:
            text = await passage.text(outcome.text, label=self._label(prepared.tool, outcome.text))
        except GuardRefused as error:
            text = f"the result is withheld: {error.what}"
        finally:
            passage.close()
        return replace(outcome, text=text)

    def _label(self, tool: Tool, text: str) -> Label:
        """What the gate will say of the result as it came: nobody else may know what was found in it."""
        log = self._guards.log
        label = result_label(tool, log.principal, log.floor)
        return result_of(tool, text, log.floor, label).whole if tool.fields else label


class GuardedAnswer:
    """What the user is shown: the guards on answers, and at last what disarms them if others could have shaped them."""

    def __init__(self, guards: RunGuards, disarm: Disarm | None) -> None:
        self._guards, self._disarm = guards, disarm
        self._passage: Passage | None = None
        self._open: GuardedText | None = None
        self._came: list[str] = []
        self._left: list[str] = []

    async def push(self, piece: str) -> str:
        """A piece of a streamed text; what of it may leave now. Raises `GuardRefused`."""
        if self._open is None:
            self._begin()
        return await self._leaves(piece, last=False)

    async def end(self) -> str:
        """The text is over; the rest that may leave. Raises `GuardRefused`."""
        if self._open is None:
            return ""
        rest = await self._leaves("", last=True)
        self._end()
        return rest

    async def whole(self, text: str) -> str:
        """What may be shown of a whole text: of one that was streamed the same as then. Raises `GuardRefused`."""
        guards = self._standing()
        if "".join(self._came) == text and self._passage and [t.guard for t in self._passage.tallies] == guards:
            return "".join(self._left)
        passage = self._through(guards)
        try:
            return await passage.text(text, label=self._guards.log.floor)
        finally:
            self._close(passage)

    def quote(self, text: str) -> str:
        """What may be shown of a passage's own words."""
        if self._disarm is None or self._disarm not in self._standing():
            return text
        return self._disarm.disarmed(text, self._guards.words())

    def _begin(self) -> None:
        self._passage = self._through(self._standing())
        self._open = self._passage.stream(label=self._guards.log.floor)
        self._came, self._left = [], []

    def _end(self) -> None:
        if self._passage is not None:
            self._close(self._passage)
        self._open = None

    async def _leaves(self, piece: str, *, last: bool) -> str:
        text = self._open
        if text is None:
            return ""
        self._came.append(piece)
        try:
            left = await (text.end(piece) if last else text.push(piece))
        except GuardRefused:
            self._end()
            raise
        self._left.append(left)
        return left

    def _standing(self) -> list[Guard]:
        guards = list(self._guards.guards.at(Crossing.ANSWER))
        if self._disarm is not None and (self._disarm.always or influenced(self._guards.log)):
            guards.append(self._disarm)
        return guards

    def _through(self, guards: Sequence[Guard]) -> Passage:
        receiver = self._guards.log.principal.id
        return Passage(self._guards, Crossing.ANSWER, guards, receiver=receiver)

    def _close(self, passage: Passage) -> None:
        passage.close(quietly=not self._guards.guards.at(Crossing.ANSWER))


def influenced(log: RunLog) -> bool:
    """Whether anything but the run's principal could have shaped what the run says."""
    return not log.floor.influence <= {log.principal.id}


__all__ = ["GuardedAnswer", "GuardedArguments", "GuardedModel", "GuardedResults", "influenced"]
