"""Small scenes that several test files play in: principals, a policy, an app."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ringwall import ACL, App, MemoryStore, Principal, Rules, ScriptedModel, Tool, tool
from ringwall.data.base import Chunk
from ringwall.model.scripted import Line

ANA = Principal.user("ana", "guest")
BEN = Principal.user("ben", "guest", "staff")
CARLA = Principal.user("carla", "manager")

RULES = """
allow role:guest ask app:app
allow role:guest call tool:*
ask   doc:* call tool:book because "a document may not book"
grant tool:* collection:questions
grant role:manager collection:questions
allow role:manager approve tool:*
"""


def chunk(text: str, *readers: str, document: str = "") -> Chunk:
    """A chunk of a document of its own."""
    name = document or f"{abs(hash(text))}.md"
    return Chunk(f"{name}#0", name, text, ACL(readers or ("public",)), end=len(text))


async def library(*chunks: Chunk) -> MemoryStore:
    """A store that holds `chunks`."""
    store = MemoryStore()
    await store.upsert(chunks)
    return store


def app_with(script: Sequence[Line] | Callable[..., Line], *, rules: str = RULES, **parts: Any) -> App:
    """An app with a scripted model and the rules above."""
    return App(policy=Rules(rules), model=ScriptedModel(script), **parts)


def booking_tool(booked: list[str], **metadata: Any) -> Tool:
    """A tool that notes each time it is run."""

    @tool(**{"effect": "write", **metadata})
    async def book(table: str) -> str:
        """Book a table."""
        booked.append(table)
        return f"booked {table}"

    return book
