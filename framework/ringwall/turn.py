"""The turn: the frozen state of one run, and its JSON form.

The journal never keeps whole turns: it keeps what each step changed, and a turn is the fold of those changes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypedDict, Unpack, cast

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from ringwall.data.base import Chunk, Match
from ringwall.interface.base import ToolCall
from ringwall.label import BOTTOM, Label, LabelJson, Labelled, join
from ringwall.personalization.base import Memory, Profile
from ringwall.principal import ACL, Grants, Principal
from ringwall.schema import JSON


class TurnStatus(StrEnum):
    """Whether the next step may run."""

    RUNNING = "running"
    WAITING = "waiting"
    """For a human: an approval, or a word on what became of a call."""


class Citation(NamedTuple):
    """A passage that the answer rests on: document and character range (end exclusive), and its page if it has one.

    `cited` tells whether the answer points at it (`[1]`), or it merely stood in the prompt; `quotes` are the words
    that the answer puts between quotation marks and that do stand in the passage, or above it.
    """

    document: str
    start: int
    end: int
    cited: bool
    quotes: tuple[str, ...] = ()
    page: int = 0


_QUOTATION: Final = re.compile(r"[\"“„«]([^\"“”„«»]+)[\"”»]")


def quotations(text: str) -> list[str]:
    """What stands between quotation marks in a text."""
    return _QUOTATION.findall(text)


def shown(chunk: Chunk) -> str:
    """What a model reads of a passage: its text, below what it stands under and the head of its table."""
    if not chunk.metadata:
        return chunk.text
    above = [chunk.metadata.get("heading"), chunk.metadata.get("columns")]
    return "\n".join([*(line for line in above if isinstance(line, str)), chunk.text])


def cite(chunk: Chunk, *, cited: bool, quotes: Sequence[str] = ()) -> Citation:
    """The citation of a passage, with those of the quotes that stand in it, white space aside."""
    text = " ".join(shown(chunk).split()) if quotes else ""
    found = tuple([quote for quote in quotes if " ".join(quote.split()) in text])
    page = chunk.metadata.get("page", 0)
    return Citation(chunk.document, chunk.start, chunk.end, cited, found, page if isinstance(page, int) else 0)


class TurnChanges(TypedDict, total=False):
    """The fields of a turn that a step may change."""

    intent: frozenset[str] | None
    profile: Profile | None
    memories: tuple[Memory, ...]
    matches: tuple[Match, ...]
    messages: tuple[Labelled[BaseMessage], ...]
    pending: tuple[ToolCall, ...]
    rounds: int
    answer: str
    citations: tuple[Citation, ...]
    status: TurnStatus
    prompt: str


@dataclass(frozen=True, repr=False)
class Turn:
    """What one run knows so far. A step returns a fuller one.

    `grants` is what the principal held when the run began: steps pass it on to the stores, and the gates
    narrow it to what the principal holds at that moment. `intent` names the tools that the user's own words
    ask for; None when that was not settled. `messages` is the conversation with the model, each with its label.
    `prompt` is which template they began with, as `name@version`.
    """

    run: str
    principal: Principal
    question: Labelled[str]
    grants: Grants
    intent: frozenset[str] | None = None
    profile: Profile | None = None
    memories: tuple[Memory, ...] = ()
    matches: tuple[Match, ...] = ()
    messages: tuple[Labelled[BaseMessage], ...] = ()
    pending: tuple[ToolCall, ...] = ()
    rounds: int = 0
    answer: str = ""
    citations: tuple[Citation, ...] = ()
    status: TurnStatus = TurnStatus.RUNNING
    prompt: str = ""

    def __repr__(self) -> str:
        """Where the run stands, and nothing that it has read: this ends up in logs and error reports."""
        return f"Turn({self.run!r}, {self.principal.id!r}, rounds={self.rounds}, status={self.status!s})"

    @property
    def label(self) -> Label:
        """The label of whatever is made from the whole conversation."""
        return join([message.label for message in self.messages])

    def evolve(self, **changes: Unpack[TurnChanges]) -> Turn:
        """The same turn with some fields changed; quicker than `dataclasses.replace`."""
        if not changes.keys() <= _CHANGEABLE:
            raise TypeError(f"a step cannot change {', '.join(sorted(changes.keys() - _CHANGEABLE))} of a turn")
        new = object.__new__(Turn)
        new.__dict__.update(self.__dict__, **changes)
        return new


# The JSON form. One pair of functions for each field that a step may change.


def describe_change(before: Turn, after: Turn) -> dict[str, JSON]:
    """Return the JSON form of every field in which `after` is another object than in `before`.

    Messages grow at their end, so only the new ones are described, with how many of the old ones stay.
    """
    if after is before:
        return {}
    changed: dict[str, JSON] = {}
    for name, old, new in zip(_CODECS, _values(before), _values(after), strict=True):
        if new is not old:
            changed[name] = _CODECS[name][0](new)
    if after.messages is not before.messages:
        keep = _common_start(before.messages, after.messages)
        changed["messages"] = {"keep": keep, "new": [_message_to_json(m) for m in after.messages[keep:]]}
    return changed


def apply_change(turn: Turn, changed: Mapping[str, JSON]) -> Turn:
    """Return `turn` with the fields that `describe_change` described."""
    values: dict[str, Any] = {}
    for name, value in changed.items():
        if name == "messages":
            block = cast("dict[str, Any]", value)
            values[name] = turn.messages[: block["keep"]] + tuple(_message_from_json(m) for m in block["new"])
        else:
            values[name] = _CODECS[name][1](value)
    return turn.evolve(**cast(TurnChanges, values))


def _common_start(before: tuple[object, ...], after: tuple[object, ...]) -> int:
    same = 0
    for old, new in zip(before, after, strict=False):
        if old is not new:
            break
        same += 1
    return same


def _message_to_json(labelled: Labelled[BaseMessage]) -> JSON:
    message = labelled.value
    out: dict[str, JSON] = {"role": message.type, "content": cast(JSON, message.content)}
    if message.type == "ai":
        calls = cast("AIMessage", message).tool_calls
        if calls:
            out["calls"] = [{"id": c["id"], "name": c["name"], "args": c["args"]} for c in calls]
    elif message.type == "tool":
        out["call"] = cast("ToolMessage", message).tool_call_id
    if labelled.label is not BOTTOM:
        out["label"] = cast(JSON, labelled.label.to_json())
    return out


def _message_from_json(value: Any) -> Labelled[BaseMessage]:
    content = value["content"]
    message: BaseMessage
    match value["role"]:
        case "ai":
            message = AIMessage(content=content, tool_calls=value.get("calls", []))
        case "tool":
            message = ToolMessage(content=content, tool_call_id=value["call"])
        case "system":
            message = SystemMessage(content=content)
        case _:
            message = HumanMessage(content=content)
    return Labelled(message, Label.from_json(value["label"]) if "label" in value else BOTTOM)


def principal_to_json(principal: Principal) -> JSON:
    """The JSON form of a principal."""
    return {
        "id": principal.id,
        "tenant": principal.tenant,
        "roles": sorted(principal.roles),
        "attributes": dict(principal.attributes),
    }


def principal_from_json(value: Any) -> Principal:
    """Read back what `principal_to_json` wrote."""
    return Principal(value["id"], value["tenant"], frozenset(value["roles"]), value["attributes"])


def _match_to_json(match: Match) -> JSON:
    chunk = match.chunk
    return {
        "id": chunk.id,
        "document": chunk.document,
        "text": chunk.text,
        "readers": sorted(chunk.readers),
        "range": [chunk.start, chunk.end],
        "score": match.score,
        "metadata": dict(chunk.metadata),
    }


def _match_from_json(value: Any) -> Match:
    start, end = value["range"]
    readers = ACL(value["readers"])
    metadata = value["metadata"]
    chunk = Chunk(value["id"], value["document"], value["text"], readers, start, end, metadata=metadata)
    return Match(chunk, value["score"])


def _memory_to_json(memory: Memory) -> JSON:
    label = cast(JSON, memory.label.to_json())
    return {"id": memory.id, "owner": memory.owner, "text": memory.text, "label": label}


def _memory_from_json(value: Any) -> Memory:
    return Memory(value["id"], value["owner"], value["text"], Label.from_json(cast(LabelJson, value["label"])))


def _profile_to_json(profile: Profile | None) -> JSON:
    if profile is None:
        return None
    return {
        "owner": profile.owner,
        "name": profile.name,
        "language": profile.language,
        "preferences": list(profile.preferences),
    }


def _profile_from_json(value: Any) -> Profile | None:
    if value is None:
        return None
    return Profile(value["owner"], value["name"], value["language"], tuple(value["preferences"]))


_Codec = tuple[Callable[[Any], JSON], Callable[[Any], Any]]

_CODECS: Final[Mapping[str, _Codec]] = {
    "intent": (
        lambda tools: None if tools is None else sorted(tools),
        lambda value: None if value is None else frozenset(value),
    ),
    "profile": (_profile_to_json, _profile_from_json),
    "memories": (
        lambda memories: [_memory_to_json(m) for m in memories],
        lambda value: tuple(_memory_from_json(m) for m in value),
    ),
    "matches": (
        lambda matches: [_match_to_json(m) for m in matches],
        lambda value: tuple(_match_from_json(m) for m in value),
    ),
    "pending": (
        lambda calls: [[c.id, c.tool, c.arguments] for c in calls],
        lambda value: tuple(ToolCall(*call) for call in value),
    ),
    "rounds": (int, int),
    "answer": (str, str),
    "citations": (
        lambda citations: [[*c[:4], list(c.quotes), c.page] for c in citations],
        lambda value: tuple(Citation(a, b, c, d, tuple(quotes), page) for a, b, c, d, quotes, page in value),
    ),
    "status": (str, TurnStatus),
    "prompt": (str, str),
}

_CHANGEABLE: Final = frozenset((*_CODECS, "messages"))

_values: Final = attrgetter(*_CODECS)
