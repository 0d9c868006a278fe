"""A hosted model is asked over HTTP: replies come whole or not at all, and the key goes to its server alone."""

import asyncio
import json
import logging
import re
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests

from ringwall.errors import (
    BadReply,
    ConfigurationError,
    ContextOverflow,
    ProviderRefused,
    ProviderUnavailable,
    RingwallError,
)
from ringwall.model import (
    ANY_TOOL,
    Delta,
    Location,
    ModelProvider,
    ModelRequest,
    Reply,
    RequestedCall,
    Sampling,
    ScriptedModel,
    Usage,
    call,
    collect,
)
from ringwall.model.contract import SCHEMA, TOOLS, ModelProviderContract
from ringwall.model.langchain import ChatRingwall, as_chat_model
from ringwall.schema import JSON
from ringwall_hosted import ChatCompletions, HostedModel, Retries, Timeouts
from tests.model.test_scripted import obliging
from tests.plugins.openai_server import HELLO, STREAM_HEAD, Told, http, openai_app, piece, says, serving, stream, told

KEY = "sk-test/9f3c+2b7a1e6d="
QUICK = Retries(attempts=3, first_wait=0.001, longest_wait=0.05)
SHORT = Timeouts(first=0.3)
GREETING = ModelRequest((HumanMessage("Hello?"),))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def hosted(server: Told, *, make: type[HostedModel] = HostedModel, **options: Any) -> HostedModel:
    given: dict[str, Any] = {"window": 1000, "retries": QUICK, **options}
    return make("tiny", base_url=server.base_url, **given)


async def ask(server: Told, request: ModelRequest = GREETING, **options: Any) -> Reply:
    model = hosted(server, **options)
    try:
        return await collect(model.stream(request))
    finally:
        await model.close()


async def error_of(server: Told, request: ModelRequest = GREETING, **options: Any) -> RingwallError:
    with pytest.raises(RingwallError) as caught:
        await ask(server, request, **options)
    return caught.value


def shown(error: BaseException) -> str:
    """What a log or an error tracker could show of an error: its words, its chain, and what our frames hold."""
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    held = [frame.locals for frame in report.stack if "ringwall_hosted" in frame.filename]
    chain = [shown(cause) for cause in (error.__cause__, error.__context__) if cause is not None]
    return f"{error!r} {error} {held} {chain}"


# ---- a provider like every other


@pytest.fixture(scope="module")
def scripted() -> Iterator[str]:
    """The address of a server behind which a script speaks."""
    with serving(ScriptedModel(obliging)) as base_url:
        yield base_url


class OverHttp(ModelProviderContract):
    """The contract, over a server behind which a script speaks."""

    make: type[HostedModel]
    app: Callable[[ModelProvider], FastAPI]
    sent = 0

    @pytest.fixture
    async def model(self) -> AsyncIterator[ModelProvider]:
        async def count(request: httpx.Request) -> None:
            self.sent += 1

        def client() -> httpx.AsyncClient:
            return httpx.AsyncClient(event_hooks={"request": [count]})

        with serving(ScriptedModel(obliging), self.app) as base_url:
            model = self.make("scripted", base_url=base_url, window=8192, client=client)
            yield model
            await model.close()

    def received(self, model: ModelProvider) -> int:
        return self.sent


class TestHostedModel(OverHttp):
    make, app = HostedModel, staticmethod(openai_app)


def test_what_it_says_of_itself() -> None:
    model = HostedModel("gpt-x", window=128_000, name="openai")
    assert (model.info.name, model.info.window, model.info.location) == ("openai", 128_000, Location.REMOTE)
    assert model.principal.id == "model:openai"


# ---- what goes over the wire


async def test_text_streams_piece_by_piece_and_ends_with_usage() -> None:
    async with told(HELLO) as server:
        deltas = [delta async for delta in hosted(server).stream(GREETING)]
    assert deltas == [Delta("Hel"), Delta("lo"), Delta(usage=Usage(5, 2), finish="stop")]


async def test_a_request_says_what_was_asked_and_no_more() -> None:
    async with told(HELLO) as server:
        await ask(server, ModelRequest((SystemMessage("Be kind."), HumanMessage("Hello?"))))
    [asked] = server.asked
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "max_tokens": 256,
    }


async def test_sampling_and_extra_fields_are_sent_and_none_leaves_a_field_out() -> None:
    sampling = Sampling(0.5, 0.9, 7, ("END",), 3, 0.25)
    async with told(HELLO) as server:
        await ask(
            server,
            ModelRequest((HumanMessage("Hello?"),), sampling=sampling),
            wire=ChatCompletions(max_tokens_field="max_completion_tokens"),
            extra={"temperature": None, "user": "u1"},
        )
    body = server.asked[0].body
    assert (body["top_p"], body["stop"], body["seed"], body["user"]) == (0.9, ["END"], 3, "u1")
    assert body["frequency_penalty"] == 0.25
    assert body["max_completion_tokens"] == 7
    assert not {"temperature", "max_tokens"} & set(body)


async def test_fragments_of_tool_calls_arrive_as_whole_calls() -> None:
    def fragment(index: int, **function: str) -> dict[str, Any]:
        return says(tool_calls=[{"index": index, "function": function}])

    begun = says(tool_calls=[{"index": 0, "id": "a", "function": {"name": "book_table", "arguments": ""}}])
    other = says(tool_calls=[{"index": 1, "id": "b", "function": {"name": "find_hotel", "arguments": "{}"}}])
    events = [begun, fragment(0, arguments='{"gue'), other, fragment(0, arguments='sts": 4}')]
    request = ModelRequest((HumanMessage("Book."),), tools=TOOLS, tool_choice=ANY_TOOL)
    # `stop` is what servers write under a reply that they were forced to make a call in.
    async with told(stream(*events, says(finish="stop"), "[DONE]")) as server:
        reply = await ask(server, request)
    assert reply.calls == (
        RequestedCall("a", "book_table", '{"guests": 4}'),
        RequestedCall("b", "find_hotel", "{}"),
    )
    assert reply.finish == "tool_calls"
    assert server.asked[0].body["tool_choice"] == "required"
    assert server.asked[0].body["tools"][0]["function"]["parameters"] == SCHEMA


@pytest.mark.parametrize("index", [{"index": 0}, {}], ids=["every call numbered 0", "no numbers"])
async def test_calls_that_a_server_numbers_badly_are_told_apart_by_their_ids(index: dict[str, int]) -> None:
    calls = [{**index, "id": name, "function": {"name": name, "arguments": '{"x":'}} for name in ("one", "two")]
    events = []
    for begun in calls:
        events += [says(tool_calls=[begun]), says(tool_calls=[{**index, "function": {"arguments": "1}"}}])]
    async with told(stream(*events, says(finish="tool_calls"))) as server:
        reply = await ask(server)
    assert [(call.name, call.arguments) for call in reply.calls] == [("one", '{"x":1}'), ("two", '{"x":1}')]


async def test_a_schema_is_sent_as_a_response_format() -> None:
    request = ModelRequest((HumanMessage("Book."),), schema=SCHEMA)
    async with told(stream(says('{"city":'), says(' "Lisbon"}', "stop"))) as server:
        assert (await ask(server, request)).text == '{"city": "Lisbon"}'
    form = server.asked[0].body["response_format"]
    assert form == {"type": "json_schema", "json_schema": {"name": "reply", "schema": SCHEMA, "strict": True}}


async def test_a_schema_with_something_optional_is_not_sent_as_strict() -> None:
    inner = {"type": "object", "properties": {"note": {"type": "string"}}, "additionalProperties": False}
    schema: Any = {
        "type": "object",
        "properties": {"inner": inner},
        "required": ["inner"],
        "additionalProperties": False,
    }
    async with told(stream(says("{}", "stop"))) as server:
        await ask(server, ModelRequest((HumanMessage("Book."),), schema=schema))
    assert server.asked[0].body["response_format"]["json_schema"]["strict"] is False


async def test_calls_images_and_calls_that_did_not_parse_are_told_to_the_server() -> None:
    broken = InvalidToolCall(type="invalid_tool_call", name="find", args="{oops", id="2", error="no JSON")
    messages = (
        HumanMessage(
            [{"type": "text", "text": "Look."}, {"type": "image", "base64": "QUI=", "mime_type": "image/png"}]
        ),
        AIMessage("", tool_calls=[ToolCall(name="book", args={"n": 4}, id="1")], invalid_tool_calls=[broken]),
        ToolMessage("booked", tool_call_id="1"),
        ToolMessage("that was no JSON", tool_call_id="2"),
    )
    async with told(HELLO) as server:
        await ask(server, ModelRequest(messages))
    human, ai, *tools = server.asked[0].body["messages"]
    assert human["content"][1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUI="}}
    assert [(call["id"], call["function"]["name"]) for call in ai["tool_calls"]] == [("1", "book"), ("2", "find")]
    assert all(json.loads(call["function"]["arguments"]) for call in ai["tool_calls"])
    assert [message["tool_call_id"] for message in tools] == ["1", "2"]


@given(text=st.text(min_size=1), cuts=st.lists(st.integers(1, 40), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_text_arrives_as_it_was_written_however_the_network_cuts_it(text: str, cuts: list[int]) -> None:
    async def exchange() -> str:
        answer = STREAM_HEAD + _chunked(_written(text), cuts)
        async with told(answer) as server:
            return (await ask(server)).text

    assert asyncio.run(exchange()) == text


def _written(text: str) -> bytes:
    """A stream as a server that escapes nothing writes it, with a comment and both kinds of line ends."""
    said, end = (json.dumps(chunk, ensure_ascii=False) for chunk in (says(text), says(finish="stop")))
    return f": hello\n\ndata:{said}\r\n\r\nevent: x\ndata: {end}\n\ndata: [DONE]\n\n".encode("utf-8", "replace")


def _chunked(content: bytes, cuts: list[int]) -> bytes:
    pieces, rest = [], content
    for cut in cuts:
        pieces.append(rest[:cut])
        rest = rest[cut:]
    return (
        b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*pieces, rest, b"") if part or not rest)
        + b"0\r\n\r\n"
    )


# ---- refused


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_not_tried_again(status: int) -> None:
    async with told(http(status, {"error": {"message": "not like this"}})) as server:
        error = await error_of(server)
    assert isinstance(error, ProviderRefused)
    assert f"tiny answered {status}: not like this" in str(error)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "error",
    [
        {
            "message": "This model's maximum context length is 4096 tokens. However, you requested 4930 tokens "
            "(4674 in the messages, 256 in the completion).",
            "code": "context_length_exceeded",
        },
        {"message": "maximum context length is 4096 tokens and your request has 4674 input tokens"},
        {"message": "maximum context length is 4096 tokens. However, your messages resulted in 4674 tokens."},
        {"message": "prompt is too long: 4674 tokens > 4096 maximum"},
        {"message": "too large", "type": "exceed_context_size_error", "n_prompt_tokens": 4674, "n_ctx": 4096},
    ],
)
async def test_a_prompt_that_the_server_finds_too_long_is_an_overflow_by_so_many_tokens(
    error: dict[str, object],
) -> None:
    async with told(http(400, {"error": error})) as server:
        overflow = await error_of(server)
    assert isinstance(overflow, ContextOverflow)
    assert (overflow.tokens, overflow.window, overflow.reserved) == (4674, 4096, 256)


async def test_a_prompt_that_the_server_finds_too_long_without_numbers_is_refused() -> None:
    async with told(http(400, {"error": {"code": "context_length_exceeded", "message": "Too long."}})) as server:
        assert isinstance(await error_of(server), ProviderRefused)


async def test_a_prompt_too_long_by_our_own_count_is_not_sent() -> None:
    async with told(HELLO) as server:
        error = await error_of(server, count_tokens=lambda _: 800)
    assert isinstance(error, ContextOverflow)
    assert error.excess == 56
    assert server.asked == []


async def test_a_model_that_declines_is_a_refusal() -> None:
    for event in (says(refusal="I will not."), says(finish="content_filter")):
        async with told(stream(event, "[DONE]")) as server:
            assert isinstance(await error_of(server), ProviderRefused)


# ---- busy, down, slow


async def test_a_busy_server_is_asked_again_until_it_answers() -> None:
    busy = http(429, {"error": {"message": "slow down"}}, Retry_After="0")
    async with told(busy, http(503), HELLO) as server:
        assert (await ask(server)).text == "Hello"
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
async def test_a_server_that_stays_busy_or_broken_is_unavailable(status: int) -> None:
    async with told(http(status, "try later", "text/plain")) as server:
        error = await error_of(server)
    assert isinstance(error, ProviderUnavailable)
    assert error.retry_after is None
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry_After": "7"},
        {"Retry_After": "Wed, 21 Oct 2015 07:28:07 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"},
    ],
)
async def test_a_wait_longer_than_allowed_is_left_to_the_caller(headers: dict[str, str]) -> None:
    async with told(http(429, "later", **headers)) as server:
        error = await error_of(server)
    assert isinstance(error, ProviderUnavailable)
    assert error.retry_after == 7.0
    assert len(server.asked) == 1


async def test_a_retry_waits_as_long_as_the_server_asks() -> None:
    async with told(http(429, Retry_After="0.2"), HELLO) as server:
        begun = time.monotonic()
        await ask(server, retries=Retries(first_wait=0.001, longest_wait=1.0))
    assert time.monotonic() - begun >= 0.2


@pytest.mark.parametrize("said", ["soon", "nan", "-3", "Wed, 99 Foo 2015", ""])
async def test_a_retry_after_that_says_nothing_usable_does_no_harm(said: str) -> None:
    async with told(http(429, Retry_After=said), HELLO) as server:
        assert (await ask(server)).text == "Hello"


async def test_an_empty_account_is_refused_at_once() -> None:
    async with told(http(429, {"error": {"message": "No money.", "code": "insufficient_quota"}})) as server:
        assert isinstance(await error_of(server), ProviderRefused)
    assert len(server.asked) == 1


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with told(HELLO) as server:
        pass
    error = await error_of(server)
    assert isinstance(error, ProviderUnavailable)
    assert "ConnectError" in str(error)


async def test_a_server_that_never_begins_is_unavailable() -> None:
    async with told(silent) as server:
        error = await error_of(server, timeouts=SHORT, retries=Retries(attempts=2, first_wait=0.001))
    assert isinstance(error, ProviderUnavailable)
    assert "no answer in time" in str(error)
    assert len(server.asked) == 2


async def test_keep_alive_comments_do_not_stand_for_an_answer() -> None:
    async def hum(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"3\r\n:\n\n\r\n")
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(1), 0.02)

    async with told(hum) as server:
        error = await error_of(server, timeouts=SHORT, retries=Retries(attempts=1))
    assert isinstance(error, ProviderUnavailable)


async def test_a_connection_lost_before_the_first_word_is_tried_again() -> None:
    async with told(hang_up, hang_up_after(STREAM_HEAD), HELLO) as server:
        assert (await ask(server)).text == "Hello"


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say nothing."""


def hang_up_after(said: bytes) -> Any:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()

    return say


def stall_after(said: bytes) -> Any:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()

    return stall


# ---- bad replies


BEGUN = STREAM_HEAD + piece(says("Hel"))


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(http(200, "<html>Welcome</html>", "text/html"), id="a web page"),
        pytest.param(http(200, {"choices": []}), id="no stream"),
        pytest.param(http(204), id="nothing"),
        pytest.param(stream("not JSON"), id="garbage"),
        pytest.param(stream('{"choices": [{"delta": "text"}]}'), id="another shape"),
        pytest.param(STREAM_HEAD + b"b\r\ndata: \xff\xfe\n\n\r\n0\r\n\r\n", id="no UTF-8"),
        pytest.param(stream(), id="an empty stream"),
        pytest.param(stream(says("Hel"), "[DONE]"), id="no finish reason"),
        pytest.param(stream(says("Hel")), id="an end too early"),
        pytest.param(STREAM_HEAD + piece(says("Hel", "stop"), end="\n") + b"0\r\n\r\n", id="half an event"),
        pytest.param(stream(says("Hel", "tired")), id="an unknown finish reason"),
        pytest.param(stream(says("Hel", "tool_calls")), id="calls that never came"),
        pytest.param(stream(says("Hel"), {"error": {"message": "out of memory"}}), id="an error on the way"),
        pytest.param(hang_up_after(BEGUN), id="half a stream"),
    ],
)
async def test_a_broken_reply_is_never_passed_off_as_whole(answer: Any) -> None:
    async with told(answer, HELLO) as server:
        assert isinstance(await error_of(server), BadReply)
    assert len(server.asked) == 1


async def test_a_reply_that_stalls_is_a_broken_one() -> None:
    async with told(stall_after(BEGUN)) as server:
        error = await error_of(server, timeouts=Timeouts(gap=0.2))
    assert isinstance(error, BadReply)
    assert "no answer in time" in str(error)


async def test_half_a_tool_call_is_no_call() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "book", "arguments": '{"gue'}}
    async with told(stream(says(tool_calls=[call]), says(finish="length"))) as server:
        error = await error_of(server)
    assert isinstance(error, BadReply)
    assert "max_tokens" in str(error)


async def test_a_reply_to_a_schema_that_is_no_json_is_a_bad_reply() -> None:
    async with told(HELLO) as server:
        error = await error_of(server, ModelRequest((HumanMessage("Book."),), schema=SCHEMA))
    assert isinstance(error, BadReply)


async def test_what_a_server_says_too_much_is_cut_short() -> None:
    async with told(http(400, "no " * 10_000, "text/plain")) as server:
        assert len(str(await error_of(server))) < 400


# ---- leaving


async def test_the_server_sees_a_caller_leave_a_slow_stream() -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(BEGUN)
        begun.set()
        await reader.read()
        left.set()

    async with told(drip) as server:
        model = hosted(server)
        async with aclosing(model.stream(GREETING)) as deltas:
            assert await anext(deltas) == Delta("Hel")
        await asyncio.wait_for(left.wait(), 5)
        begun.clear()
        left.clear()
        task = asyncio.create_task(collect(model.stream(GREETING)))
        await asyncio.wait_for(begun.wait(), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(left.wait(), 5)
        await model.close()


async def test_nothing_of_the_http_library_comes_out() -> None:
    for answer in (hang_up, hang_up_after(BEGUN), http(500), http(307, Location="http://a.example/")):
        async with told(answer) as server:
            error = await error_of(server, retries=Retries(attempts=1))
        chain: BaseException | None = error
        while chain is not None:
            assert not isinstance(chain, httpx.HTTPError)
            chain = chain.__cause__ or chain.__context__


async def test_the_successor_of_the_http_library_serves_as_well_and_stays_inside_too() -> None:
    successor = pytest.importorskip("httpx2")
    async with told(HELLO, hang_up) as server:
        assert (await ask(server, client=successor.AsyncClient)).text == "Hello"
        error = await error_of(server, client=successor.AsyncClient)
    assert isinstance(error, ProviderUnavailable)


# ---- connections


async def test_one_connection_serves_one_reply_after_the_other() -> None:
    async with told(HELLO) as server:
        model = hosted(server)
        for _ in range(3):
            await collect(model.stream(GREETING))
        await model.close()
    assert server.connections == 1


async def test_a_closed_model_opens_again_when_it_is_asked() -> None:
    async with told(HELLO) as server:
        model = hosted(server)
        for _ in range(2):
            assert (await collect(model.stream(GREETING))).text == "Hello"
            await model.close()


def test_a_model_works_from_one_event_loop_after_the_other() -> None:
    with serving(ScriptedModel(["Hello there."])) as base_url:
        model = HostedModel("scripted", base_url=base_url, window=1000)

        async def once() -> str:
            return (await collect(model.stream(GREETING))).text

        assert [asyncio.run(once()) for _ in range(2)] == ["Hello there."] * 2


def test_closing_it_closes_the_connections_of_every_event_loop(scripted: str) -> None:
    model = HostedModel("scripted", base_url=scripted, window=8192)
    chat = as_chat_model(model)
    assert chat.invoke("Hello?").text == "You said: Hello?"
    # What stays open would be complained of when it is collected.
    asyncio.run(model.close())


# ---- the key


async def test_the_key_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    async with told(HELLO) as server:
        model = hosted(server, api_key_env="MY_KEY")
        for key in ("first", "second\n"):
            monkeypatch.setenv("MY_KEY", key)
            await collect(model.stream(GREETING))
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer first", "Bearer second"]


async def test_a_secret_provider_gives_the_key_and_may_take_its_time() -> None:
    async def vault() -> str:
        return "from the vault".replace(" ", "-")

    async with told(HELLO) as server:
        await ask(server, api_key=vault)
        await ask(server, api_key=lambda: "plain")
        await ask(server, api_key_env=None)
    sent = [asked.headers.get("authorization") for asked in server.asked]
    assert sent == ["Bearer from-the-vault", "Bearer plain", None]


@pytest.mark.parametrize("text", ["", "  ", "sk-gehëim-42", "sk-two\nlines-42"])
async def test_a_key_that_is_none_is_refused_unseen_and_nothing_is_sent(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", text)
    async with told(HELLO) as server:
        error = await error_of(server)
    assert isinstance(error, ProviderRefused)
    assert "OPENAI_API_KEY" in str(error)
    assert "sk-" not in str(error)
    assert server.asked == []


async def test_a_redirect_is_not_followed() -> None:
    async with told(HELLO) as elsewhere:
        redirect = http(307, Location=f"{elsewhere.base_url}/chat/completions?{KEY}")
        async with told(redirect) as server:
            error = await error_of(server)
    assert isinstance(error, ProviderRefused)
    assert "redirects to 127.0.0.1" in str(error)
    assert KEY not in shown(error)
    assert elsewhere.asked == []


@pytest.mark.parametrize("status", [301, 400, 401, 429, 500])
async def test_a_key_that_the_server_echoes_is_seen_nowhere(
    status: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    body = {"error": {"message": f"Incorrect API key provided: {KEY}.", "code": KEY}}
    async with told(http(status, body, Location=f"http://{KEY}/")) as server:
        model = hosted(server)
        with pytest.raises(RingwallError) as caught:
            await collect(model.stream(GREETING))
        await model.close()
    said = capfd.readouterr()
    seen = [shown(caught.value), repr(model), repr(vars(model)), said.out, said.err]
    seen += [record.getMessage() for record in caplog.records if "receive_response_headers" not in record.msg]
    assert not [text for text in seen if KEY in text]


@given(
    before=st.text(max_size=300),
    after=st.text(max_size=50),
    times=st.integers(1, 40),
    written=st.sampled_from([str, lambda said: {"error": {"message": said}}, lambda said: [said]]),
)
@settings(max_examples=60, deadline=None)
def test_no_error_body_ever_shows_the_key(before: str, after: str, times: int, written: Any) -> None:
    body = written((before + KEY * times + after).encode("utf-8", "replace").decode())

    async def exchange() -> RingwallError:
        async with told(http(400, body)) as server:
            return await error_of(server, api_key=lambda: KEY)

    error = shown(asyncio.run(exchange()))
    assert KEY not in error
    assert KEY.replace("/", "\\/") not in error


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.openai.com/v1",
        "ftp://host/v1",
        "https://me:pass@host/v1",
        "https://host/v1?key=pass",
        "http://[/",
        "http://a b/",
    ],
)
def test_an_address_that_could_hold_a_secret_or_is_none_is_refused_unseen(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HostedModel("tiny", window=1000, base_url=url)
    assert "pass" not in str(caught.value)


# ---- LangChain's own tests, all the way: its chat model, the bridge, HTTP, a server


def willing(request: ModelRequest) -> str | RequestedCall:
    """Call a tool when offered one and not yet answered by one; say what fits a schema; else say something."""
    said = " ".join(str(message.text) for message in request.messages)
    if request.schema:
        return json.dumps(_filled(request.schema, said))
    if request.tools and request.messages[-1].type == "human":
        named = [tool for tool in request.tools if tool.name == request.tool_choice]
        tool = (named or request.tools)[0]
        return call(tool.name, **_filled(tool.parameters, said))
    return "Well, thank you for asking."


def _filled(schema: Any, said: str) -> Any:
    """The smallest value that fits a schema; texts are what was said in quotes, if anything was."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema.get("type") == "object":
        return {name: _filled(inner, said) for name, inner in schema.get("properties", {}).items()}
    quoted = re.search(r"'([^']+)'", said)
    values: dict[str, JSON] = {"integer": 3, "number": 3.0, "boolean": True, "array": [], "null": None}
    return values.get(schema.get("type", "string"), quoted.group(1) if quoted else "a fine day")


class TestAsChatModel(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[ChatRingwall]:
        return ChatRingwall

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"provider": HostedModel("tiny", window=8192)}


class ChatModelOverHttp(ChatModelIntegrationTests):
    """LangChain's tests, over a server behind which a willing script speaks."""

    make: type[HostedModel]
    app: Callable[[ModelProvider], FastAPI]

    @property
    def chat_model_class(self) -> type[ChatRingwall]:
        return ChatRingwall

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def served(cls) -> Iterator[None]:
        with serving(ScriptedModel(willing), cls.app) as cls.base_url:
            yield

    base_url: str = ""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # A chat model that is called synchronously has a loop of its own, and drops it without a farewell.
        def client() -> httpx.AsyncClient:
            return httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0))

        return {"provider": self.make("scripted", base_url=self.base_url, window=8192, client=client)}


class TestAsChatModelOverHttp(ChatModelOverHttp):
    make, app = HostedModel, staticmethod(openai_app)
