"""A local model: bounded by grammar, stopped by whoever leaves, and never fooled by a broken file."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from pydantic import BaseModel

from ringwall.errors import BadModelFile, BadReply, ContextOverflow, InvalidInput, ProviderUnavailable
from ringwall.label import Label
from ringwall.model import ANY_TOOL, ModelProvider, ModelRequest, Reply, Sampling, ToolSpec, collect
from ringwall.model.contract import BOOKING, SCHEMA, TOOLS, ModelProviderContract, ask
from ringwall.principal import ACL
from ringwall.schema import JSON, JsonSchema
from ringwall_llama import LlamaCpp
from ringwall_llama.gguf import check_gguf
from ringwall_llama.grammar import of_schema
from ringwall_llama.provider import bundled_model

HEADER = 2_000_000
"""More than the bundled file's header, and far less than its weights."""


class TestLlamaCpp(ModelProviderContract):
    @pytest.fixture
    def model(self, llama: LlamaCpp) -> ModelProvider:
        return llama

    def received(self, model: ModelProvider) -> int:
        assert isinstance(model, LlamaCpp)
        return model.spent.prompt


async def reply(model: LlamaCpp, question: str, **sampling: object) -> Reply:
    request = ModelRequest((HumanMessage(question),), sampling=Sampling(**sampling))  # type: ignore[arg-type]
    return await collect(model.stream(request))


async def test_the_bundled_model_answers(llama: LlamaCpp) -> None:
    request = ModelRequest(
        (SystemMessage("Answer in one word."), HumanMessage("What is the capital of France?")),
        sampling=Sampling(max_tokens=8),
    )
    answer = await collect(llama.stream(request))
    assert "Paris" in answer.text
    assert answer.finish == "stop"


async def test_a_reply_is_bounded_by_max_tokens(llama: LlamaCpp) -> None:
    answer = await reply(llama, "Count from one to a hundred.", max_tokens=5)
    assert answer.usage.completion == 5
    assert answer.finish == "length"


async def test_a_seed_repeats_a_reply_and_another_changes_it() -> None:
    texts = []
    for seed in (1, 1, 2):
        model = LlamaCpp(threads=1, context=256)  # with nothing kept and nobody beside: else the last digits may differ
        answer = await reply(model, "Tell me a story.", max_tokens=12, temperature=1.5, top_p=0.95, seed=seed)
        texts.append(answer.text)
        await model.close()
    assert texts[0] == texts[1] != texts[2]


async def test_a_frequency_penalty_makes_a_reply_repeat_itself_less(llama: LlamaCpp) -> None:
    count = "Count: one, two, one, two, one, two, one, two"
    replies = [await reply(llama, count, max_tokens=48, frequency_penalty=penalty) for penalty in (0.0, 2.0)]
    plain, penalised = [len(set(said.text.split())) / len(said.text.split()) for said in replies]
    assert penalised > plain


async def test_a_frequency_penalty_leaves_json_alone(llama: LlamaCpp) -> None:
    requests = [
        ModelRequest((HumanMessage(BOOKING),), schema=SCHEMA, sampling=Sampling(frequency_penalty=penalty))
        for penalty in (0.0, 2.0)
    ]
    plain, penalised = [(await collect(llama.stream(request))).text for request in requests]
    assert penalised == plain


async def test_a_tiny_top_p_leaves_only_the_likeliest_token(llama: LlamaCpp) -> None:
    greedy = await reply(llama, "Tell me a story.", max_tokens=8)
    narrow = await reply(llama, "Tell me a story.", max_tokens=8, temperature=1.5, top_p=0.001)
    assert narrow.text == greedy.text


async def test_a_reply_ends_before_its_stop_sequence_even_if_that_spans_tokens(llama: LlamaCpp) -> None:
    whole = (await reply(llama, "Tell me a story.", max_tokens=16)).text
    stop = whole[len(whole) // 2 : len(whole) // 2 + 7]
    answer = await reply(llama, "Tell me a story.", max_tokens=16, stop=("never said", stop))
    assert answer.text == whole[: whole.index(stop)]
    assert answer.finish == "stop"


async def test_what_might_begin_a_stop_sequence_is_told_in_the_end(llama: LlamaCpp) -> None:
    whole = (await reply(llama, "Tell me a story.", max_tokens=8)).text
    answer = await reply(llama, "Tell me a story.", max_tokens=8, stop=(whole[-3:] + "never said",))
    assert answer.text == whole


async def test_too_many_tokens_are_counted_exactly(llama: LlamaCpp) -> None:
    prompt = (await reply(llama, "Hello!", max_tokens=1)).usage.prompt
    with pytest.raises(ContextOverflow) as caught:
        await reply(llama, "Hello!", max_tokens=llama.info.window - prompt + 1)
    assert (caught.value.tokens, caught.value.excess) == (prompt, 1)


async def test_control_tokens_in_a_message_are_only_text(llama: LlamaCpp) -> None:
    control = await reply(llama, "a<|im_end|>b", max_tokens=1)
    plain = await reply(llama, "ab", max_tokens=1)
    assert control.usage.prompt >= plain.usage.prompt + 4


async def test_every_kind_of_message_finds_its_place(llama: LlamaCpp) -> None:
    call = {"name": "find_hotel", "args": {"city": "Lisbon"}, "id": "1"}
    messages: list[BaseMessage] = [
        HumanMessage("A hotel, please."),
        AIMessage("", tool_calls=[call]),
        ToolMessage("Hotel Tejo", tool_call_id="1"),
        HumanMessage([{"type": "text", "text": "What is it called?"}]),
    ]
    answer = await collect(llama.stream(ModelRequest(tuple(messages), tools=TOOLS, sampling=Sampling(max_tokens=64))))
    assert answer.text or answer.calls


# ---- grammar


class Dish(BaseModel):
    name: str
    spicy: bool


class Menu(BaseModel):
    title: str
    dishes: list[Dish]


@pytest.mark.parametrize("choice", ["order", ANY_TOOL])
async def test_nested_arguments_with_definitions_fit_their_schema(llama: LlamaCpp, choice: str) -> None:
    schema = Menu.model_json_schema()
    schema["properties"]["dishes"]["maxItems"] = 2
    tools = tuple(ToolSpec(name, "Order.", schema) for name in ("order", "cancel"))
    request = ModelRequest(
        (HumanMessage("Order soup."),), tools=tools, tool_choice=choice, sampling=Sampling(max_tokens=150)
    )
    answer = await collect(llama.stream(request))
    assert len(Menu.model_validate_json(answer.calls[0].arguments).dishes) <= 2


async def test_a_tool_without_arguments_is_called_with_none(llama: LlamaCpp) -> None:
    tools = (ToolSpec("now", "The time.", {"type": "object", "properties": {}}),)
    request = ModelRequest((HumanMessage("What time is it?"),), tools=tools, tool_choice="now")
    assert (await collect(llama.stream(request))).calls[0].arguments == "{}"


_leaves: st.SearchStrategy[Any] = st.sampled_from(
    (
        {"type": "string", "maxLength": 8},
        {"type": "integer", "minimum": 1, "maximum": 20},
        {"type": "number"},
        {"type": "boolean"},
        {"type": ["null", "boolean"]},
        {"enum": ["a", 1, None]},
        {"const": 'say "\\n"\n'},
    )
)
_keys = ("type", "properties", "required", "items", "enum", "anyOf", "allOf", "$ref", "$defs", "minLength", "minimum")
_schemas = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["object", "array", "string", "#", "#/$defs"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_keys), inner, max_size=4),
).filter(lambda schema: isinstance(schema, dict))
_objects = st.dictionaries(st.text(min_size=1, max_size=8), _leaves, min_size=1, max_size=3)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(properties=_objects, required=st.integers(0, 3), seed=st.integers(0, 2**31))
@example(properties={"\x00": {"type": "boolean"}, "\ud800\U00040000": {"type": "boolean"}}, required=2, seed=0)
def test_json_by_schema_always_parses_however_wild_the_sampling(
    llama: LlamaCpp, properties: dict[str, JSON], required: int, seed: int
) -> None:
    must = list(properties)[:required]
    schema: JsonSchema = {"type": "object", "properties": properties, "required": must}
    sampling = Sampling(temperature=2.0, max_tokens=200, seed=seed)
    request = ModelRequest((HumanMessage("Anything."),), schema=schema, sampling=sampling)
    value = json.loads(asyncio.run(collect(llama.stream(request))).text)
    assert set(must) <= set(value) <= set(properties)
    for name, leaf in value.items():
        fits(leaf, properties[name])


def fits(leaf: JSON, schema: Any) -> None:
    if schema.get("type") == "string":
        assert isinstance(leaf, str)
        assert len(leaf) <= 8
    elif schema.get("type") == "integer":
        assert leaf in range(1, 21)
    elif "enum" in schema or "const" in schema:
        assert leaf in schema.get("enum", [schema.get("const")])


@given(schema=_schemas)
def test_no_schema_makes_anything_but_a_grammar_or_a_callers_mistake(schema: JsonSchema) -> None:
    with contextlib.suppress(InvalidInput):
        assert "root ::=" in of_schema(schema, max_tokens=32)


@pytest.mark.parametrize("seed", range(4))
async def test_a_list_of_strings_gets_to_its_end_however_wild_the_sampling(llama: LlamaCpp, seed: int) -> None:
    tags: JsonSchema = {"type": "array", "items": {"type": "string"}, "minItems": 6}
    schema: JsonSchema = {"type": "object", "properties": {"tags": tags}, "required": ["tags"]}
    sampling = Sampling(temperature=2.0, max_tokens=300, seed=seed)
    answer = await collect(llama.stream(ModelRequest((HumanMessage("Tag it."),), schema=schema, sampling=sampling)))
    assert len(json.loads(answer.text)["tags"]) >= 6


async def test_a_schema_that_refers_to_itself_has_replies_too(llama: LlamaCpp) -> None:
    branch: JsonSchema = {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/tree"}]}
    tree: JsonSchema = {"type": "object", "properties": {"leaf": branch}, "required": ["leaf"]}
    request = ModelRequest((HumanMessage("Grow."),), schema={"$ref": "#/$defs/tree", "$defs": {"tree": tree}})
    assert isinstance(json.loads((await collect(llama.stream(request))).text), dict)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "wish"},
        {"$ref": "#/$defs/nowhere"},
        {"$ref": "https://example.org/schema"},
        {"$ref": "#"},
        {"enum": []},
        {"type": "string", "minLength": 10, "maxLength": 5},
    ],
    ids=str,
)
async def test_a_schema_without_a_grammar_is_the_callers_mistake(llama: LlamaCpp, schema: JsonSchema) -> None:
    with pytest.raises(InvalidInput, match="grammar"):
        await collect(llama.stream(ModelRequest((HumanMessage("Hi."),), schema=schema)))


async def test_json_that_does_not_get_to_its_end_is_a_bad_reply(llama: LlamaCpp) -> None:
    request = ModelRequest((HumanMessage(BOOKING),), schema=SCHEMA, sampling=Sampling(max_tokens=3))
    with pytest.raises(BadReply, match="max_tokens"):
        await collect(llama.stream(request))


@pytest.mark.parametrize(("question", "called"), [(BOOKING, "book_table"), ("What is 2 plus 2?", None)])
async def test_the_bundled_model_calls_a_tool_when_the_question_is_one_for_it(
    llama: LlamaCpp, question: str, called: str | None
) -> None:
    request = ModelRequest((HumanMessage(question),), tools=TOOLS, sampling=Sampling(max_tokens=48))
    answer = await collect(llama.stream(request))
    assert [call.name for call in answer.calls] == ([called] if called else [])
    assert bool(answer.text) == (called is None)


async def test_a_tool_that_is_not_on_offer_cannot_be_forced(llama: LlamaCpp) -> None:
    with pytest.raises(InvalidInput, match="rob_bank"):
        await collect(llama.stream(ModelRequest((HumanMessage("Hi."),), tools=TOOLS, tool_choice="rob_bank")))


# ---- leaving


async def test_a_reply_stops_within_a_few_tokens_of_its_reader_leaving(llama: LlamaCpp) -> None:
    stream = llama.stream(ask("Tell a very long story.", max_tokens=1500))
    await anext(stream)
    seen = llama.spent.completion
    await stream.aclose()
    await reply(llama, "Hello!", max_tokens=1)
    assert llama.spent.completion - seen <= 3


async def test_a_prompt_is_not_read_to_its_end_when_its_reader_leaves(llama: LlamaCpp) -> None:
    before = llama.spent
    task = asyncio.create_task(reply(llama, "word " * 3000, max_tokens=1))
    while llama.spent.prompt == before.prompt:  # noqa: ASYNC110  # another thread begins, without an event
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await reply(llama, "Hello!", max_tokens=1)
    assert llama.spent.completion == before.completion + 1


async def test_a_request_that_is_left_while_it_waits_never_runs(llama: LlamaCpp) -> None:
    running = llama.stream(ask("Tell a very long story.", max_tokens=1500))
    await anext(running)
    waiting = asyncio.create_task(reply(llama, "word " * 500, max_tokens=1))
    await asyncio.sleep(0)
    before = llama.spent.prompt
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await running.aclose()
    answer = await reply(llama, "Hello!", max_tokens=1)
    assert llama.spent.prompt - before == answer.usage.prompt


# ---- what is kept of a prompt


def about_ana(label: Label) -> ModelRequest:
    return ModelRequest((HumanMessage("Ana's salary is a secret."),), label=label, sampling=Sampling(max_tokens=1))


async def test_what_was_computed_of_a_message_serves_only_those_who_may_read_it(llama: LlamaCpp) -> None:
    ana, ben = (Label.of(ACL.of(f"user:{name}"), f"user:{name}") for name in ("ana", "ben"))

    async def computed(label: Label) -> int:
        before = llama.spent
        await collect(llama.stream(about_ana(label)))
        return llama.spent.prompt - before.prompt - (llama.spent.reused - before.reused)

    first = await computed(ben)
    assert await computed(ana) >= min(first, 8)
    assert await computed(ana) == 1
    assert await computed(ben) == 1


# ---- files


def broken_type() -> bytes:
    """The bundled file's header, with a tensor of 32-bit integers."""
    data = bytearray(bundled_model().read_bytes()[:HEADER])
    name = b"blk.0.attn_k.weight"
    data[data.index(name) + len(name) + 4 + 2 * 8] = 26
    return bytes(data)


BROKEN: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "text": lambda: b"I am no model. " * 100,
    "other bytes after the magic": lambda: b"GGUF" + bytes(range(256)),
    "cut in its header": lambda: bundled_model().read_bytes()[:500_000],
    "cut in its weights": lambda: bundled_model().read_bytes()[:50_000_000],
    "a tensor of the wrong type": broken_type,
}

LOAD = """
import sys
from ringwall.errors import BadModelFile
from ringwall_llama import LlamaCpp
try:
    LlamaCpp(sys.argv[1])
except BadModelFile as error:
    print("refused:", error)
"""


@pytest.mark.parametrize("make", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_before_it_can_end_the_process(tmp_path: Path, make: Callable[[], bytes]) -> None:
    (tmp_path / "model.gguf").write_bytes(make())
    with pytest.raises(BadModelFile, match=r"model\.gguf"):
        check_gguf(tmp_path / "model.gguf")


@pytest.mark.parametrize("path", ["nowhere.gguf", ""])
def test_a_path_that_leads_to_no_file_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadModelFile, match="no model file"):
        LlamaCpp(tmp_path / path)


def test_a_model_that_would_abort_llama_cpp_raises_instead(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(broken_type())
    # The rest is a hole: as long as the whole, without its bytes.
    os.truncate(tmp_path / "model.gguf", bundled_model().stat().st_size)
    child = python(LOAD, str(tmp_path / "model.gguf"))
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith("refused:")


@given(st.binary(max_size=300))
def test_no_bytes_after_the_magic_make_anything_but_a_bad_model_file(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        path.write_bytes(b"GGUF\x03\x00\x00\x00" + data)
        with pytest.raises(BadModelFile):
            check_gguf(path)


# ---- the process


USE = """
import asyncio
from langchain_core.messages import HumanMessage
from ringwall.model import ModelRequest, Sampling, collect
from ringwall_llama import LlamaCpp

async def main():
    model = LlamaCpp(threads=1, context=256)
    stream = model.stream(ModelRequest((HumanMessage("Hi"),), sampling=Sampling(max_tokens=200)))
    await anext(stream)
    if "close" in __import__("sys").argv:
        await model.close()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["close", "forget"])
def test_a_process_ends_in_silence_whether_it_closes_its_model_or_not(how: str) -> None:
    child = python(USE, how)
    assert (child.returncode, child.stdout, child.stderr) == (0, "", "")


LAST = """
from types import SimpleNamespace
import llama_cpp.server.app as server
from llama_cpp import Llama
from ringwall_llama.loading import free, load
from ringwall_llama.provider import bundled_model

server._llama_proxy = SimpleNamespace(model=Llama(str(bundled_model()), n_ctx=64, verbose=False))
free(None, load(bundled_model()))
"""


def test_a_model_that_somebody_elses_server_frees_last_of_all_does_no_harm() -> None:
    pytest.importorskip("llama_cpp.server.app")
    assert python(LAST).returncode == 0


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `code` with warnings as errors; llama_cpp keeps /dev/null open for the life of the process."""
    options = ["-W", "error", "-W", "ignore:unclosed file:ResourceWarning"]
    command = [sys.executable, *options, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


async def test_a_closed_model_says_so_to_whoever_asks_and_whoever_waits() -> None:
    model = LlamaCpp(threads=1, context=256)
    running = model.stream(ask("Tell a very long story.", max_tokens=200))
    await anext(running)
    waiting = asyncio.create_task(reply(model, "Hello!", max_tokens=1))
    await asyncio.sleep(0)
    await model.close()
    with pytest.raises(ProviderUnavailable, match="closed"):
        await waiting
    with pytest.raises(ProviderUnavailable, match="closed"):
        await reply(model, "Hello!", max_tokens=1)
    with pytest.raises(ProviderUnavailable, match="closed"):
        [delta async for delta in running]
