"""Many requests in one engine: together, apart, in turn, and never in each other's way."""

import asyncio
import contextlib
import math
import re
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
import pytest_asyncio
from gguf import GGUFReader, GGUFWriter
from langchain_core.messages import HumanMessage, SystemMessage

from ringwall.errors import BadModelFile, BadReply, ConfigurationError, InvalidInput, LimitReached, ProviderUnavailable
from ringwall.label import BOTTOM, Label
from ringwall.model import ModelRequest, Reply, Sampling, collect
from ringwall.model.contract import ask
from ringwall.principal import ACL
from ringwall_llama import LlamaCpp, Overloaded
from ringwall_llama.facts import facts_of
from ringwall_llama.fitting import require_room
from ringwall_llama.provider import bundled_model

MANNERS = "You are a waiter in a small restaurant by the lake. " * 8
STORY = "Tell a very long story."


def question(text: str, *, max_tokens: int = 4, asker: str = "", **more: Any) -> ModelRequest:
    """Asked after a long public system prompt, by somebody whose words are its own."""
    label = Label.of(ACL.of(f"user:{asker or 'ana'}"))
    return ModelRequest(
        (SystemMessage(MANNERS), HumanMessage(text)),
        label=label,
        labels=(BOTTOM, label),
        asker=asker,
        sampling=Sampling(max_tokens=max_tokens, **more),
    )


@contextlib.asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[LlamaCpp]:
    model = LlamaCpp(threads=1, **{"context": 1024, **options})
    try:
        yield model
    finally:
        await model.close()


@pytest_asyncio.fixture
async def small() -> AsyncIterator[LlamaCpp]:
    """A model with two slots and a queue of two."""
    async with opened(slots=2, queue=2) as model:
        yield model


async def until(what: Any) -> None:
    for _ in range(20_000):
        if what():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it did not come to pass")


# ---- together


async def test_requests_join_and_leave_while_others_are_written(llama: LlamaCpp) -> None:
    long = llama.stream(ask(STORY, max_tokens=300))
    async with contextlib.aclosing(long):
        await anext(long)
        short = await asyncio.wait_for(collect(llama.stream(ask("Hello!", max_tokens=2))), 60)
        assert short.usage.completion <= 2
        assert llama.load.running == 1
        assert (await anext(long)).finish == ""


async def test_a_burst_reads_what_its_prompts_share_once() -> None:
    async with opened() as model:
        questions = [question(f"Table {n}, please.", asker=f"guest-{n}") for n in range(6)]
        replies = await asyncio.gather(*(collect(model.stream(q)) for q in questions))
        longest = max(reply.usage.prompt for reply in replies)
        computed = model.spent.prompt - model.spent.reused
        assert computed < longest + 6 * 30
        assert model.load.cells_used < longest + 6 * 40, "and keeps it once"


async def test_a_conversation_goes_on_from_its_earlier_turns(llama: LlamaCpp) -> None:
    first = question("What is there today?", max_tokens=12)
    reply = await collect(llama.stream(first))
    before = llama.spent
    again = question("What is there today?", max_tokens=1)
    await collect(llama.stream(again))
    assert llama.spent.prompt - before.prompt == reply.usage.prompt
    assert llama.spent.reused - before.reused == reply.usage.prompt - 1


async def test_replies_are_the_same_with_and_without_guessing() -> None:
    text = "The lake is deep and cold. The trout in the lake is fresh. " * 4
    request = ask(f"Repeat this text word by word: {text}", max_tokens=80)
    told = []
    for lookup in (True, False):
        async with opened(lookup=lookup) as model:
            told.append((await collect(model.stream(request))).text)
            assert bool(model.spent.right) == lookup
    assert told[0] == told[1]


async def test_who_leaves_leaves_nothing_behind(small: LlamaCpp) -> None:
    for _ in range(5):
        stream = small.stream(ask(STORY, max_tokens=500))
        await anext(stream)
        await stream.aclose()
    await collect(small.stream(ask("Hello!", max_tokens=1)))
    await until(lambda: not small.load.running)
    assert small.load.kept == 1
    assert small.load.cells_used < 100


async def test_a_reply_that_was_told_whole_is_no_longer_counted_as_running(small: LlamaCpp) -> None:
    for _ in range(20):
        await collect(small.stream(ask("Hello!", max_tokens=1)))
        assert (small.load.running, small.load.kept) == (0, 1)


async def test_what_was_used_least_makes_room() -> None:
    async with opened(context=512, cells=512) as model:
        for number in range(6):
            reply = await collect(model.stream(ask(f"{number}. " + "word " * 200, max_tokens=2)))
            assert reply.usage.prompt > 200
            assert model.load.cells_used <= 512
        assert 1 <= model.load.kept <= 2


# ---- in turn


async def test_more_than_may_wait_are_refused_and_the_others_answered(small: LlamaCpp) -> None:
    requests = [collect(small.stream(ask(f"Say {n}.", max_tokens=24))) for n in range(12)]
    results = await asyncio.gather(*requests, return_exceptions=True)
    refused = [result for result in results if isinstance(result, Overloaded)]
    answered = [result for result in results if isinstance(result, Reply)]
    assert len(answered) >= 4, "two slots and two that wait, however busy the engine is"
    assert len(refused) == 12 - len(answered) > 0


async def test_two_hundred_at_once_are_all_answered(llama: LlamaCpp) -> None:
    requests = [collect(llama.stream(ask("Hello!", max_tokens=1))) for _ in range(200)]
    replies = await asyncio.gather(*requests)
    assert all(reply.usage.completion == 1 for reply in replies)


async def test_nobody_waits_for_all_requests_of_another() -> None:
    order: list[str] = []

    async def told(model: LlamaCpp, asker: str) -> None:
        await collect(model.stream(question("Hello!", max_tokens=3, asker=asker)))
        order.append(asker)

    async with opened(slots=1) as model:
        greedy = [asyncio.create_task(told(model, "greedy")) for _ in range(6)]
        await until(lambda: model.load.waiting == 5)
        await told(model, "modest")
        await asyncio.gather(*greedy)
    assert order.index("modest") <= 2


async def test_a_deadline_ends_a_reply_and_one_that_waits_for_its_slot(small: LlamaCpp) -> None:
    endless = ModelRequest((HumanMessage(STORY),), sampling=Sampling(max_tokens=900), deadline=0.3)
    results = await asyncio.gather(*(collect(small.stream(endless)) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [LimitReached] * 3
    assert (await collect(small.stream(ask("Hello!", max_tokens=1)))).usage.completion == 1


async def test_a_caller_that_never_reads_holds_nobody_up(small: LlamaCpp) -> None:
    silent = small.stream(ask(STORY, max_tokens=40))
    await anext(silent)
    await collect(small.stream(ask("Hello!", max_tokens=1)))
    await until(lambda: not small.load.running)
    assert [delta async for delta in silent][-1].finish == "length"


# ---- what is asked of one


async def test_a_bias_forbids_a_token_and_a_high_min_p_leaves_the_likeliest(llama: LlamaCpp) -> None:
    plain = await collect(llama.stream(ask(STORY, max_tokens=4)))
    first = llama._model.tokens(plain.text)[0]  # noqa: SLF001 (the numbers of tokens are told by nobody else)
    biased = ModelRequest((HumanMessage(STORY),), sampling=Sampling(max_tokens=4, logit_bias=((first, -100.0),)))
    assert (await collect(llama.stream(biased))).text[:3] != plain.text[:3]
    narrow = ModelRequest((HumanMessage(STORY),), sampling=Sampling(max_tokens=4, temperature=1.5, min_p=0.999))
    assert (await collect(llama.stream(narrow))).text == plain.text
    wrong = Sampling(max_tokens=4, logit_bias=((10**6, 1.0),))
    with pytest.raises(InvalidInput, match="bias"):
        await collect(llama.stream(ModelRequest((HumanMessage(STORY),), sampling=wrong)))


async def test_each_token_is_told_with_its_probability_and_the_likeliest_others(llama: LlamaCpp) -> None:
    request = ModelRequest((HumanMessage(STORY),), sampling=Sampling(max_tokens=6, logprobs=3))
    deltas = [delta async for delta in llama.stream(request)]
    told = [token for delta in deltas for token in delta.logprobs]
    assert len(told) == 6
    assert "".join(token.text for token in told) == "".join(delta.text for delta in deltas)
    for token in told:
        assert token.others[0] == (token.text, token.logprob), "greedy: the likeliest came"
        assert 0 < sum(math.exp(other.logprob) for other in token.others) <= 1 + 1e-6
        assert [o.logprob for o in token.others] == sorted((o.logprob for o in token.others), reverse=True)


async def test_a_grammar_of_the_callers_own_is_kept_to(llama: LlamaCpp) -> None:
    request = ModelRequest((HumanMessage("Red or blue?"),), grammar='root ::= "red" | "blue"')
    assert (await collect(llama.stream(request))).text in ("red", "blue")
    with pytest.raises(InvalidInput):
        await collect(llama.stream(ModelRequest((HumanMessage("Hi"),), grammar="root ::= nothing")))


@pytest.mark.parametrize("rules", ['root ::= "\u2603\u2603 no"', "root ::= [0-9]{6} | [x-z]{6}"])
async def test_a_grammar_leaves_the_same_token_whether_few_or_all_are_looked_at(llama: LlamaCpp, rules: str) -> None:
    plain = ModelRequest((HumanMessage("Tell a story."),), grammar=rules)
    no_bias = ((0, 0.0),)  # changes nothing, but has the whole vocabulary looked at
    whole = replace(plain, sampling=Sampling(logit_bias=no_bias))
    assert (await collect(llama.stream(plain))).text == (await collect(llama.stream(whole))).text != ""


async def test_labels_must_be_one_for_each_message(llama: LlamaCpp) -> None:
    with pytest.raises(InvalidInput, match="labels"):
        await collect(llama.stream(ModelRequest((HumanMessage("Hi"),), labels=(BOTTOM, BOTTOM))))


# ---- what shapes replies


def write_adapter(path: Path) -> Path:
    """A LoRA adapter that changes what the layers in the middle look at."""
    writer = GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 16.0)
    numbers = np.random.default_rng(1)
    for layer in range(10, 20):
        weight = f"blk.{layer}.attn_q.weight"
        writer.add_tensor(f"{weight}.lora_a", numbers.normal(0, 0.3, (4, 576)).astype(np.float32))
        writer.add_tensor(f"{weight}.lora_b", numbers.normal(0, 0.3, (576, 4)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_control(path: Path, width: int = 576) -> Path:
    """A control vector that pushes a layer in the middle."""
    writer = GGUFWriter(path, "controlvector")
    numbers = np.random.default_rng(2)
    writer.add_tensor("direction.15", numbers.normal(0, 3.0, width).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


async def test_adapters_and_control_vectors_shape_the_requests_that_ask_for_them(tmp_path: Path) -> None:
    adapters, controls = {"odd": write_adapter(tmp_path / "a.gguf")}, {"loud": write_control(tmp_path / "c.gguf")}
    plain = ModelRequest((HumanMessage(STORY),), sampling=Sampling(max_tokens=3))
    kinds = [replace(plain, adapter=adapter, control=control) for adapter in ("", "odd") for control in ("", "loud")]
    async with opened(adapters=adapters, controls=controls) as model:

        async def texts() -> list[str]:
            replies = await asyncio.gather(*(collect(model.stream(request)) for request in kinds))
            return [reply.text for reply in replies]

        first = await texts()
        assert len(set(first)) >= 3
        assert await texts() == first, "what one was shaped by is not kept for another"
        assert (await collect(model.stream(plain))).text == first[0]
        with pytest.raises(InvalidInput, match="adapter"):
            await collect(model.stream(ModelRequest((HumanMessage("Hi"),), adapter="unknown")))


def test_a_control_vector_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="direction"):
        LlamaCpp(threads=1, controls={"loud": write_control(tmp_path / "c.gguf", width=64)})


def test_an_adapter_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match="adapter"):
        LlamaCpp(threads=1, adapters={"odd": bundled_model()})


def test_a_pool_smaller_than_the_window_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="cells"):
        LlamaCpp(threads=1, context=1024, cells=512)


# ---- faults


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Has llama.cpp fail to compute while the event is set."""
    fails, decode = threading.Event(), llama_cpp.llama_decode

    def decoded(context: Any, batch: Any) -> int:
        return -3 if fails.is_set() else decode(context, batch)

    monkeypatch.setattr(llama_cpp, "llama_decode", decoded)
    return fails


async def test_an_engine_that_fails_tells_everybody_and_begins_anew(small: LlamaCpp, failing: threading.Event) -> None:
    running = small.stream(ask(STORY, max_tokens=500))
    await anext(running)
    spent = small.spent.completion
    failing.set()
    others = [collect(small.stream(ask("Hello!", max_tokens=1))) for _ in range(3)]
    results = await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 60)
    assert all(isinstance(result, ProviderUnavailable) for result in results)
    with pytest.raises(ProviderUnavailable):
        [delta async for delta in running]
    failing.clear()
    assert (await collect(small.stream(ask("Hello!", max_tokens=1)))).usage.completion == 1
    assert small.spent.completion > spent


async def test_a_model_that_computes_no_numbers_gives_no_reply(tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(bundled_model().read_bytes())
    norm = next(tensor for tensor in GGUFReader(path, "r+").tensors if tensor.name == "output_norm.weight")
    norm.data[:] = np.nan
    async with opened(model_path=path) as model:
        with pytest.raises(BadReply, match="no number"):
            await collect(model.stream(ask("Hello!")))


@pytest.mark.parametrize("seed", range(6))
def test_a_file_with_a_broken_header_is_refused_or_loaded_but_never_ends_the_process(tmp_path: Path, seed: int) -> None:
    numbers, path = np.random.default_rng(seed), tmp_path / "model.gguf"
    data = bytearray(bundled_model().read_bytes())
    for place in numbers.integers(8, 3000 if seed % 2 else 1_750_000, 3):
        data[place] = int(numbers.integers(256))
    path.write_bytes(data)
    with contextlib.suppress(BadModelFile):
        asyncio.run(LlamaCpp(path, threads=1, context=256).close())


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    def refused(available: int) -> str:
        with pytest.raises(ConfigurationError, match="needs 744 MB") as caught:
            require_room(bundled_model(), cells=16_384, window=4096, available=available)
        return caught.value.hint

    require_room(bundled_model(), cells=16_384, window=4096, available=750_000_000)
    found = re.search(r"context=(\d+), cells=(\d+)", refused(700_000_000))
    assert found
    require_room(bundled_model(), cells=int(found[2]), window=int(found[1]), available=700_000_000)
    assert "smaller model" in refused(100_000_000)


def test_the_facts_of_a_model_are_those_of_its_file() -> None:
    facts = facts_of(bundled_model())
    assert (facts.layers, facts.window, facts.kv_bytes) == (30, 8192, 23_040)
    assert (facts.parameters, facts.quantisation, facts.licence) == (134_515_008, "Q4_1", "apache-2.0")
    assert facts.flops_at(0) == 268_959_744
    assert facts.flops_at(1000) - facts.flops_at(0) == 1000 * 4 * 30 * 9 * 64
