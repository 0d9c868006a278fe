"""The model ring: what a request is, and what a model provider must promise.

A plugin author reads this file alone. Subclass `ModelProvider`, then run `ringwall.model.contract` on it.
Messages are langchain-core's, so what the ecosystem makes fits without translation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from ringwall.label import BOTTOM, Label
from ringwall.principal import Principal
from ringwall.schema import JsonSchema

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage


ANY_TOOL: Final = "*"
"""A `ModelRequest.tool_choice`: the reply must call one of the tools on offer, whichever."""


class Ability(StrEnum):
    """What a provider can do beyond plain chat."""

    TOOLS = "tools"
    JSON_SCHEMA = "json_schema"
    GRAMMAR = "grammar"
    VISION = "vision"


class Location(StrEnum):
    """Where a model runs. Text that goes to a `REMOTE` one leaves the process, and needs a grant to."""

    IN_PROCESS = "in_process"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class Price:
    """Money per million tokens, in US dollars.

    `cached` is the price of those tokens of a prompt that the provider had kept from an earlier one; None is the same
    as for all others.
    """

    prompt: float = 0.0
    completion: float = 0.0
    cached: float | None = None

    def of(self, usage: Usage) -> float:
        """What `usage` cost."""
        kept, price = min(usage.cached, usage.prompt), self.prompt if self.cached is None else self.cached
        return ((usage.prompt - kept) * self.prompt + kept * price + usage.completion * self.completion) / 1e6


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What the framework must know of a provider before it sends a request.

    `window` is the context window in tokens, prompt and answer together.
    """

    name: str
    window: int
    location: Location
    abilities: frozenset[Ability] = frozenset()
    price: Price = Price()


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool as the model is told of it; `parameters` is the JSON schema of its arguments (an object)."""

    name: str
    description: str
    parameters: JsonSchema


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. `temperature` 0 is greedy; `max_tokens` bounds the answer.

    `top_p` leaves the likeliest tokens that make up so much of the probability, `min_p` those at least so likely
    relative to the likeliest. `frequency_penalty` (-2 to 2) is taken from a token's logit for each time that the
    reply holds it already: a little keeps small models from going in circles. `logit_bias` is added to the logits
    of tokens, by their number in the model's own vocabulary. With `logprobs` each token is told with its
    probability, and so many others with theirs; None tells nothing.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int | None = None
    frequency_penalty: float = 0.0
    min_p: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One question to a model.

    `label` is the join of the labels of everything in `messages`; the gate asks with it whether the
    provider may receive them. With `schema` the reply's text is JSON that fits it, with `grammar` text that this
    grammar (GBNF, of llama.cpp) allows. `tool_choice` names the one tool that the reply must call, or is
    `ANY_TOOL`; None leaves it to the model.

    `labels` are those of each message: a provider that keeps what it computed of a prompt shares it only among
    those who may all read it. Left out, each message has the label of all. `asker` is for whom it is asked: of
    many who wait, none waits for all requests of another; the gate fills it in. `deadline` is in seconds from the
    asking, for a provider that can stop by itself. `adapter` and `control` name what shapes a model's replies, of
    those that the provider was given.
    """

    messages: tuple[BaseMessage, ...]
    label: Label = BOTTOM
    tools: tuple[ToolSpec, ...] = ()
    tool_choice: str | None = None
    schema: JsonSchema | None = None
    sampling: Sampling = Sampling()
    grammar: str = ""
    labels: tuple[Label, ...] = ()
    asker: str = ""
    deadline: float | None = None
    adapter: str = ""
    control: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens that a request took. `cached` are those of the prompt that the provider did not have to read again."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0


class RequestedCall(NamedTuple):
    """A tool call as a model wrote it: `arguments` is the JSON text, unchecked."""

    id: str
    name: str
    arguments: str


class Alternative(NamedTuple):
    """A token that could have come, and the natural logarithm of its probability."""

    text: str
    logprob: float


class TokenProbability(NamedTuple):
    """A token that came, the natural logarithm of its probability, and the likeliest tokens at its place."""

    text: str
    logprob: float
    others: tuple[Alternative, ...] = ()


class Delta(NamedTuple):
    """A piece of a reply: some text, whole tool calls, or (in the last one) the usage and why it ended.

    `finish` is `stop`, `length` or `tool_calls`. `logprobs` are those of the tokens in this piece, or of tokens
    whose text is still held back, if they were asked for.
    """

    text: str = ""
    calls: tuple[RequestedCall, ...] = ()
    usage: Usage | None = None
    finish: str = ""
    logprobs: tuple[TokenProbability, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply: the joined text, the calls in order, and what it cost."""

    text: str = ""
    calls: tuple[RequestedCall, ...] = ()
    usage: Usage = Usage()
    finish: str = "stop"
    provider: str = ""


class ModelProvider(ABC):
    """A chat model: local, hosted or anyone's.

    The caller relies on this:

    - nothing is sent or computed before the first delta is asked for;
    - when the caller leaves the stream (closes it, or its task is cancelled) the work stops within one token;
    - concurrent streams do not mix;
    - a reply that stops early or breaks the protocol raises `BadReply`, it is never passed off as whole;
    - a prompt that does not fit raises `ContextOverflow` before anything is generated.

    Other failures raise `ProviderRefused` or `ProviderUnavailable`.
    """

    @property
    @abstractmethod
    def info(self) -> ModelInfo:
        """What this provider can do, and where it runs."""

    @abstractmethod
    def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        """Answer `request` piece by piece."""

    @property
    def principal(self) -> Principal:
        """Who receives the text that is sent here; what it may receive is for the policy to say."""
        return Principal(f"model:{self.info.name}")

    async def forget(self, asker: str) -> None:
        """Forget what is kept for whoever holds this own grant: replies of a cache. Most keep nothing."""

    async def check(self) -> bool:
        """Look whether it could answer now, without asking it anything: False if there is no telling.

        Raises `ProviderUnavailable`, or another error, if it could not.
        """
        return False

    async def close(self) -> None:
        """Release what the provider holds; called once, by the app that opened it."""
