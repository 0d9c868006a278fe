"""Any LangChain chat model is a provider, and any provider is a LangChain chat model."""

import asyncio
import gc
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langchain_core.tracers import LangChainTracer
from pydantic import BaseModel

from ringwall.errors import (
    BadReply,
    ContextOverflow,
    ProviderRefused,
    ProviderUnavailable,
    RingwallError,
)
from ringwall.label import Label
from ringwall.model import (
    Ability,
    Location,
    ModelProvider,
    ModelRequest,
    RequestedCall,
    Sampling,
    ScriptedModel,
    call,
    collect,
)
from ringwall.model.contract import SCHEMA, TOOLS, ModelProviderContract
from ringwall.model.langchain import as_chat_model, from_langchain
from ringwall.principal import ACL
from tests.model.test_scripted import obliging

HELLO = ModelRequest((HumanMessage("Hello?"),))


@tool
def book_table(city: str, guests: int) -> str:
    """Book a table."""
    return "booked"


class Booking(BaseModel):
    """A booking."""

    city: str
    guests: int


class Saying(BaseChatModel):
    """Streams these chunks, then raises this error."""

    chunks: tuple[AIMessageChunk, ...] = ()
    error: Any = None

    @property
    def _llm_type(self) -> str:
        return "saying"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in self.chunks:
            yield ChatGenerationChunk(message=chunk)
        if self.error:
            raise self.error


def provider_of(model: BaseChatModel) -> ModelProvider:
    return from_langchain(model, window=1000, location=Location.REMOTE)


class TestThereAndBack(ModelProviderContract):
    """A provider seen through both bridges is still a provider."""

    @pytest.fixture
    def model(self) -> ModelProvider:
        return from_langchain(as_chat_model(ScriptedModel(obliging)), window=4096, location=Location.IN_PROCESS)


class ServerError(Exception):
    def __init__(self, status: int) -> None:
        self.status_code = status


class FakeConnectError(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ServerError(401), ProviderRefused),
        (ServerError(429), ProviderUnavailable),
        (ServerError(503), ProviderUnavailable),
        (TimeoutError(), ProviderUnavailable),
        (FakeConnectError(), ProviderUnavailable),
        (ValueError("cannot parse this"), BadReply),
        (AttributeError("a bug"), ProviderRefused),
    ],
)
async def test_what_a_chat_model_raises_is_named_by_whose_move_is_next(
    raised: Exception, expected: type[RingwallError]
) -> None:
    with pytest.raises(expected) as caught:
        await collect(provider_of(Saying(error=raised)).stream(HELLO))
    assert isinstance(caught.value.__cause__, type(raised))


async def test_a_stream_that_breaks_in_the_middle_is_a_bad_reply() -> None:
    model = Saying(chunks=(AIMessageChunk(content="Hel"),), error=ServerError(503))
    with pytest.raises(BadReply, match="stopped in the middle"):
        await collect(provider_of(model).stream(HELLO))


async def test_the_pieces_of_a_tool_call_are_put_together() -> None:
    pieces = [("book_table", '{"city": "Lis', "c1"), (None, 'bon", "guests": 4}', None)]
    chunks = tuple(
        AIMessageChunk(
            content="",
            tool_call_chunks=[{"name": n, "args": a, "id": i, "index": 0, "type": "tool_call_chunk"}],
        )
        for n, a, i in pieces
    )
    reply = await collect(provider_of(Saying(chunks=chunks)).stream(HELLO))
    assert reply.calls == (RequestedCall("c1", "book_table", '{"city": "Lisbon", "guests": 4}'),)
    assert reply.finish == "tool_calls"


async def test_a_reply_cut_by_its_bound_says_so() -> None:
    chunks = (
        AIMessageChunk(content="Once"),
        AIMessageChunk(content="", response_metadata={"finish_reason": "length"}),
    )
    assert (await collect(provider_of(Saying(chunks=chunks)).stream(HELLO))).finish == "length"


async def test_a_chat_model_that_cannot_stream_is_a_provider_too() -> None:
    model = GenericFakeChatModel(messages=iter([AIMessage("Hi there.")]), disable_streaming=True)
    provider = provider_of(model)
    assert (await collect(provider.stream(HELLO))).text == "Hi there."
    assert provider.info.abilities == frozenset()


async def test_a_prompt_and_its_answer_must_fit_the_window_you_gave() -> None:
    provider = from_langchain(Saying(), window=100, location=Location.REMOTE)
    with pytest.raises(ContextOverflow) as caught:
        await collect(provider.stream(ModelRequest(HELLO.messages, sampling=Sampling(max_tokens=99))))
    assert caught.value.reserved == 99


async def test_no_environment_variable_sends_prompts_to_a_tracer(monkeypatch: pytest.MonkeyPatch) -> None:
    tracers: list[object] = []
    monkeypatch.setattr(LangChainTracer, "__init__", lambda tracer, **_: tracers.append(tracer))
    monkeypatch.setattr("langsmith.utils.get_env_var", lambda *_, **__: "true")
    await collect(provider_of(Saying(chunks=(AIMessageChunk(content="Hi."),))).stream(HELLO))
    assert not tracers


def test_a_chat_model_answers_without_an_event_loop() -> None:
    model = as_chat_model(ScriptedModel(["Hello you."]))
    message = model.invoke("Hello?")
    assert message.text == "Hello you."
    assert message.usage_metadata == {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    assert message.response_metadata["finish_reason"] == "stop"
    assert [chunk.text for chunk in model.stream("Hello?") if chunk.text] == ["Hello ", "you."]


async def test_a_synchronous_call_inside_an_event_loop_answers_too() -> None:
    assert as_chat_model(ScriptedModel(["Hello."])).invoke("Hello?").text == "Hello."


def test_the_thread_of_a_chat_model_ends_with_it() -> None:
    before = threading.active_count()
    model = as_chat_model(ScriptedModel(["Hello."]))
    model.invoke("Hello?")
    del model
    gc.collect()
    assert threading.active_count() == before


async def test_leaving_a_chat_models_stream_closes_the_providers() -> None:
    left = asyncio.Event()

    class Endless(ScriptedModel):
        async def stream(self, request: ModelRequest) -> Any:
            try:
                async for delta in super().stream(request):
                    yield delta
            finally:
                left.set()

    chunks = as_chat_model(Endless(["a b c d"])).astream("Hello?")
    await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]
    assert left.is_set()


@pytest.mark.parametrize("choice", ["any", "book_table", True, "required"])
async def test_bound_tools_reach_the_provider_and_calls_come_back(choice: Any) -> None:
    bound = as_chat_model(ScriptedModel(obliging)).bind_tools([book_table], tool_choice=choice)
    expected = {"city": "Lisbon", "guests": 4}
    message = await bound.ainvoke("Book!")
    assert [c["args"] for c in message.tool_calls] == [expected]
    chunks = [chunk async for chunk in bound.astream("Book!")]
    whole = sum(chunks[1:], chunks[0])
    assert [c["args"] for c in whole.tool_calls] == [expected]


async def test_arguments_that_are_no_json_become_an_invalid_call() -> None:
    model = as_chat_model(ScriptedModel([RequestedCall("c1", "book_table", '{"guests": ')]))
    message = await model.ainvoke("Book!")
    assert message.tool_calls == []
    assert message.invalid_tool_calls[0]["args"] == '{"guests": '


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output_is_an_instance_of_its_schema(method: str) -> None:
    model = as_chat_model(ScriptedModel(lambda request: _by_schema(request)))
    booking = Booking(city="Lisbon", guests=4)
    assert await model.with_structured_output(Booking, method=method).ainvoke("Book!") == booking
    raw = await model.with_structured_output(Booking, method=method, include_raw=True).ainvoke("Book!")
    assert raw["parsed"] == booking
    assert isinstance(raw["raw"], AIMessage)


async def test_structured_output_that_does_not_parse_comes_back_raw() -> None:
    model = as_chat_model(ScriptedModel(["no json"]))
    raw = await model.with_structured_output(Booking, include_raw=True).ainvoke("Book!")
    assert raw["parsed"] is None
    assert raw["parsing_error"] is not None


def _by_schema(request: ModelRequest) -> str | RequestedCall:
    return call("Booking", city="Lisbon", guests=4) if request.tools else obliging(request)


async def test_what_is_sent_through_a_chat_model_carries_its_label_and_sampling() -> None:
    seen: list[ModelRequest] = []

    def note(request: ModelRequest) -> str:
        seen.append(request)
        return "Noted."

    label = Label.of(ACL.of("role:staff"))
    model = as_chat_model(ScriptedModel(note), label=label, sampling=Sampling(seed=3, frequency_penalty=0.2))
    await model.ainvoke("Hello?", stop=["."], temperature=0.5)
    assert seen[0].label == label
    assert seen[0].sampling == Sampling(temperature=0.5, stop=(".",), seed=3, frequency_penalty=0.2)


async def test_a_schema_reaches_a_chat_model_as_a_tool_it_must_call() -> None:
    provider = provider_of(as_chat_model(ScriptedModel(obliging)))
    assert provider.info.abilities >= {Ability.TOOLS, Ability.JSON_SCHEMA}
    reply = await collect(provider.stream(ModelRequest(HELLO.messages, schema=SCHEMA)))
    assert json.loads(reply.text) == {"city": "Lisbon", "guests": 4}
    assert reply.calls == ()


async def test_a_schema_that_is_answered_with_words_is_a_bad_reply() -> None:
    provider = provider_of(as_chat_model(ScriptedModel(["No."])))
    with pytest.raises(BadReply):
        await collect(provider.stream(ModelRequest(HELLO.messages, tools=TOOLS, schema=SCHEMA)))
