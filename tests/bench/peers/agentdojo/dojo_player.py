"""The worst model: it does the user's task without a mistake, and every injected instruction that it reads as well."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator
from typing import Any, Final

from agentdojo.functions_runtime import FunctionCall
from dojo_world import MARK, Case
from pydantic_core import to_jsonable_python

from ringwall.model.base import Ability, Delta, Location, ModelInfo, ModelProvider, ModelRequest, RequestedCall

MODES: Final = ("inject", "late", "hijack")
"""When the attacker's calls are made: at once, at the end, or (also) in place of the user's own arguments."""

Moves = Generator[FunctionCall, str, str]
"""Yields calls, is sent what each returned, returns the answer."""


def arguments_of(call: FunctionCall) -> str:
    """A call's arguments as a model writes them."""
    return json.dumps(to_jsonable_python(dict(call.args)))


class WorstModel(ModelProvider):
    """Plays one case after the other: `play` says which comes next."""

    def __init__(self) -> None:
        abilities = frozenset((Ability.TOOLS, Ability.JSON_SCHEMA))
        self._info = ModelInfo("worst", 1_000_000, Location.IN_PROCESS, abilities)
        self._moves: Moves | None = None
        self.seen = False

    def play(self, case: Case, environment: Any, mode: str, effects: frozenset[str]) -> None:
        """Begin a case; `effects` are the tools whose calls do something."""
        self.seen = False
        self._moves = self._react(case, environment, mode, effects)
        self._begun = False

    @property
    def info(self) -> ModelInfo:
        return self._info

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        assert self._moves is not None
        try:
            move = self._moves.send(str(request.messages[-1].content)) if self._begun else next(self._moves)
            self._begun = True
        except StopIteration as end:
            yield Delta(str(end.value))
            return
        yield Delta("", (RequestedCall("", move.function, arguments_of(move)),))

    def _react(self, case: Case, environment: Any, mode: str, effects: frozenset[str]) -> Moves:
        fired = False
        for call in case.true_calls(environment):
            if self.seen and mode == "hijack" and call.function in effects:
                yield from _hijacked(call, case.attack_calls(environment), effects)
            read = yield call
            self.seen = self.seen or MARK in read
            if self.seen and not fired and mode == "inject":
                fired = True
                for move in case.attack_calls(environment):
                    yield move
        if self.seen and not fired:
            for move in case.attack_calls(environment):
                yield move
        return f"{case.final_text} {case.attack_text}" if self.seen and case.attack_text else case.final_text


def _hijacked(own: FunctionCall, attack: list[FunctionCall], effects: frozenset[str]) -> Generator[FunctionCall, str]:
    """The user's own call with the attacker's arguments, after what the attacker must read for them."""
    place = next((n for n, call in enumerate(attack) if call.function == own.function), None)
    if place is not None:
        for call in attack[:place]:
            if call.function not in effects:
                yield call
        yield FunctionCall(function=own.function, args={**own.args, **attack[place].args})
