"""The steps of a run that follows a plan: MakePlan, and ExecutePlan, in which no model decides what is called.

`MakePlan` shows a model the user's words and the tools, nothing else, and has its plan fixed. Then either `ExecutePlan`
makes the plan's calls, or the `Agent` is let loose and held to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from typing import Final

from langchain_core.messages import HumanMessage, SystemMessage

from ringwall.errors import BadReply, InvalidInput, NotMade, Unavailable
from ringwall.interface.base import CallContext, CallStatus, Tool, ToolCall, ToolRunner
from ringwall.interface.plan import Desk, TaskPlan
from ringwall.label import Label
from ringwall.model.base import ModelProvider, ModelRequest, Sampling
from ringwall.model.reply import collect
from ringwall.pipeline import Checkpoint, Outlet, Pipeline
from ringwall.schema import JSON, canonical, digest, dumps
from ringwall.steps import Agent, Answer, Compose, Personalize, Remember, Retrieve
from ringwall.turn import Turn, TurnStatus

PLANNER: Final = """\
Write the plan of the tool calls that do what the user asks, as JSON: {"calls": [...], "answer": ...}.
A call is {"name": "a name", "tool": "its tool", "arguments": {...}}.
You see no results: where an argument comes from one, write where from instead of a value.
{"$from": "an earlier call", "field": "id", "where": {"sender": "bo@example.org"}, "pick": "last"} takes a field,
"where" and "pick" (first, last, all, largest <field>, smallest <field>) choose among several records.
With "each": {"$from": "list", "pick": "all"} beside its arguments a call is made for each, with {"$item": "id"} of it.
With "when": {"left": ..., "is": "<", "right": ...} beside them it is made only if that holds. "left" and "right" are
written like arguments; "is" is one of == != < <= > >= contains, or empty without "right".
{"all": [...]}, {"any": [...]} and {"not": ...} join such conditions.
{"$read": ["name of an earlier call"], "ask": "what to find there", "schema": {"type": "string"}} has free text read.
Say there what is wanted: a "type", an "enum", or "format": "email", "uri", "iban", "date"; with "only": true beside
it the text must hold just one of that format, with "quotes": {"$from": "list", "pick": "all"} it must stand there.
{"$text": ["Dinner at ", {"$from": "place", "field": "name"}]} puts a text together; prefer it to having texts read.
"answer" is such a reading, for the user. Use these tools and no others:
"""

PLAN_SCHEMA: Final[Mapping[str, JSON]] = {
    "type": "object",
    "properties": {
        "calls": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "tool": {"type": "string"},
                    "arguments": {"type": "object"},
                    "each": {},
                    "when": {"type": "object"},
                },
                "required": ["name", "tool", "arguments"],
            },
        },
        "answer": {},
    },
    "required": ["calls"],
}


class MakePlan:
    """Has a plan made from the user's words alone, and fixed: from here on the run calls what it names, nothing else.

    `by_code` says that `ExecutePlan` follows, and that nothing else makes the plan's calls.

    Raises `BadReply` when what the model writes is no plan, or calls a tool that there is not.
    """

    def __init__(
        self,
        model: ModelProvider,
        tools: ToolRunner,
        desk: Desk,
        *,
        by_code: bool = False,
        prompt: str = PLANNER,
        sampling: Sampling = Sampling(max_tokens=2048),  # noqa: B008 (frozen)
    ) -> None:
        self._model, self._desk, self._prompt, self._sampling = model, desk, prompt, sampling
        self._by_code = by_code
        self._tools = {tool.name: tool for tool in tools.tools()}

    async def __call__(self, turn: Turn) -> Turn:
        if self._desk.plan is None:
            await self._desk.fix(await self._make(turn), by_code=self._by_code)
        return turn

    async def _make(self, turn: Turn) -> TaskPlan:
        catalogue = "\n".join(_told(tool) for tool in self._tools.values())
        request = ModelRequest(
            messages=(SystemMessage(content=self._prompt + catalogue), HumanMessage(content=turn.question.value)),
            label=turn.question.label,
            labels=(Label(), turn.question.label),
            schema=PLAN_SCHEMA,
            sampling=self._sampling,
        )
        reply = await collect(self._model.stream(request))
        try:
            plan = TaskPlan.from_json(json.loads(reply.text))
        except (ValueError, InvalidInput, RecursionError) as error:
            raise BadReply(f"the planner's reply is no plan: {error}") from None
        unknown = {call.tool for call in plan.calls} - self._tools.keys()
        if unknown:
            raise BadReply(
                f"the plan calls {', '.join(sorted(unknown))}", expected=f"some of: {', '.join(self._tools)}"
            )
        return plan


class ExecutePlan:
    """Makes the calls of the run's plan in order, and tells the plan's answer.

    A call whose condition does not hold is not made, nor is what takes from it. What a call cannot be made for (an
    earlier one failed, was refused, or found nothing) is left out, and so are the calls that rest on it. The answer
    says so; what it rests on may be missing. A call that must wait for a human holds up all after it, but those made
    for each of several items are put before the human together.
    """

    def __init__(
        self, desk: Desk, tools: ToolRunner, checkpoint: Checkpoint, outlet: Outlet, *, deadline: float = 300.0
    ) -> None:
        self._desk, self._tools, self._checkpoint, self._outlet = desk, tools, checkpoint, outlet
        self._deadline = deadline

    async def __call__(self, turn: Turn) -> Turn:
        plan = self._desk.plan
        if plan is None:
            raise Unavailable("the run has no plan", hint="put `MakePlan` before `ExecutePlan`")
        undone: list[str] = []
        for planned in plan.calls:
            try:
                calls = await self._desk.calls(planned.name)
            except NotMade as error:
                undone.append(f"{planned.tool} was not made: {error}")
                continue
            except Unavailable as error:
                undone.append(f"{planned.tool} was left out: {error}")
                continue
            waiting: list[ToolCall] = []
            for id_, arguments in calls:
                call = ToolCall(id_, planned.tool, canonical(dict(arguments)))
                outcome = await self._tools.run(call, self._context(turn, call))
                if outcome.status is CallStatus.WAITING:
                    waiting.append(call)
                elif outcome.status is not CallStatus.DONE:
                    undone.append(outcome.text)
            if waiting:
                return turn.evolve(status=TurnStatus.WAITING, pending=tuple(waiting))
            self._checkpoint.mark(turn)
        answer = await self._answer(undone)
        await self._outlet.write(answer)
        return turn.evolve(answer=answer, pending=(), status=TurnStatus.RUNNING)

    async def _answer(self, undone: list[str]) -> str:
        try:
            answer = await self._desk.answer()
        except Unavailable:
            answer = ""
        return "\n".join(part for part in (answer, *undone) if part) or "Done."

    def _context(self, turn: Turn, call: ToolCall) -> CallContext:
        key = digest(f"{turn.run}\n{call.id}\n{call.tool}\n{call.arguments}")
        return CallContext(turn.run, call.id, turn.principal.own_grant, key, self._deadline)


def plan_pipeline() -> Pipeline:
    """Plan, then execute the plan: untrusted text is read by a model that can do nothing."""
    return Pipeline(partial(MakePlan, by_code=True), ExecutePlan, Remember)


def bound_pipeline() -> Pipeline:
    """Plan, then let the agent act within the plan: whatever it reads, it may do no more than the user asked for."""
    return Pipeline(MakePlan, Personalize, Retrieve, Compose, Agent, Answer, Remember)


def _told(tool: Tool) -> str:
    """A tool as the planner is told of it."""
    known = {"fields": sorted(tool.fields)} if tool.fields else {}
    return dumps({"tool": tool.name, "description": tool.description, "parameters": tool.parameters, **known})


__all__ = ["PLANNER", "PLAN_SCHEMA", "ExecutePlan", "MakePlan", "bound_pipeline", "plan_pipeline"]
