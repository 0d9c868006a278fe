"""Tools made of functions."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from ringwall.errors import ConfigurationError, InvalidInput
from ringwall.interface import CallContext, Effect, Tool
from ringwall.interface.contract import ToolContract
from ringwall.interface.functions import tool
from ringwall.schema import JSON


@tool(effect="write", control=("restaurant",), idempotent=True)
async def book_table(restaurant: str, party: int, context: CallContext, note: str = "") -> str:
    "Book a table."
    return f"{restaurant} for {party}, {context.key}"


@book_table.undone_by
async def unbook_table(restaurant: str, result: str, context: CallContext) -> str:
    return f"{restaurant} no more: {result}, {context.key}"


@tool
def send(to: list[str], text: str) -> dict[str, int]:
    "Send a text."
    return {"sent": len(to)}


@send.undone_by
def unsend(to: list[str]) -> dict[str, int]:
    return {"unsent": len(to)}


class TestAnAsyncFunctionWithContext(ToolContract):
    @pytest.fixture
    def tool(self) -> Tool:
        return book_table

    @pytest.fixture
    def arguments(self) -> Mapping[str, JSON]:
        return {"restaurant": "Lucia", "party": 4, "note": "by the window"}


class TestAPlainFunction(ToolContract):
    @pytest.fixture
    def tool(self) -> Tool:
        return send

    @pytest.fixture
    def arguments(self) -> Mapping[str, JSON]:
        return {"to": ["ana", "bo"], "text": "hello"}


def test_what_is_not_said_is_taken_at_its_worst() -> None:
    assert send.effect is Effect.IRREVERSIBLE
    assert send.control_arguments == {"to", "text"}
    assert not send.idempotent


def test_the_context_is_hidden_from_the_model() -> None:
    assert set(book_table.parameters["properties"]) == {"restaurant", "party", "note"}  # type: ignore[arg-type]


def test_a_refusal_names_each_argument_that_does_not_fit() -> None:
    with pytest.raises(InvalidInput, match=r"to: .*; text: "):
        send.check({"to": "ana", "text": 1})


def test_a_parameter_without_a_type_is_refused_when_the_tool_is_made() -> None:
    def untyped(party) -> str:  # type: ignore[no-untyped-def]  # what the test is about
        return str(party)

    with pytest.raises(ConfigurationError, match="'party'"):
        tool(untyped)


def test_a_control_argument_that_is_none_is_refused_when_the_tool_is_made() -> None:
    with pytest.raises(ConfigurationError, match="recipient"):
        tool(control=("recipient",))(send.function)


async def test_what_is_no_text_is_returned_as_json() -> None:
    context = CallContext("run", "0.0", "user:ana", "key", deadline=1.0)
    assert await send.run({"to": ["ana"], "text": "hello"}, context) == '{"sent": 1}'
