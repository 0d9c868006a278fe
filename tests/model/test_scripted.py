"""A scripted model says what it was told to, wherever and whenever it is asked."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from ringwall.errors import ContextOverflow, InvalidInput
from ringwall.model import (
    ANY_TOOL,
    ModelProvider,
    ModelRequest,
    Reply,
    RequestedCall,
    ScriptedModel,
    call,
    collect,
)
from ringwall.model.contract import ModelProviderContract


def asking(*messages: BaseMessage) -> ModelRequest:
    return ModelRequest(messages or (HumanMessage("Hello?"),))


def obliging(request: ModelRequest) -> str | RequestedCall:
    """Do what the contract asks for."""
    if request.tool_choice:
        name = request.tools[0].name if request.tool_choice == ANY_TOOL else request.tool_choice
        return call(name, city="Lisbon", guests=4)
    if request.schema:
        return '{"city": "Lisbon", "guests": 4}'
    return f"You said: {request.messages[-1].text}"


class TestScriptedModel(ModelProviderContract):
    @pytest.fixture
    def model(self) -> ModelProvider:
        return ScriptedModel(obliging)


async def test_lines_are_said_in_order_and_the_last_repeats() -> None:
    model = ScriptedModel(["One.", call("look", at="menu"), "Three."])
    messages: list[BaseMessage] = [HumanMessage("Go.")]
    said = []
    for _ in range(4):
        reply = await collect(model.stream(asking(*messages)))
        said.append(reply.text or reply.calls[0].name)
        messages.append(AIMessage(reply.text))
    assert said == ["One.", "look", "Three.", "Three."]


async def test_a_conversation_goes_on_with_a_new_model_of_the_same_script() -> None:
    script = ["One.", "Two."]
    messages = (HumanMessage("Go."), AIMessage("One."), HumanMessage("On."))
    assert (await collect(ScriptedModel(script).stream(asking(*messages)))).text == "Two."


async def test_a_call_gets_an_id_and_canonical_arguments() -> None:
    reply = await collect(ScriptedModel([call("book_table", party=4, at="20:00")]).stream(asking()))
    assert reply.calls == (RequestedCall("call-0-0", "book_table", '{"at":"20:00","party":4}'),)
    assert reply.finish == "tool_calls"


async def test_a_whole_reply_may_hold_words_and_calls() -> None:
    line = Reply("Looking.", (call("look"), call("look")))
    reply = await collect(ScriptedModel([line]).stream(asking()), provider="p")
    assert (reply.text, [c.id for c in reply.calls]) == ("Looking.", ["call-0-0", "call-0-1"])
    assert reply.provider == "p"


@given(st.text())
def test_the_pieces_of_a_reply_are_the_reply(text: str) -> None:
    async def reply() -> Reply:
        return await collect(ScriptedModel([text]).stream(asking()))

    assert asyncio.run(reply()).text == text


async def test_a_window_is_counted_in_words() -> None:
    model = ScriptedModel(["Yes."], window=3)
    assert (await collect(model.stream(asking(HumanMessage("three words fit"))))).usage.prompt == 3
    with pytest.raises(ContextOverflow) as caught:
        await collect(model.stream(asking(HumanMessage("four words do not"))))
    assert caught.value.excess == 1


def test_an_empty_script_is_refused() -> None:
    with pytest.raises(InvalidInput, match="empty script"):
        ScriptedModel([])
