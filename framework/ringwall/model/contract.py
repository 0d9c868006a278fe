"""What every model provider must pass. Subclass, give a provider, run pytest.

    class TestMyModel(ModelProviderContract):
        @pytest.fixture
        def model(self) -> ModelProvider:
            return MyModel()

Needs pytest and pytest-asyncio.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import Final

import pytest
from langchain_core.messages import HumanMessage

from ringwall.errors import ContextOverflow
from ringwall.model.base import (
    ANY_TOOL,
    Ability,
    Delta,
    ModelProvider,
    ModelRequest,
    Reply,
    Sampling,
    ToolSpec,
)
from ringwall.model.reply import collect
from ringwall.schema import JsonSchema

SCHEMA: Final[JsonSchema] = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}, "guests": {"type": "integer"}},
    "required": ["city", "guests"],
    "additionalProperties": False,
}
"""What the contract asks JSON replies and tool arguments to fit."""

TOOLS: Final = (
    ToolSpec("book_table", "Book a table in a city.", SCHEMA),
    ToolSpec("find_hotel", "Find a hotel in a city.", SCHEMA),
)


def ask(question: str, *, max_tokens: int = 8) -> ModelRequest:
    """A plain question."""
    return ModelRequest((HumanMessage(question),), sampling=Sampling(max_tokens=max_tokens))


BOOKING: Final = "Book a table for 4 guests in Lisbon."
SHORT: Final = ask("Say hello.")


class ModelProviderContract:
    """A provider streams, stops when its caller leaves, keeps streams apart, and keeps to what it was asked.

    A provider that talks to a server may also override `received`, to show that nothing is sent too early.
    """

    pytestmark = pytest.mark.asyncio

    patience: float = 60.0
    """Seconds that a short reply may take, other work included."""

    long_tokens: int = 1500
    """The length of a reply so long that whoever waits for its end would lose patience."""

    @pytest.fixture
    def model(self) -> ModelProvider:
        raise NotImplementedError("override the fixture `model` with a provider")

    def received(self, model: ModelProvider) -> int:
        """How many requests reached the server or engine behind `model` so far."""
        return 0

    async def reply(self, model: ModelProvider, request: ModelRequest) -> Reply:
        return await asyncio.wait_for(collect(model.stream(request)), self.patience)

    async def test_a_reply_comes_in_pieces_and_ends_with_its_usage(self, model: ModelProvider) -> None:
        deltas = [delta async for delta in model.stream(ask("Count from one to twenty.", max_tokens=32))]
        assert sum(bool(delta.text) for delta in deltas) > 1
        last = deltas[-1]
        assert last.finish in ("stop", "length")
        assert last.usage is not None
        assert last.usage.prompt > 0
        assert last.usage.completion > 0

    async def test_nothing_is_done_before_the_first_delta_is_asked_for(self, model: ModelProvider) -> None:
        before = self.received(model)
        stream = model.stream(SHORT)
        await asyncio.sleep(0)
        await stream.aclose()
        model.stream(self.too_long(model))
        assert self.received(model) == before

    async def test_leaving_a_stream_frees_the_model(self, model: ModelProvider) -> None:
        stream = model.stream(self.long_question())
        assert isinstance(await anext(stream), Delta)
        await asyncio.wait_for(stream.aclose(), self.patience)
        assert (await self.reply(model, SHORT)).text
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    async def test_cancelling_the_task_frees_the_model(self, model: ModelProvider) -> None:
        begun = asyncio.Event()

        async def listen() -> None:
            async with aclosing(model.stream(self.long_question())) as deltas:
                async for _ in deltas:
                    begun.set()
                    await asyncio.sleep(0)

        task = asyncio.create_task(listen())
        await asyncio.wait_for(begun.wait(), self.patience)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await self.reply(model, SHORT)).text

    async def test_concurrent_streams_do_not_mix(self, model: ModelProvider) -> None:
        requests = [ask(f"Repeat this word: {word}") for word in ("apple", "river", "seven", "violin")]
        alone = [await self.reply(model, request) for request in requests]
        together = await asyncio.gather(*(self.reply(model, request) for request in requests))
        assert [reply.text for reply in together] == [reply.text for reply in alone]

    async def test_a_prompt_beyond_the_window_is_refused_by_how_many_tokens(self, model: ModelProvider) -> None:
        before = self.received(model)
        with pytest.raises(ContextOverflow) as caught:
            await anext(model.stream(self.too_long(model)))
        assert caught.value.window == model.info.window
        assert 0 < caught.value.excess < 10 * model.info.window
        assert self.received(model) == before

    async def test_a_reply_to_a_schema_fits_it(self, model: ModelProvider) -> None:
        self.needs(model, Ability.JSON_SCHEMA)
        request = ModelRequest((HumanMessage(BOOKING),), schema=SCHEMA, sampling=Sampling(max_tokens=64))
        reply = await self.reply(model, request)
        check_arguments(reply.text)

    @pytest.mark.parametrize("choice", ["book_table", "find_hotel", ANY_TOOL])
    async def test_a_forced_tool_is_called_with_arguments_that_parse(self, model: ModelProvider, choice: str) -> None:
        self.needs(model, Ability.TOOLS)
        request = ModelRequest(
            (HumanMessage(BOOKING),), tools=TOOLS, tool_choice=choice, sampling=Sampling(max_tokens=64)
        )
        reply = await self.reply(model, request)
        assert reply.finish == "tool_calls"
        assert reply.calls[0].name in ([choice] if choice != ANY_TOOL else [tool.name for tool in TOOLS])
        assert all(call.id for call in reply.calls)
        check_arguments(reply.calls[0].arguments)

    async def test_a_tool_the_model_chose_is_one_on_offer(self, model: ModelProvider) -> None:
        self.needs(model, Ability.TOOLS)
        request = ModelRequest((HumanMessage(BOOKING),), tools=TOOLS, sampling=Sampling(max_tokens=64))
        reply = await self.reply(model, request)
        assert reply.text or reply.calls
        assert (reply.finish == "tool_calls") == bool(reply.calls)
        for call in reply.calls:
            assert call.name in [tool.name for tool in TOOLS]
            check_arguments(call.arguments)

    def needs(self, model: ModelProvider, ability: Ability) -> None:
        if ability not in model.info.abilities:
            pytest.skip(f"{model.info.name} does not claim the ability {ability}")

    def long_question(self) -> ModelRequest:
        return ask("Tell a very long story.", max_tokens=self.long_tokens)

    def too_long(self, model: ModelProvider) -> ModelRequest:
        return ask("word " * (model.info.window + 1))


def check_arguments(text: str) -> None:
    """Check that `text` is JSON that fits `SCHEMA`."""
    value = json.loads(text)
    assert set(value) == {"city", "guests"}
    assert isinstance(value["city"], str)
    assert isinstance(value["guests"], int)
