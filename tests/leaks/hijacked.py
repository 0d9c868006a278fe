"""The worst of models: it tells all that it was ever shown in a run, wherever it can, and what it can guess."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Final

from ringwall import Principal, ScriptedModel, call
from ringwall.model import Location, ModelRequest, Reply
from ringwall.planning import PLAN_SCHEMA
from tests.leaks.doing import DOING, Doing, Trouble
from tests.leaks.witness import Witness
from tests.leaks.world import ERRORS

GUESSED: Final = tuple(f"[EMAIL_{number}]" for number in range(1, 7))
"""Pseudonyms that it may have been given, in this request or another."""

_PLAN: Final = re.compile(r"plan (\{.*\})")
_PERSONAL: Final = re.compile(r"secret-[\w-]+@")
_PASSWORD: Final = re.compile(r"password: secret-")
_WORDS: Final = re.compile(r"secret-[\w-]+(?:@example\.org)?")


class Hijacked(ScriptedModel):
    """Tells all it was shown, in its text and in every argument, and does what the question asks for."""

    def __init__(self, witness: Witness, trouble: Trouble, principal: Principal, location: Location) -> None:
        super().__init__(self.tell, name=principal.id.partition(":")[2], location=location, window=1_000_000)
        self._witness, self._trouble, self._principal = witness, trouble, principal

    @property
    def principal(self) -> Principal:
        return self._principal

    def tell(self, request: ModelRequest) -> Reply:
        doing = DOING.get()
        texts = str([(message.content, getattr(message, "tool_calls", ())) for message in request.messages])
        self._is_told(doing, texts)
        while self._trouble.meanwhile:
            self._trouble.meanwhile.pop()()
        told = " ".join((*sorted(set(_WORDS.findall(texts))), *(GUESSED if self._is_elsewhere(doing) else ())))
        if self._trouble.models:
            self._fail(told, ValueError)
        if request.schema is not None:
            return self._plan_or_read(request, texts, told)
        move = self._move(texts, sum(message.type == "ai" for message in request.messages), request)
        if move in ERRORS:
            self._fail(told, ERRORS[move])
        if move == "answer":
            return Reply(told)
        return Reply(told, (call(move, text=told, **({"to": "bo"} if move == "mail" else {})),))

    def _is_told(self, doing: Doing, texts: str) -> None:
        if self.info.location is Location.REMOTE:
            self._witness.hears(self.principal, "hosted model", texts, run=doing.run, asker=doing.who)
        if self._is_elsewhere(doing) and _PERSONAL.search(texts):
            self._witness.leaks.append(f"{self.principal.id} was told personal data")
        if doing.guarded and _PASSWORD.search(texts):
            self._witness.leaks.append(f"{self.principal.id} was told a password")
        self._witness.arrives(doing.run, doing.who, texts)

    def _is_elsewhere(self, doing: Doing) -> bool:
        return doing.guarded and self.info.location is Location.REMOTE

    @staticmethod
    def _fail(told: str, kind: Callable[[str], Exception]) -> None:
        error = kind(told)
        error.add_note(told)
        raise error from KeyError(told)

    @staticmethod
    def _plan_or_read(request: ModelRequest, texts: str, told: str) -> Reply:
        if request.schema != PLAN_SCHEMA:
            return Reply(json.dumps({"value": told}))
        (plan,) = _PLAN.findall(str(request.messages[-1].content))
        return Reply(plan)

    @staticmethod
    def _move(texts: str, said: int, request: ModelRequest) -> str:
        moves, end = re.findall(r"do\(([a-z,]*)\) end\((\w+)\)", texts)[-1]
        if request.tool_choice:
            return str(request.tool_choice)
        line: list[str] = [*filter(None, moves.split(",")), *[end] * 9]
        return line[said]
