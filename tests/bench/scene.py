"""The one scene every subject plays: the same question, documents, tool and answers for all."""

from __future__ import annotations

import json
from typing import Final

QUESTION: Final = "What does the fox do?"
DOCUMENTS: Final = tuple(f"Document {n}: the quick brown fox jumps over lazy dog number {n}." for n in range(4))
ANSWER: Final = "The fox jumps over the lazy dog."

TOOL_NAME: Final = "weather"
TOOL_DESCRIPTION: Final = "Say what the weather is like in a city."
TOOL_ARGUMENTS: Final = {"city": "Paris"}
TOOL_ARGUMENTS_JSON: Final = json.dumps(TOOL_ARGUMENTS)
TOOL_RESULT: Final = "18C and sunny in Paris"
CALL_ID: Final = "call-1"

MODEL_SLEEP_S: Final = 0.05
"""How long the sleeping model takes over each of its answers, in seconds."""

BURST: Final = 100
"""How many runs a burst keeps in flight at once."""


cities_asked: Final[set[str]] = set()
"""Which cities the tool was asked about: how a run shows that its tool really ran, on the right argument."""


def weather(city: str) -> str:
    """Say what the weather is like in a city: the tool."""
    cities_asked.add(city)
    return TOOL_RESULT


def context(documents: list[str]) -> str:
    """Join retrieved texts the way every subject puts them into its prompt."""
    return "\n\n".join(documents)


def rag_prompt(documents: list[str]) -> str:
    """Build the prompt for subjects that have no template of their own."""
    return f"Answer from context:\n{context(documents)}\n\nQuestion: {QUESTION}"
