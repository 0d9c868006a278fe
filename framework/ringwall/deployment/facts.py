"""What may be told of an event to whoever watches: numbers, and names that the deployer chose.

A name that a user, a document, a model or a provider elsewhere could have made up is no fact, whatever it looks like.
A kind that is not listed has none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from ringwall.personalization.compose import PROMPT_NAME
from ringwall.schema import JSON

_CALL: Final = ("call", "tool", "status", "rule")

_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "run.started": ("app", "steps"),
    "run.failed": ("error",),
    "model.replied": (
        "provider", "prompt_tokens", "cached_tokens", "completion_tokens", "cost", "finish", "ms",
    ),
    "model.skipped": ("provider", "why"),
    "guard.ran": ("at",),
    "data.searched": ("k", "ms"),
    "data.ranked": ("stage",),
    "budget.guessed": ("provider",),
    "budget.passed": ("budget", "limit"),
    "budget.reached": ("budget", "limit", "asked", "retry_after"),
    "call.started": _CALL,
    "call.asked": _CALL,
    "call.approved": ("call",),
    "call.declined": ("call",),
    "call.declassified": ("call",),
    "call.expired": ("call",),
    "call.previewed": ("call",),
    "call.in_doubt": ("call",),
    "call.finished": _CALL,
    "call.refused": _CALL,
}  # fmt: skip

_COUNTED: Final[Mapping[str, tuple[str, str]]] = {
    "data.searched": ("found", "matches"),
    "data.read": ("found", "matches"),
    "data.ranked": ("found", "matches"),
    "memory.recalled": ("ids", "memories"),
    "memory.kept": ("ids", "memories"),
    "run.waiting": ("calls", "calls"),
}
"""Of a list, how long it is: the field, and what the number is called."""

_FINISHES: Final = frozenset(("stop", "length", "tool_calls"))


def _finish(body: Mapping[str, Any], facts: dict[str, JSON]) -> None:
    """How a reply ended is the provider's word: one of those that we know, or none."""
    if facts.get("finish") not in _FINISHES:
        facts["finish"] = ""


def _prompt(body: Mapping[str, Any], facts: dict[str, JSON]) -> None:
    """Which prompt a run was given, by name and version: nothing else, whatever a step put there."""
    prompt = body["changed"].get("prompt", "")
    if PROMPT_NAME.fullmatch(prompt):
        facts["prompt"] = prompt


_DID: Final = ("passed", "rewrote", "failed", "refused")
"""What a guard can come to, mildest first."""


def _guards(body: Mapping[str, Any], facts: dict[str, JSON]) -> None:
    """What the guards at a crossing came to, the strictest of them, and what they took."""
    did = [_DID.index(each["did"]) for each in body["guards"] if each["did"] in _DID]
    facts.update(did=_DID[max(did, default=0)], ms=sum(each["ms"] for each in body["guards"]))


_MORE: Final[Mapping[str, Callable[[Mapping[str, Any], dict[str, JSON]], None]]] = {
    "guard.ran": _guards,
    "model.replied": _finish,
    "turn.changed": _prompt,
}

KINDS_WITH_FACTS: Final = frozenset((*_FIELDS, *_COUNTED, *_MORE))
"""The kinds of events of which more is told than that they happened."""


def facts_of(kind: str, body: str) -> dict[str, JSON]:
    """The facts of an event with this body."""
    if kind not in KINDS_WITH_FACTS:
        return {}
    told: dict[str, Any] = json.loads(body)
    facts: dict[str, JSON] = {name: told[name] for name in _FIELDS.get(kind, ()) if name in told}
    if kind in _COUNTED:
        name, called = _COUNTED[kind]
        facts[called] = len(told[name])
    if kind in _MORE:
        _MORE[kind](told, facts)
    return facts


__all__ = ["KINDS_WITH_FACTS", "facts_of"]
