"""The steps of an ordinary run: Plan, Personalize, Retrieve, Compose, Agent, Answer, Remember.

Each asks for what it needs in its constructor and does not know that a gate stands in front of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Final

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from ringwall.data.base import Condition
from ringwall.data.retrieve import Retriever, Rewriter
from ringwall.data.stages import Fold, Stage, without_repeats
from ringwall.errors import LimitReached
from ringwall.interface.base import CallContext, CallStatus, Tool, ToolCall, ToolRunner
from ringwall.label import Labelled
from ringwall.model.base import ModelProvider, ModelRequest, Reply, RequestedCall, Sampling, ToolSpec
from ringwall.model.reply import collect
from ringwall.personalization.base import Memory, MemoryStore, ProfileStore
from ringwall.personalization.compose import DEFAULT_PROMPT, PromptTemplate, compose
from ringwall.pipeline import Checkpoint, Outlet, Pipeline
from ringwall.schema import JSON, digest
from ringwall.turn import Turn, TurnStatus, cite, quotations, shown


class Plan:
    """Writes the call that the user's own action asks for, from the user's words alone.

    When the intent names exactly one tool, its call is asked for before anything else is read: no document,
    memory or tool result can have shaped it, and its label says so. Without such an intent it does nothing.
    """

    def __init__(self, model: ModelProvider, tools: ToolRunner, *, sampling: Sampling = Sampling()) -> None:  # noqa: B008
        self._model, self._sampling = model, sampling
        self._tools = {tool.name: tool for tool in tools.tools()}

    async def __call__(self, turn: Turn) -> Turn:
        if turn.intent is None or len(turn.intent) != 1:
            return turn
        (name,) = turn.intent
        if name not in self._tools:
            return turn
        request = ModelRequest(
            messages=(HumanMessage(content=turn.question.value),),
            label=turn.question.label,
            tools=(_spec(self._tools[name]),),
            tool_choice=name,
            sampling=self._sampling,
        )
        reply = await collect(self._model.stream(request))
        return turn.evolve(pending=_pending(reply.calls, turn.rounds), rounds=turn.rounds + 1)


class Personalize:
    """Adds the user's profile, and memories that bear on the question."""

    def __init__(self, profiles: ProfileStore, memories: MemoryStore, *, k: int = 3) -> None:
        self._profiles, self._memories, self._k = profiles, memories, k

    async def __call__(self, turn: Turn) -> Turn:
        profile = await self._profiles.get(turn.principal)
        memories = await self._memories.recall(turn.principal, turn.question.value, turn.grants, self._k)
        if not profile and not memories:
            return turn
        return turn.evolve(profile=profile or None, memories=tuple(memories))


class Retrieve:
    """Finds the passages that answer the question, among those the user may read."""

    def __init__(
        self,
        retriever: Retriever,
        *,
        k: int = 4,
        fetch: int = 0,
        where: tuple[Condition, ...] = (),
        stages: Sequence[Stage] = (),
        rewriter: Rewriter | None = None,
        fold: Fold = without_repeats,
    ) -> None:
        """Everything after `retriever` is as in `Retriever.retrieve`."""
        self._retriever, self._k, self._fetch, self._fold = retriever, k, fetch, fold
        self._where, self._stages, self._rewriter = where, stages, rewriter

    async def __call__(self, turn: Turn) -> Turn:
        matches = await self._retriever.retrieve(
            turn.question.value,
            turn.grants,
            self._k,
            fetch=self._fetch,
            where=self._where,
            stages=self._stages,
            rewriter=self._rewriter,
            fold=self._fold,
        )
        return turn.evolve(matches=tuple(matches))


class Compose:
    """Writes the prompt from the template, or from the one that the asker gets; the turn says which.

    A call that was planned already stands at its end.
    """

    def __init__(
        self, *, template: PromptTemplate = DEFAULT_PROMPT, choice: Callable[[str], PromptTemplate] | None = None
    ) -> None:
        """`choice` gives each asker, by its grant, the template that it gets (`PromptRegistry.choice`)."""
        self._template, self._choice = template, choice

    async def __call__(self, turn: Turn) -> Turn:
        template = self._template if self._choice is None else self._choice(turn.principal.own_grant)
        messages = compose(
            template,
            turn.question,
            passages=[Labelled(shown(match.chunk), match.chunk.label) for match in turn.matches],
            profile=turn.profile,
            memories=turn.memories,
        )
        if turn.pending:
            messages = (*messages, Labelled(_call_message(turn.pending), turn.question.label))
        return turn.evolve(messages=messages, prompt=f"{template.name}@{template.version}")


class Agent:
    """Generates and acts in turns until the model answers without asking for a tool.

    What a model or a tool does wrong goes back to the model as a message: invented tools, arguments that do not
    fit, failures, refusals. After `rounds` replies without an answer: `LimitReached`. When a call must wait for a
    human the others of its reply are still run, and the turn comes back `WAITING`; given that turn again, the
    agent goes on where it stopped.
    """

    def __init__(
        self,
        model: ModelProvider,
        tools: ToolRunner,
        checkpoint: Checkpoint,
        outlet: Outlet,
        *,
        rounds: int = 8,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        deadline: float = 300.0,
    ) -> None:
        self._model, self._tools, self._checkpoint, self._outlet = model, tools, checkpoint, outlet
        self._rounds, self._sampling, self._deadline = rounds, sampling, deadline
        self._specs = tuple([_spec(tool) for tool in tools.tools()])

    async def __call__(self, turn: Turn) -> Turn:
        while True:
            if not turn.pending:
                turn = await self._generate(turn)
                if not turn.pending:
                    return turn
                self._checkpoint.mark(turn)
            turn = await self._act(turn)
            if turn.status is TurnStatus.WAITING:
                return turn
            self._checkpoint.mark(turn)

    async def _generate(self, turn: Turn) -> Turn:
        if turn.rounds >= self._rounds:
            raise LimitReached(
                f"the model asked for tools {turn.rounds} times and gave no answer",
                hint="what it did is in the journal; raise `rounds`, or give it fewer tools",
            )
        reply = await self._reply(turn)
        pending = _pending(reply.calls, turn.rounds)
        if not pending:
            return turn.evolve(rounds=turn.rounds + 1, answer=reply.text)
        message = Labelled(_call_message(pending, text=reply.text), turn.label)
        return turn.evolve(messages=(*turn.messages, message), pending=pending, rounds=turn.rounds + 1)

    async def _reply(self, turn: Turn) -> Reply:
        request = ModelRequest(
            messages=tuple([message.value for message in turn.messages]),
            label=turn.label,
            labels=tuple([message.label for message in turn.messages]),
            asker=turn.principal.own_grant,
            tools=self._offered(turn),
            sampling=self._sampling,
        )
        texts: list[str] = []
        calls: list[RequestedCall] = []
        async with aclosing(self._model.stream(request)) as deltas:
            async for delta in deltas:
                if delta.text:
                    texts.append(delta.text)
                    await self._outlet.write(delta.text)
                calls.extend(delta.calls)
        if texts and self._outlet.holds:
            await self._outlet.end()
        return Reply("".join(texts), tuple(calls))

    def _offered(self, turn: Turn) -> tuple[ToolSpec, ...]:
        """The tools on offer: all, or with an intent those that it names and that were not asked for yet."""
        if turn.intent is None:
            return self._specs
        replies = [message.value for message in turn.messages if isinstance(message.value, AIMessage)]
        asked = {call["name"] for reply in replies for call in reply.tool_calls}
        return tuple(spec for spec in self._specs if spec.name in turn.intent - asked)

    async def _act(self, turn: Turn) -> Turn:
        messages: list[Labelled[BaseMessage]] = []
        waiting: list[ToolCall] = []
        label = turn.messages[-1].label if turn.messages else turn.question.label
        for call in turn.pending:
            outcome = await self._tools.run(call, self._context(turn, call))
            if outcome.status is CallStatus.WAITING:
                waiting.append(call)
            else:
                message = ToolMessage(content=outcome.text, tool_call_id=call.id)
                messages.append(Labelled(message, label | outcome.label))
        status = TurnStatus.WAITING if waiting else TurnStatus.RUNNING
        if not messages:
            return turn.evolve(status=status)
        return turn.evolve(messages=(*turn.messages, *messages), pending=tuple(waiting), status=status)

    def _context(self, turn: Turn, call: ToolCall) -> CallContext:
        key = digest(f"{turn.run}\n{call.id}\n{call.tool}\n{call.arguments}")
        return CallContext(turn.run, call.id, turn.principal.own_grant, key, self._deadline)


class Answer:
    """Says which passages the answer rests on: those it cites by number, and those it merely was shown.

    What the answer puts between quotation marks is looked for in them, word for word.
    """

    _NUMBER: Final = re.compile(r"\[(\d{1,3})\]")

    async def __call__(self, turn: Turn) -> Turn:
        if not turn.matches:
            return turn
        cited = {int(number) for number in self._NUMBER.findall(turn.answer)}
        quotes = quotations(turn.answer)
        found = [cite(match.chunk, cited=place in cited, quotes=quotes) for place, match in enumerate(turn.matches, 1)]
        return turn.evolve(citations=tuple(found))


class Remember:
    """Keeps what the user asks to have kept: a question that begins with "remember"."""

    _ASKED: Final = re.compile(r"^\s*(?:please\s+)?remember(?:\s+that)?[:,]?\s+(.+)$", re.IGNORECASE | re.DOTALL)

    def __init__(self, memories: MemoryStore) -> None:
        self._memories = memories

    async def __call__(self, turn: Turn) -> Turn:
        asked = self._ASKED.match(turn.question.value)
        if asked:
            memory = Memory(f"{turn.run}/0", turn.principal.own_grant, asked[1].strip(), turn.question.label)
            await self._memories.add(turn.principal, [memory])
        return turn


def ordinary_pipeline() -> Pipeline:
    """The pipeline of an app that was not given another."""
    return Pipeline(Plan, Personalize, Retrieve, Compose, Agent, Answer, Remember)


def _pending(calls: Sequence[RequestedCall], round_: int) -> tuple[ToolCall, ...]:
    """The calls with ids of ours, unique in the run: a model may use one twice."""
    return tuple([ToolCall(f"{round_}.{place}", c.name, c.arguments) for place, c in enumerate(calls)])


def _call_message(calls: Sequence[ToolCall], *, text: str = "") -> BaseMessage:
    """A reply as a message.

    Arguments that are no JSON object are left out here: the call itself keeps them, and the answer to it tells
    the model what was wrong.
    """
    if not calls:
        return AIMessage(content=text)
    return AIMessage(
        content=text,
        tool_calls=[
            {"name": call.tool, "args": _arguments(call), "id": call.id, "type": "tool_call"} for call in calls
        ],
    )


def _arguments(call: ToolCall) -> dict[str, JSON]:
    try:
        return call.parsed if isinstance(call.parsed, dict) else {}
    except ValueError:
        return {}


def _spec(tool: Tool) -> ToolSpec:
    return ToolSpec(tool.name, tool.description, tool.parameters)
