"""Whichever API it speaks, a hosted model keeps its promises; and each API's own ways of saying things."""

import asyncio
import json
import logging
import time
import traceback
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, cast

import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, InvalidToolCall, SystemMessage, ToolCall, ToolMessage

from ringwall import App, Principal, Rules
from ringwall.deployment.runlog import event_body
from ringwall.errors import (
    BadReply,
    ContextOverflow,
    InvalidInput,
    LimitReached,
    ProviderRefused,
    ProviderUnavailable,
    RingwallError,
)
from ringwall.model import (
    ANY_TOOL,
    Ability,
    Alternative,
    Delta,
    ModelProvider,
    ModelRequest,
    Price,
    RequestedCall,
    Sampling,
    TokenProbability,
    Usage,
    collect,
)
from ringwall.model.contract import SCHEMA, TOOLS
from ringwall.schema import JsonSchema
from ringwall_hosted import (
    OPENAI,
    ChatCompletions,
    HostedAnthropic,
    HostedModel,
    HostedResponses,
    Messages,
    Retries,
    Timeouts,
)
from ringwall_llama import LlamaCpp
from tests.plugins import anthropic_server as anthropic
from tests.plugins import openai_server as chat
from tests.plugins import responses_server as responses
from tests.plugins.openai_server import STREAM_HEAD, Body, http, piece, serving, stream, told
from tests.plugins.test_hosted import (
    GREETING,
    KEY,
    QUICK,
    SHORT,
    ChatModelOverHttp,
    OverHttp,
    ask,
    error_of,
    hang_up_after,
    hosted,
    shown,
    stall_after,
)


@dataclass(frozen=True)
class Api:
    """One API, for tests of what all must do: how it greets, and what it says first, alive, last and gone wrong."""

    make: type[HostedModel]
    app: Callable[[ModelProvider], FastAPI]
    path: str
    hello: bytes
    usage: Usage
    first: Body
    alive: str
    last: tuple[Body, ...]
    busy: Body
    knows: frozenset[str]

    @property
    def begun(self) -> bytes:
        return STREAM_HEAD + piece(self.first)


_OVERLOADED = {"type": "overloaded_error", "message": "Overloaded"}

CHAT = Api(
    HostedModel,
    chat.openai_app,
    "/v1/chat/completions",
    chat.HELLO,
    Usage(5, 2),
    chat.says("Hel"),
    ": still here\n\n",
    (chat.says(finish="stop"),),
    {"error": {"message": "slow down", "code": 503}},
    OPENAI,
)
ANTHROPIC = Api(
    HostedAnthropic,
    anthropic.anthropic_app,
    "/v1/messages",
    anthropic.HELLO,
    Usage(5, 2, 1),
    anthropic.says("Hel"),
    'event: ping\ndata: {"type": "ping"}\n\n',
    (anthropic.ends(), {"type": "message_stop"}),
    {"type": "error", "error": _OVERLOADED},
    frozenset(("stop",)),
)
RESPONSES = Api(
    HostedResponses,
    responses.responses_app,
    "/v1/responses",
    responses.HELLO,
    Usage(5, 2, 1),
    responses.says("Hel"),
    'event: keepalive\ndata: {"type": "keepalive"}\n\n',
    (responses.ends(),),
    {"type": "response.failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "slow down"}}},
    frozenset(("logprobs",)),
)
APIS = {"chat completions": CHAT, "messages": ANTHROPIC, "responses": RESPONSES}


@pytest.fixture(params=list(APIS.values()), ids=list(APIS))
def api(request: pytest.FixtureRequest) -> Api:
    return cast(Api, request.param)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)


# ---- providers like every other


class TestHostedAnthropic(OverHttp):
    make, app = HostedAnthropic, staticmethod(anthropic.anthropic_app)


class TestHostedResponses(OverHttp):
    make, app = HostedResponses, staticmethod(responses.responses_app)


class TestAnthropicAsChatModel(ChatModelOverHttp):
    make, app = HostedAnthropic, staticmethod(anthropic.anthropic_app)


class TestResponsesAsChatModel(ChatModelOverHttp):
    make, app = HostedResponses, staticmethod(responses.responses_app)

    @pytest.mark.xfail(raises=ProviderRefused, reason="this API has no field for `stop`", strict=True)
    def test_stop_sequence(self, model: BaseChatModel) -> None:
        super().test_stop_sequence(model)


async def test_the_bundled_model_answers_through_it_as_it_does_without(api: Api, llama: LlamaCpp) -> None:
    logprobs = 1 if "logprobs" in api.knows else None
    request = ModelRequest((HumanMessage("Say hello."),), sampling=Sampling(max_tokens=6, logprobs=logprobs))
    alone = [delta async for delta in llama.stream(request)]
    with serving(llama, api.app) as base_url:
        model = api.make("smollm2", base_url=base_url, window=512)
        through = [delta async for delta in model.stream(request)]
        await model.close()
    assert "".join(delta.text for delta in through) == "".join(delta.text for delta in alone)
    assert [token.text for delta in through for token in delta.logprobs] == [
        token.text for delta in alone for token in delta.logprobs
    ]
    assert (through[-1].usage, through[-1].finish) == (alone[-1].usage, alone[-1].finish)


# ---- what all do


async def test_text_streams_piece_by_piece_and_ends_with_usage(api: Api) -> None:
    async with told(api.hello) as server:
        deltas = [delta async for delta in hosted(server, make=api.make).stream(GREETING)]
    assert deltas == [Delta("Hel"), Delta("lo"), Delta(usage=api.usage, finish="stop")]
    assert [asked.path for asked in server.asked] == [api.path]


async def test_one_connection_serves_one_reply_after_the_other(api: Api) -> None:
    async with told(api.hello) as server:
        model = hosted(server, make=api.make)
        for _ in range(3):
            await collect(model.stream(GREETING))
        await model.close()
    assert server.connections == 1


def _wishing(**sampling: Any) -> ModelRequest:
    return ModelRequest((HumanMessage("Hello?"),), sampling=Sampling(**sampling))


WISHES = {
    "frequency_penalty": _wishing(frequency_penalty=0.5),
    "grammar": ModelRequest((HumanMessage("Hello?"),), grammar='root ::= "yes"'),
    "logit_bias": _wishing(logit_bias=((7, -1.0),)),
    "logprobs": _wishing(logprobs=0),
    "min_p": _wishing(min_p=0.1),
    "seed": _wishing(seed=0),
    "stop": _wishing(stop=("END",)),
}


async def test_what_an_api_has_no_field_for_is_refused_and_nothing_is_sent(api: Api) -> None:
    for wish in WISHES.keys() - api.knows:
        async with told(api.hello) as server:
            error = await error_of(server, WISHES[wish], make=api.make)
        assert isinstance(error, ProviderRefused)
        assert wish in str(error)
        assert server.asked == []


async def test_what_shapes_a_local_model_is_refused(api: Api) -> None:
    messages = GREETING.messages
    for request in (ModelRequest(messages, adapter="legal"), ModelRequest(messages, control="cheerful")):
        async with told(api.hello) as server:
            assert isinstance(await error_of(server, request, make=api.make), ProviderRefused)
        assert server.asked == []


async def test_an_adapter_that_the_server_serves_under_a_name_is_asked_for_by_it(api: Api) -> None:
    async with told(api.hello) as server:
        request = ModelRequest((HumanMessage("Hello?"),), adapter="legal")
        await ask(server, request, make=api.make, adapters={"legal": "tiny-legal"})
    assert server.asked[0].body["model"] == "tiny-legal"


@pytest.mark.parametrize("given", ["retried", "begun"])
async def test_a_reply_that_is_not_there_by_its_deadline_is_given_up(api: Api, given: str) -> None:
    answer = http(503) if given == "retried" else stall_after(api.begun)
    async with told(answer) as server:
        begun = time.monotonic()
        error = await error_of(
            server,
            ModelRequest((HumanMessage("Hello?"),), deadline=0.3),
            make=api.make,
            retries=Retries(first_wait=10.0),
        )
    assert isinstance(error, LimitReached)
    assert time.monotonic() - begun < 5


async def test_what_a_reply_cost_is_in_the_journal(api: Api) -> None:
    rules = Rules("allow role:staff ask app:desk\ngrant model:tiny collection:questions")
    async with told(api.hello) as server:
        model = hosted(server, make=api.make, price=Price(2.0, 10.0, cached=0.5))
        ana = Principal.user("ana", "staff")
        async with App(name="desk", policy=rules, model=model) as app:
            run = (await app.ask("Hello?", as_=ana)).run
            events = await app.events(run, as_=ana)
    [replied] = [event_body(event) for event in events if event.kind == "model.replied"]
    assert replied["cached_tokens"] == api.usage.cached
    fresh = api.usage.prompt - api.usage.cached
    assert replied["cost"] == pytest.approx((fresh * 2.0 + api.usage.cached * 0.5 + 2 * 10.0) / 1e6)


# ---- a server at fault


async def test_a_busy_server_is_asked_again(api: Api) -> None:
    busy = http(429, {"error": {"message": "slow down"}}, Retry_After="0")
    async with told(busy, http(529, api.busy), stream(api.busy), api.hello) as server:
        reply = await ask(server, make=api.make, retries=Retries(attempts=4, first_wait=0.001))
    assert reply.text == "Hello"
    assert len(server.asked) == 4


async def test_a_server_that_stays_broken_is_unavailable(api: Api) -> None:
    async with told(http(500, "try later", "text/plain")) as server:
        error = await error_of(server, make=api.make)
    assert isinstance(error, ProviderUnavailable)
    assert len(server.asked) == QUICK.attempts


async def test_signs_of_life_do_not_stand_for_an_answer(api: Api) -> None:
    async def hum(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        await _drip(writer, [api.alive.encode()] * 1000)

    async with told(hum) as server:
        error = await error_of(server, make=api.make, timeouts=SHORT, retries=Retries(attempts=1))
    assert isinstance(error, ProviderUnavailable)
    assert "no answer in time" in str(error)


async def test_an_event_that_drips_in_byte_by_byte_is_not_waited_for(api: Api) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(api.begun)
        await _drip(writer, [bytes((byte,)) for byte in b"data: " + b"x" * 1000])

    async with told(drip) as server:
        error = await error_of(server, make=api.make, timeouts=Timeouts(gap=0.3))
    assert isinstance(error, BadReply)
    assert "no answer in time" in str(error)


async def _drip(writer: asyncio.StreamWriter, pieces: list[bytes]) -> None:
    with suppress(ConnectionError):
        for data in pieces:
            writer.write(b"%x\r\n%s\r\n" % (len(data), data))
            await writer.drain()
            await asyncio.sleep(0.02)


async def test_a_line_without_end_is_cut_off(api: Api) -> None:
    sent = 0

    async def gush(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(STREAM_HEAD)
        block = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        with suppress(ConnectionError):
            for _ in range(1000):
                writer.write(block)
                await writer.drain()
                sent += len(block)

    async with told(gush) as server:
        assert isinstance(await error_of(server, make=api.make), BadReply)
    assert sent < 40 * 1024 * 1024


async def test_a_broken_reply_is_never_passed_off_as_whole(api: Api) -> None:
    answers: list[chat.Answer] = [
        stream("garbage"),
        stream('["another shape"]'),
        stream(),
        stream(api.first),
        stream(api.first, *api.last[:-1], api.busy),
        stream(api.first, api.busy, *api.last),
        hang_up_after(api.begun),
        http(200, {"choices": []}),
    ]
    for answer in answers:
        async with told(answer, api.hello) as server:
            assert isinstance(await error_of(server, make=api.make), BadReply)
        assert len(server.asked) == 1


async def test_a_count_of_tokens_that_cannot_be_is_a_bad_reply() -> None:
    counted: list[tuple[Api, Body]] = [
        (CHAT, {"choices": [], "usage": {"prompt_tokens": -5}}),
        (ANTHROPIC, anthropic.starts(input_tokens=-5)),
        (RESPONSES, responses.ends(usage=Usage(-5, 2))),
    ]
    for api, event in counted:
        async with told(stream(event, *api.last)) as server:
            assert isinstance(await error_of(server, make=api.make), BadReply)


def test_tokens_that_were_kept_are_never_more_than_were_sent() -> None:
    assert Price(2.0, 10.0, cached=0.5).of(Usage(4, 0, cached=9)) == pytest.approx(4 * 0.5 / 1e6)


async def test_a_redirect_is_not_followed(api: Api) -> None:
    async with told(api.hello) as elsewhere, told(http(307, Location=f"{elsewhere.base_url}/x?{KEY}")) as server:
        error = await error_of(server, make=api.make)
    assert isinstance(error, ProviderRefused)
    assert elsewhere.asked == []


async def test_the_server_sees_a_caller_leave(api: Api) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(api.begun)
        begun.set()
        await reader.read()
        left.set()

    async with told(wait) as server:
        model = hosted(server, make=api.make)
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


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "1m6.5s"}, 66.5),
        ({"x_ratelimit_remaining_requests": "5", "x_ratelimit_reset_requests": "1m6s"}, None),
        ({"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "soon"}, None),
        (
            {
                "anthropic_ratelimit_input_tokens_remaining": "0",
                "anthropic_ratelimit_input_tokens_reset": "2026-11-20T10:00:30Z",
                "anthropic_ratelimit_requests_remaining": "3",
                "anthropic_ratelimit_requests_reset": "2026-11-20T11:00:00Z",
                "date": "Fri, 20 Nov 2026 10:00:00 GMT",
            },
            30.0,
        ),
    ],
)
async def test_a_limit_that_is_used_up_says_when_to_come_again(
    api: Api, headers: dict[str, str], seconds: float | None
) -> None:
    async with told(http(429, {"error": {"message": "enough"}}, **headers)) as server:
        error = await error_of(server, make=api.make, retries=Retries(attempts=1))
    assert isinstance(error, ProviderUnavailable)
    assert error.retry_after == seconds


# ---- the key


async def test_the_key_goes_where_the_api_wants_it() -> None:
    sent: list[dict[str, str]] = []
    for api in APIS.values():
        async with told(api.hello) as server:
            await ask(server, make=api.make)
            await ask(server, make=api.make, api_key_env=None)
        sent += [{k: v for k, v in asked.headers.items() if k in _KEYED} for asked in server.asked]
    bearer = {"authorization": f"Bearer {KEY}"}
    version = {"anthropic-version": "2023-06-01"}
    assert sent == [bearer, {}, {"x-api-key": KEY, **version}, version, bearer, {}]


_KEYED = ("authorization", "x-api-key", "anthropic-version")


@given(
    text=st.text(max_size=60),
    times=st.integers(1, 9),
    status=st.sampled_from([200, 200, 200, 307, 400, 401, 429, 529]),
    said=st.sampled_from(["alone", "as an error", "after the first word", "in another shape"]),
    is_escaped=st.booleans(),
    api=st.sampled_from(list(APIS.values())),
)
@settings(max_examples=80, deadline=None)
def test_whatever_a_server_answers_the_key_is_nowhere(
    *, text: str, times: int, status: int, said: str, is_escaped: bool, api: Api
) -> None:
    echo = text.encode("utf-8", "replace").decode() + KEY * times
    answers: dict[str, list[object]] = {
        "alone": [echo],
        "as an error": [_echoing(api.busy, echo)],
        "after the first word": [api.first, _echoing(api.busy, echo)],
        "in another shape": [api.first, {"type": [echo], "choices": echo}],
    }
    written = [_written(answer, is_escaped=is_escaped) for answer in answers[said]]
    headers = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": KEY, "Location": f"/{KEY}"}
    body = stream(*written) if status == 200 else http(status, written[-1], **headers)

    async def exchange() -> tuple[RingwallError, HostedModel]:
        async with told(body) as server:
            model = hosted(server, make=api.make, api_key=lambda: KEY, retries=Retries(attempts=1))
            with pytest.raises(RingwallError) as caught:
                await collect(model.stream(GREETING))
            await model.close()
            return caught.value, model

    with _listening() as logged:
        error, model = asyncio.run(exchange())
    seen = f"{shown(error)} {model!r} {vars(model)} {logged}"
    assert KEY not in seen
    assert KEY.replace("/", "\\/") not in seen


def _written(answer: object, *, is_escaped: bool) -> str:
    """The JSON of an answer, with the key in it as it is, or spelled so that only a reader of JSON finds it."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
    return json.dumps(answer).replace(KEY, escaped if is_escaped else KEY)


def _echoing(event: Body, echo: str) -> Body:
    """The error in `event`, with `echo` as its message."""
    if "response" in event:
        return {**event, "response": _echoing(event["response"], echo)}
    return {**event, "error": {**event["error"], "message": echo}}


class _listening(logging.Handler):  # noqa: N801  # reads as a verb
    """What is logged meanwhile, from INFO upwards: below that the HTTP library writes down what it receives."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def __enter__(self) -> list[str]:
        logging.getLogger().addHandler(self)
        return self.lines

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


# ---- tools, schemas, probabilities: said in each API's own way


def _asked(server: chat.Told) -> Body:
    return server.asked[-1].body


BOOK = ModelRequest((HumanMessage("Book."),), tools=TOOLS)
FORM = ModelRequest((HumanMessage("Book."),), schema=SCHEMA)
CLOSED: JsonSchema = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
HISTORY = (
    SystemMessage("Be kind."),
    HumanMessage([{"type": "text", "text": "Look."}, {"type": "image", "base64": "QUI=", "mime_type": "image/png"}]),
    AIMessage(
        "Well.",
        tool_calls=[ToolCall(name="book", args={"n": 4}, id="1")],
        invalid_tool_calls=[InvalidToolCall(type="invalid_tool_call", name="find", args="{oops", id="2", error="?")],
    ),
    ToolMessage("booked", tool_call_id="1"),
    ToolMessage("that was no JSON", tool_call_id="2"),
    HumanMessage("Thanks."),
)


async def test_wishes_that_chat_completions_know_are_sent() -> None:
    sampling = Sampling(seed=3, stop=("END",), frequency_penalty=0.5, logit_bias=((7, -1.5),), min_p=0.1, logprobs=2)
    request = ModelRequest((HumanMessage("Hello?"),), sampling=sampling, grammar='root ::= "yes"')
    wire = ChatCompletions(knows=OPENAI | {"min_p", "grammar"})
    answer = chat.says("yes", logprobs={"content": [{"token": "yes", "logprob": -0.5, "top_logprobs": []}]})
    async with told(stream(answer, *CHAT.last)) as server:
        model = hosted(server, wire=wire)
        await collect(model.stream(request))
    assert Ability.GRAMMAR in model.info.abilities
    body = _asked(server)
    assert (body["seed"], body["stop"], body["frequency_penalty"]) == (3, ["END"], 0.5)
    assert (body["min_p"], body["logit_bias"], body["grammar"]) == (0.1, {"7": -1.5}, 'root ::= "yes"')
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)


@pytest.mark.parametrize("api", [CHAT, RESPONSES], ids=["chat completions", "responses"])
async def test_probabilities_arrive_with_their_text(api: Api) -> None:
    likely = {"token": "Hel", "logprob": -0.25, "top_logprobs": [{"token": "Hi", "logprob": -1.5}]}
    said = chat.says("Hel", logprobs={"content": [likely]}) if api is CHAT else responses.says("Hel", logprobs=[likely])
    request = ModelRequest((HumanMessage("Hello?"),), sampling=Sampling(logprobs=1))
    async with told(stream(said, *api.last)) as server:
        first = await anext(hosted(server, make=api.make).stream(request))
    assert first == Delta("Hel", logprobs=(TokenProbability("Hel", -0.25, (Alternative("Hi", -1.5),)),))
    async with told(api.hello) as server:
        assert isinstance(await error_of(server, request, make=api.make), BadReply)


async def test_messages_are_written_as_anthropic_wants_them() -> None:
    async with told(ANTHROPIC.hello) as server:
        sampling = Sampling(0.5, 0.9, 7, ("END",))
        await ask(server, ModelRequest(HISTORY, sampling=sampling), make=HostedAnthropic)
    assert _asked(server) == {
        "model": "tiny",
        "stream": True,
        "system": [{"type": "text", "text": "Be kind."}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look."},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUI="}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Well."},
                    {"type": "tool_use", "id": "1", "name": "book", "input": {"n": 4}},
                    {"type": "tool_use", "id": "2", "name": "find", "input": {"invalid": "{oops"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "booked"}]},
                    {
                        "type": "tool_result",
                        "tool_use_id": "2",
                        "content": [{"type": "text", "text": "that was no JSON"}],
                    },
                    {"type": "text", "text": "Thanks."},
                ],
            },
        ],
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop_sequences": ["END"],
    }


async def test_messages_are_written_as_responses_want_them_and_nothing_is_kept() -> None:
    async with told(RESPONSES.hello) as server:
        await ask(server, ModelRequest(HISTORY), make=HostedResponses)
    assert _asked(server) == {
        "model": "tiny",
        "stream": True,
        "store": False,
        "input": [
            {"role": "system", "content": [{"type": "input_text", "text": "Be kind."}]},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Look."},
                    {"type": "input_image", "image_url": "data:image/png;base64,QUI="},
                ],
            },
            {"role": "assistant", "content": [{"type": "output_text", "text": "Well."}]},
            {"type": "function_call", "call_id": "1", "name": "book", "arguments": '{"n": 4}'},
            {"type": "function_call", "call_id": "2", "name": "find", "arguments": '{"invalid":"{oops"}'},
            {
                "type": "function_call_output",
                "call_id": "1",
                "output": [{"type": "input_text", "text": "booked"}],
            },
            {
                "type": "function_call_output",
                "call_id": "2",
                "output": [{"type": "input_text", "text": "that was no JSON"}],
            },
            {"role": "user", "content": [{"type": "input_text", "text": "Thanks."}]},
        ],
        "temperature": 0.0,
        "max_output_tokens": 256,
    }


async def test_content_that_cannot_be_sent_is_named_without_being_repeated(api: Api) -> None:
    request = ModelRequest((HumanMessage([{"type": "image", "secret": "the vault is blue"}]),))
    async with told(api.hello) as server:
        error = await error_of(server, request, make=api.make, count_tokens=len)
    assert isinstance(error, InvalidInput)
    assert "vault" not in "".join(traceback.format_exception(error))
    assert server.asked == []


async def test_calls_arrive_whole_from_anthropic() -> None:
    events = [
        anthropic.starts(**anthropic.COUNTED),
        anthropic.opens(),
        anthropic.says("Well."),
        anthropic.closes(),
        anthropic.opens(1, type="tool_use", id="a", name="book_table", input={}),
        anthropic.argues("", 1),
        anthropic.argues('{"guests":', 1),
        anthropic.argues(" 4}", 1),
        anthropic.closes(1),
        anthropic.opens(2, type="tool_use", id="b", name="find_hotel", input={}),
        anthropic.closes(2),
        anthropic.ends("tool_use"),
        {"type": "message_stop"},
    ]
    async with told(stream(*events)) as server:
        reply = await ask(server, BOOK, make=HostedAnthropic)
    assert reply.calls == (RequestedCall("a", "book_table", '{"guests": 4}'), RequestedCall("b", "find_hotel", "{}"))
    assert (reply.text, reply.finish) == ("Well.", "tool_calls")
    assert _asked(server)["tools"][0] == {
        "name": "book_table",
        "description": "Book a table in a city.",
        "input_schema": SCHEMA,
    }


async def test_calls_arrive_whole_from_responses() -> None:
    async with told(stream(responses.calls("a", "book_table", "{}"), responses.ends())) as server:
        reply = await ask(server, BOOK, make=HostedResponses)
    assert (reply.calls, reply.finish) == ((RequestedCall("a", "book_table", "{}"),), "tool_calls")
    [tool, _] = _asked(server)["tools"]
    assert (tool["type"], tool["name"], tool["parameters"], tool["strict"]) == ("function", "book_table", SCHEMA, True)


@pytest.mark.parametrize(
    ("choice", "by_anthropic", "by_responses"),
    [
        (ANY_TOOL, {"type": "any"}, "required"),
        ("book_table", {"type": "tool", "name": "book_table"}, {"type": "function", "name": "book_table"}),
    ],
)
async def test_a_forced_call_that_does_not_come_is_a_bad_reply(
    choice: str, by_anthropic: object, by_responses: object
) -> None:
    request = ModelRequest((HumanMessage("Book."),), tools=TOOLS, tool_choice=choice)
    for api, written in ((ANTHROPIC, by_anthropic), (RESPONSES, by_responses)):
        async with told(api.hello) as server:
            assert isinstance(await error_of(server, request, make=api.make), BadReply)
        assert _asked(server)["tool_choice"] == written


async def test_anthropic_is_asked_for_a_format_where_that_can_express_the_schema() -> None:
    said = stream(anthropic.says('{"city": '), anthropic.says('"Lisbon"}'), *ANTHROPIC.last)
    async with told(said) as server:
        request = ModelRequest((HumanMessage("Book."),), schema=CLOSED, tools=TOOLS)
        assert (await ask(server, request, make=HostedAnthropic)).text == '{"city": "Lisbon"}'
    assert _asked(server)["output_config"] == {"format": {"type": "json_schema", "schema": CLOSED}}
    assert "tool_choice" not in _asked(server)


@pytest.mark.parametrize(
    ("schema", "wire"),
    [
        pytest.param(SCHEMA, Messages(), id="with bounds"),
        pytest.param({"type": "object", "properties": {"city": {"type": "string"}}}, Messages(), id="open"),
        pytest.param(CLOSED, Messages(formats=False), id="of a model that knows no formats"),
    ],
)
async def test_any_other_schema_is_that_of_a_tool_whose_arguments_are_the_reply(
    schema: JsonSchema, wire: Messages
) -> None:
    said = [
        anthropic.opens(0, type="tool_use", id="a", name="reply", input={}),
        anthropic.argues('{"city": '),
        anthropic.argues('"Lisbon"}'),
        anthropic.ends("tool_use"),
        {"type": "message_stop"},
    ]
    async with told(stream(*said)) as server:
        request = ModelRequest((HumanMessage("Book."),), schema=schema)
        reply = await ask(server, request, make=HostedAnthropic, wire=wire)
        both = await error_of(
            server, ModelRequest((HumanMessage("Book."),), schema=schema, tools=TOOLS), make=HostedAnthropic, wire=wire
        )
    assert (reply.text, reply.calls, reply.finish) == ('{"city": "Lisbon"}', (), "stop")
    assert _asked(server)["tool_choice"] == {"type": "tool", "name": "reply"}
    assert [tool["input_schema"] for tool in _asked(server)["tools"]] == [schema]
    assert isinstance(both, InvalidInput)


async def test_a_schema_is_the_format_of_a_responses_text() -> None:
    async with told(stream(responses.says('{"city": "Lisbon"}'), responses.ends())) as server:
        assert (await ask(server, FORM, make=HostedResponses)).text == '{"city": "Lisbon"}'
    form = _asked(server)["text"]["format"]
    assert form == {"type": "json_schema", "name": "reply", "schema": SCHEMA, "strict": True}


async def test_a_reply_to_a_schema_that_is_no_json_is_a_bad_reply(api: Api) -> None:
    async with told(api.hello) as server:
        assert isinstance(await error_of(server, FORM, make=api.make), BadReply)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
    ],
)
async def test_anthropics_reasons_to_stop(reason: str, finish: str) -> None:
    said = stream(anthropic.says("Hel"), anthropic.ends(reason), {"type": "message_stop"})
    async with told(said) as server:
        assert (await ask(server, make=HostedAnthropic)).finish == finish


async def test_a_reply_that_ran_out_of_tokens_is_short(api: Api) -> None:
    said = {
        CHAT.path: [chat.says(finish="length")],
        ANTHROPIC.path: [anthropic.ends("max_tokens"), {"type": "message_stop"}],
        RESPONSES.path: [responses.ends("max_output_tokens")],
    }[api.path]
    async with told(stream(api.first, *said)) as server:
        assert (await ask(server, make=api.make)).finish == "length"


async def test_a_model_that_declines_is_a_refusal() -> None:
    refusals: list[tuple[Api, Body]] = [
        (ANTHROPIC, anthropic.ends("refusal")),
        (RESPONSES, {"type": "response.refusal.delta", "delta": "I will not."}),
        (RESPONSES, responses.ends("content_filter")),
    ]
    for api, refusal in refusals:
        async with told(stream(refusal, *api.last)) as server:
            assert isinstance(await error_of(server, make=api.make), ProviderRefused)


@pytest.mark.parametrize("reason", ["pause_turn", "tired"])
async def test_a_reason_to_stop_that_is_no_end_is_a_bad_reply(reason: str) -> None:
    async with told(stream(anthropic.says("Hel"), anthropic.ends(reason), {"type": "message_stop"})) as server:
        assert isinstance(await error_of(server, make=HostedAnthropic), BadReply)


@pytest.mark.parametrize(
    "message",
    [
        "prompt is too long: 4674 tokens > 4096 maximum",
        "input length and `max_tokens` exceed context limit: 4674 + 256 > 4096, decrease input length or `max_tokens`",
    ],
)
async def test_a_prompt_that_anthropic_finds_too_long_is_an_overflow(message: str) -> None:
    refusal = {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    async with told(http(400, refusal)) as server:
        overflow = await error_of(server, make=HostedAnthropic)
    assert isinstance(overflow, ContextOverflow)
    assert (overflow.tokens, overflow.window, overflow.reserved) == (4674, 4096, 256)


async def test_a_system_message_among_others_is_refused_by_anthropic() -> None:
    request = ModelRequest((HumanMessage("Hello?"), SystemMessage("Be brief.")))
    async with told(ANTHROPIC.hello) as server:
        assert isinstance(await error_of(server, request, make=HostedAnthropic), InvalidInput)
    assert server.asked == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"type": "error", "code": "server_error", "message": "?"}, ProviderUnavailable),
        ({"type": "error", "error": {"type": "invalid_request_error", "message": "?"}}, ProviderRefused),
        ({"type": "response.failed", "response": {"error": {"code": "invalid_prompt"}}}, ProviderRefused),
        ({"type": "response.failed", "response": {"error": None}}, ProviderUnavailable),
    ],
)
async def test_an_error_in_place_of_a_response_is_what_it_says(error: Body, kind: type[RingwallError]) -> None:
    async with told(stream(error)) as server:
        assert isinstance(await error_of(server, make=HostedResponses), kind)
