"""What a soak asks of an engine, and what may come back: every answer carries a code that is its request's alone.

Where the code is the only one that a request's grammar allows, another's text cannot pass for its own. Where the
grammar allows the codes of others too, the model has to find its own in its prompt: if the engine mixed up what it
computed of two prompts, the answer would be the other's. Used are only the codes that the model, asked alone, prefers
to all others by far: what is computed beside other requests may differ in its last digits.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from itertools import product
from random import Random
from typing import Any, Final

from langchain_core.messages import HumanMessage, SystemMessage

from chats import HANDBOOK, alone, two_questions
from ringwall.errors import LimitReached
from ringwall.label import BOTTOM, Label
from ringwall.model import Delta, ModelProvider, ModelRequest, Sampling, ToolSpec, collect
from ringwall.model.base import ANY_TOOL, TokenProbability
from ringwall.principal import ACL
from ringwall.schema import JsonSchema

OTHERS: Final = 7

_LEAD: Final = 'The code is "'
_ALTERNATIVES: Final = 64

_HUES: Final = ("black", "golden", "green", "purple", "silver", "white")
_BEASTS: Final = ("bear", "eagle", "horse", "lion", "rabbit", "tiger")
CODES: Final = tuple(map(" ".join, product(_HUES, _BEASTS)))


class CrossTalk(AssertionError):
    """An answer holds what is not its request's."""


@dataclass(slots=True)
class Ticket:
    """One request: its code, the codes of others, who asks, and how chance has it."""

    code: str
    others: tuple[str, ...]
    chance: Random
    silent: list[Any] = field(default_factory=list)
    """Streams that nobody reads any more; whoever runs the soak closes them."""

    def request(self, text: str, *, system: str = HANDBOOK, max_tokens: int = 24, **more: Any) -> ModelRequest:
        """Everybody may read the system prompt, the rest one of four people."""
        asker = f"user:{self.chance.choice('abcd')}"
        label = Label.of(ACL.of(asker))
        sampling = more.pop("sampling", Sampling(max_tokens=max_tokens))
        messages = (SystemMessage(system), HumanMessage(text))
        return ModelRequest(messages, label, labels=(BOTTOM, label), asker=asker, sampling=sampling, **more)

    def hold(self, *, is_right: bool, told: str) -> None:
        if not is_right:
            raise CrossTalk(f"{told!r} came for {self.code!r}")


async def choose(model: ModelProvider, ticket: Ticket) -> str:
    """Its own code, of those that others were given."""
    reply = await collect(model.stream(_choice(ticket, (ticket.code, *ticket.others), Sampling(max_tokens=24))))
    ticket.hold(is_right=reply.text == _LEAD + ticket.code, told=reply.text)
    return "chosen"


async def margin(model: ModelProvider, ticket: Ticket) -> float:
    """By how much the model prefers the ticket's code to any other, at the narrowest place (in logits)."""
    request = _choice(ticket, CODES, Sampling(max_tokens=24, logprobs=_ALTERNATIVES))
    told = [token async for delta in model.stream(request) for token in delta.logprobs]
    said, least = "", math.inf
    for token in told:
        if said.startswith(_LEAD):
            least = min(least, token.logprob - _best_rival(token, said.removeprefix(_LEAD), ticket.code))
        said += token.text
    return least if said == _LEAD + ticket.code else -math.inf


def _choice(ticket: Ticket, codes: Iterable[str], sampling: Sampling) -> ModelRequest:
    quoted = " | ".join(f'"{code}"' for code in codes)
    rules = f'root ::= "{_LEAD.replace(chr(34), chr(92) + chr(34))}" ({quoted})'
    text = f'{_LEAD}{ticket.code}". {_LEAD}{ticket.code}". Say it again.'
    return ticket.request(text, grammar=rules, sampling=sampling)


def _best_rival(token: TokenProbability, said: str, code: str) -> float:
    """The likeliest token with which another code goes on; that of the last one told, if none was told."""
    rests = [other.removeprefix(said) for other in CODES if other != code and other.startswith(said)]
    own = code.removeprefix(said)
    rivals = [
        other.logprob
        for other in token.others
        if not own.startswith(other.text) and any(rest.startswith(other.text) for rest in rests)
    ]
    return max(rivals, default=token.others[-1].logprob)


async def schema(model: ModelProvider, ticket: Ticket) -> str:
    fits = {
        "type": "object",
        "properties": {"code": {"const": ticket.code}, "note": {"type": "string", "maxLength": 24}},
        "required": ["code", "note"],
    }
    reply = await collect(model.stream(ticket.request("Note something.", schema=fits, max_tokens=96)))
    ticket.hold(is_right=json.loads(reply.text)["code"] == ticket.code, told=reply.text)
    return "schema"


async def tool(model: ModelProvider, ticket: Ticket) -> str:
    parameters: JsonSchema = {"type": "object", "properties": {"code": {"enum": [ticket.code]}}, "required": ["code"]}
    tools = tuple(ToolSpec(name, "Opens a door.", parameters) for name in ("open_left", "open_right"))
    request = ticket.request("Open the left door.", tools=tools, tool_choice=ANY_TOOL, max_tokens=64)
    (call,) = (await collect(model.stream(request))).calls
    ticket.hold(is_right=json.loads(call.arguments) == {"code": ticket.code}, told=call.arguments)
    return "tool"


async def stop(model: ModelProvider, ticket: Ticket) -> str:
    rules = f'root ::= "{ticket.code}: " [a-z ]{{4,16}} "STOP" [a-z]*'
    sampling = Sampling(max_tokens=48, stop=("STOP",))
    reply = await collect(model.stream(ticket.request("Go on.", grammar=rules, sampling=sampling)))
    is_right = reply.text.startswith(f"{ticket.code}: ") and "STOP" not in reply.text
    ticket.hold(is_right=is_right, told=reply.text)
    return "stop"


async def long(model: ModelProvider, ticket: Ticket) -> str:
    """A long prompt, and chance in what is said after the code."""
    system = two_questions(ticket.chance.randrange(20))[0].system
    sampling = Sampling(temperature=0.9, seed=ticket.chance.randrange(1000), max_tokens=24, logprobs=2)
    rules = f'root ::= "{ticket.code}: " [a-z ]{{4,24}}'
    reply = await collect(model.stream(ticket.request("What then?", system=system, grammar=rules, sampling=sampling)))
    ticket.hold(is_right=reply.text.startswith(f"{ticket.code}: "), told=reply.text)
    return "long"


async def leave(model: ModelProvider, ticket: Ticket) -> str:
    """Somebody who leaves: after some pieces of the answer, or at any moment."""
    request = ticket.request(alone(ticket.chance.randrange(50)).question, max_tokens=300)
    if ticket.chance.random() < 0.5:
        async with contextlib.aclosing(model.stream(request)) as stream:
            for _ in range(ticket.chance.randrange(8)):
                await anext(stream)
        return "left"
    asked = asyncio.create_task(collect(model.stream(request)))
    await asyncio.sleep(ticket.chance.random() ** 3 * 4)
    asked.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asked
    return "cancelled"


async def late(model: ModelProvider, ticket: Ticket) -> str:
    deadline = ticket.chance.random() ** 2 * 3
    request = ticket.request(alone(ticket.chance.randrange(50)).question, max_tokens=32, deadline=deadline)
    with contextlib.suppress(LimitReached):
        await collect(model.stream(request))
        return "in time"
    return "late"


async def silence(model: ModelProvider, ticket: Ticket) -> str:
    """Somebody who asks, and reads no further than the first piece."""
    stream = model.stream(ticket.request(alone(ticket.chance.randrange(50)).question, max_tokens=60))
    first: Delta = await anext(stream)
    assert first is not None
    ticket.silent.append(stream)
    return "silent"


Ask = Callable[[ModelProvider, Ticket], Awaitable[str]]

KINDS: Final[tuple[Ask, ...]] = (choose, choose, choose, schema, tool, stop, long, leave, leave, late, silence)
