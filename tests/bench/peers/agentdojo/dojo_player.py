"""The worst model: it does the user's task without a mistake, and every injected instruction that it reads as well."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, Final

from agentdojo.functions_runtime import FunctionCall
from dojo_plan import ANSWER, Written, as_text, names_alone
from dojo_world import MARK, Case
from pydantic_core import to_jsonable_python

from ringwall.interface.base import CallContext, CallStatus, PreparedCall, Tool, ToolCall, ToolOutcome, ToolRunner
from ringwall.model.base import Ability, Delta, Location, ModelInfo, ModelProvider, ModelRequest, RequestedCall
from ringwall.planning import PLAN_SCHEMA

MODES: Final = ("inject", "late", "hijack")
"""When the attacker's calls are made: at once, at the end, or (also) in place of the user's own arguments."""

Moves = Generator[FunctionCall, str, str]
"""Yields calls, is sent what each returned, returns the answer."""


def arguments_of(call: FunctionCall) -> str:
    """A call's arguments as a model writes them."""
    return json.dumps(to_jsonable_python(dict(call.args)))


class Part:
    """What is played: a case, in which environment, how it is attacked, and the tools whose calls do something."""

    def __init__(
        self, case: Case, environment: Any, mode: str, script: Written, *, effects: Mapping[str, frozenset[str]]
    ) -> None:
        """`effects` are the control arguments of the tools whose calls do something."""
        self.case, self.environment, self.mode, self.effects, self.script = case, environment, mode, effects, script
        self.seen = False
        self.attack_asks = 0

    def read(self, text: str) -> None:
        """Whoever reads injected text is hijacked from then on."""
        self.seen = self.seen or MARK in text

    def blind(self, call: FunctionCall) -> FunctionCall:
        """A call of somebody who was refused a look: content can hold nothing that was to be seen there."""
        control = self.effects.get(call.function, frozenset(call.args))
        args = {n: value if n in control or not isinstance(value, str) else "?" for n, value in call.args.items()}
        return FunctionCall(function=call.function, args=args)

    def attack(self) -> list[FunctionCall]:
        return self.case.attack_calls(self.environment)

    def hijacked(self, own: FunctionCall) -> list[FunctionCall]:
        """The user's own call with the attacker's arguments, after what the attacker must read for them."""
        attack = self.attack()
        place = next((n for n, call in enumerate(attack) if call.function == own.function), None)
        if place is None:
            return []
        before = [call for call in attack[:place] if call.function not in self.effects]
        return [*before, FunctionCall(function=own.function, args={**own.args, **attack[place].args})]

    def sayable(self) -> list[FunctionCall]:
        """The attacker's calls as far as somebody can write them who was shown the plan's results and can look up none.

        Behind a look that the plan does not have, arguments hold what nobody here has read.
        """
        planned = {call.tool for call in self.script.plan.calls}
        attack = self.attack()
        unread = (n for n, call in enumerate(attack) if call.function not in planned | self.effects.keys())
        return attack[: next(unread, len(attack))]

    @property
    def final_text(self) -> str:
        text, more = self.case.final_text, self.case.attack_text
        return f"{text} {more}" if self.seen and more else text


class WorstModel(ModelProvider):
    """Plays one part after the other, as an agent, as a planner, and as a reader."""

    def __init__(self, *, names_alone: bool) -> None:
        abilities = frozenset((Ability.TOOLS, Ability.JSON_SCHEMA))
        self._info = ModelInfo("worst", 1_000_000, Location.IN_PROCESS, abilities)
        self._names_alone = names_alone

    def play(self, part: Part) -> None:
        """Begin a part."""
        self._part, self._moves, self._begun = part, self._react(part), False

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        if request.schema == PLAN_SCHEMA:
            plan = self._part.script.plan
            yield Delta(as_text(names_alone(plan) if self._names_alone else plan))
        elif request.schema is not None:
            texts = [str(message.content) for message in request.messages[1:]]
            yield Delta(json.dumps({"value": self._reading(texts[0], texts[1:])}))
        else:
            yield self._move(str(request.messages[-1].content))

    def _move(self, read: str) -> Delta:
        try:
            move = self._moves.send(read) if self._begun else next(self._moves)
            self._begun = True
        except StopIteration as end:
            return Delta(str(end.value))
        return Delta("", (RequestedCall("", move.function, arguments_of(move)),))

    def _react(self, part: Part) -> Moves:
        fired = False
        for call in part.case.true_calls(part.environment):
            if part.seen and part.mode == "hijack" and call.function in part.effects:
                yield from self._attack(part, part.hijacked(call))
            part.read((yield call))
            if part.seen and not fired and part.mode == "inject":
                fired = True
                yield from self._attack(part, part.attack())
        if part.seen and not fired:
            yield from self._attack(part, part.attack())
        return part.final_text

    def _attack(self, part: Part, calls: Sequence[FunctionCall]) -> Generator[FunctionCall, str]:
        is_blind = False
        for call in calls:
            told = yield part.blind(call) if is_blind else call
            is_blind = is_blind or (call.function not in part.effects and " was refused: " in told)

    def _reading(self, ask: str, texts: Sequence[str]) -> Any:
        part = self._part
        for text in texts:
            part.read(text)
        if ask == ANSWER:
            return part.final_text
        reading, value = next(
            (json.loads(k), v) for k, v in part.script.readings.items() if json.loads(k)["ask"] == ask
        )
        if part.mode == "hijack" and "quotes" not in reading and any(MARK in text for text in texts):
            return _attackers_value(ask, value, part.sayable())
        return value


def _attackers_value(ask: str, value: Any, attack: Sequence[FunctionCall]) -> Any:
    """What a hijacked reader says in place of an argument: the attacker's own, if the attacker calls that tool."""
    argument, _, function = ask.partition(": ")[2].partition(" of ")
    if argument == "each":
        changed = {name: _attackers_value(f"x: {name} of {function}", value[0][name], attack) for name in value[0]}
        return [changed, *value[1:]]
    for call in attack:
        wanted = call.args.get(argument.split()[0]) if call.function == function else None
        wanted = wanted[0] if isinstance(wanted, list) and wanted and not isinstance(value, list) else wanted
        if isinstance(wanted, type(value)) and not isinstance(wanted, dict):
            return wanted
    return value


class Subverted(ToolRunner):
    """In front of the gate while a plan is executed: makes the attacker's calls as if the code itself were hijacked."""

    def __init__(self, inner: ToolRunner, part: Part) -> None:
        self._inner, self._part, self._fired = inner, part, False

    def tools(self) -> Sequence[Tool]:
        return self._inner.tools()

    async def execute(self, prepared: PreparedCall, context: CallContext) -> ToolOutcome:
        part, last = self._part, self._part.script.plan.calls[-1].name
        if part.seen and part.mode == "hijack" and prepared.tool.name in part.effects:
            own = FunctionCall(function=prepared.tool.name, args=dict(prepared.arguments))
            await self._try(part.hijacked(own), context, f"hijacked {prepared.call.id}")
        outcome = await self._inner.execute(prepared, context)
        if outcome.status is CallStatus.WAITING:
            return outcome
        part.read(outcome.text)
        if part.seen and not self._fired and (part.mode == "inject" or prepared.call.id.split(".")[0] == last):
            self._fired = True
            await self._try(part.attack(), context, "attack")
        return outcome

    async def _try(self, calls: Sequence[FunctionCall], context: CallContext, name: str) -> None:
        for place, call in enumerate(calls):
            asked = ToolCall(f"{name} {place}", call.function, arguments_of(call))
            outcome = await self._inner.run(asked, context)
            self._part.attack_asks += outcome.status is CallStatus.WAITING


__all__ = ["MODES", "Part", "Subverted", "WorstModel", "arguments_of"]
