"""A hosted embedder is asked over HTTP: all vectors come, each in its place, or none; the key goes to its server."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import struct
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests

from ringwall import ACL, App, Rules, ScriptedModel
from ringwall.data import Embeddings, Ingestor, MemoryStore, receiver_of
from ringwall.data.contract import EmbeddingsContract
from ringwall.errors import (
    BadReply,
    ConfigurationError,
    ContextOverflow,
    InvalidInput,
    ProviderRefused,
    ProviderUnavailable,
    RingwallError,
)
from ringwall.model import Price, Usage
from ringwall.principal import Principal
from ringwall_hosted import HostedEmbeddings, Retries, Timeouts
from ringwall_minilm import MiniLmEmbeddings
from tests.plugins.embeddings_server import serving_embeddings
from tests.plugins.gguf_models import write_encoder
from tests.plugins.openai_server import Told, http, told

KEY = "sk-test/9f3c+2b7a1e6d="
QUICK = Retries(attempts=3, first_wait=0.001, longest_wait=0.05)
SHORT = Timeouts(first=0.3)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def hosted(server: Told, **options: Any) -> HostedEmbeddings:
    given: dict[str, Any] = {"retries": QUICK, **options}
    return HostedEmbeddings("tiny", base_url=server.base_url, **given)


def reply(*vectors: object, order: Sequence[int] | None = None, tokens: int = 0) -> bytes:
    """The answer that gives these vectors; `order` are their numbers."""
    numbered = zip(order if order is not None else range(len(vectors)), vectors, strict=True)
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in numbered]
    return http(200, {"object": "list", "data": data, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})


async def embed(server: Told, *texts: str, **options: Any) -> list[list[float]]:
    embeddings = hosted(server, **options)
    try:
        return await embeddings.aembed_documents(list(texts))
    finally:
        await embeddings.close()


async def error_of(server: Told, *texts: str, **options: Any) -> RingwallError:
    with pytest.raises(RingwallError) as caught:
        await embed(server, *(texts or ("trout",)), **options)
    return caught.value


# ---- an embedder like every other, over a real server


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of llama-cpp-python's server with all-MiniLM-L6-v2."""
    model = write_encoder(tmp_path_factory.mktemp("served") / "minilm.gguf")
    with serving_embeddings(model, key=KEY) as base_url:
        yield base_url


@pytest.fixture
def minilm(served: str) -> HostedEmbeddings:
    return HostedEmbeddings("minilm", base_url=served, longest=500)


class TestOurContract(EmbeddingsContract):
    @pytest.fixture
    def embeddings(self, minilm: HostedEmbeddings) -> Embeddings:
        return minilm


class TestLangChainsTests(EmbeddingsIntegrationTests):
    base_url: ClassVar[str]

    @pytest.fixture(autouse=True)
    def made(self, served: str) -> None:
        type(self).base_url = served

    @property
    def embeddings_class(self) -> type[HostedEmbeddings]:
        return HostedEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "minilm", "base_url": self.base_url}


def test_vectors_are_those_of_the_same_weights_in_this_process(minilm: HostedEmbeddings) -> None:
    texts = [f"Which wine goes with {what}?" for what in ("trout", "lamb", "日本語 😀")]
    here = MiniLmEmbeddings(precision="float32").embed_documents(texts)
    for ours, theirs in zip(minilm.embed_documents(texts), here, strict=True):
        product = sum(a * b for a, b in zip(ours, theirs, strict=True))
        assert product / (math.hypot(*ours) * math.hypot(*theirs)) > 0.999
    assert minilm.spent.prompt > 20


def test_several_threads_and_loops_share_it(minilm: HostedEmbeddings) -> None:
    alone = minilm.embed_query("trout")

    def elsewhere(_: int) -> list[float]:
        return asyncio.run(minilm.aembed_query("trout"))

    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(elsewhere, range(4)), *pool.map(minilm.embed_query, ["trout"] * 4)]
    assert found == [alone] * 8


def test_a_wrong_key_is_refused_by_the_real_server(served: str) -> None:
    embeddings = HostedEmbeddings("minilm", base_url=served, api_key=lambda: "sk-wrong")
    with pytest.raises(ProviderRefused, match="answered 401"):
        embeddings.embed_query("trout")


# ---- what goes over the wire


async def test_a_request_says_what_was_asked_and_no_more() -> None:
    async with told(reply([3.0, 0.0], tokens=3)) as server:
        assert await embed(server, "trout") == [[1.0, 0.0]]
    [asked] = server.asked
    assert asked.path == "/v1/embeddings"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.body == {"model": "tiny", "input": ["trout"], "encoding_format": "float"}


async def test_dimensions_encoding_and_extra_fields_are_sent_and_none_leaves_a_field_out() -> None:
    written = base64.b64encode(struct.pack("<2f", 1.5, -2.0)).decode()
    async with told(reply(written)) as server:
        assert await embed(server, "trout", dimensions=2, encoding="base64", extra={"user": "u1"}) == [[0.6, -0.8]]
        await embed(server, "trout", extra={"encoding_format": None})
    first, second = (asked.body for asked in server.asked)
    assert first == {"model": "tiny", "input": ["trout"], "encoding_format": "base64", "dimensions": 2, "user": "u1"}
    assert second == {"model": "tiny", "input": ["trout"]}


async def test_vectors_are_put_in_the_order_of_their_texts() -> None:
    async with told(reply([-2.0], [0.0], [1.0], order=(2, 0, 1))) as server:
        assert await embed(server, "a", "b", "c") == [[0.0], [1.0], [-1.0]]


async def test_batches_are_bounded_by_texts_and_characters() -> None:
    answers = [reply([1.0], [1.0]), reply([1.0]), reply([1.0], [1.0])]
    async with told(*answers) as server:
        assert len(await embed(server, "a", "b", "c" * 50, "d", "e", batch=2, batch_characters=20)) == 5
    assert [asked.body["input"] for asked in server.asked] == [["a", "b"], ["c" * 50], ["d", "e"]]


async def test_texts_are_made_such_that_a_server_takes_them() -> None:
    async with told(reply([1.0])) as server:
        embeddings = hosted(server, longest=4, batch=1, prefix="passage: ", query_prefix="query: ")
        await embeddings.aembed_documents(["trouts", "\ud800"])
        await embeddings.aembed_query("pike")
        await embeddings.close()
        await embed(server, "")
    sent = [asked.body["input"] for asked in server.asked]
    assert sent == [["passage: trou"], ["passage: ?"], ["query: pike"], [" "]]


async def test_no_texts_are_no_request() -> None:
    async with told(reply([1.0])) as server:
        assert await embed(server) == []
    assert server.asked == []


async def test_tokens_add_up_and_the_price_is_kept() -> None:
    async with told(reply([1.0], tokens=3), reply([1.0], tokens=4), http(200, {"data": [
        {"index": 0, "embedding": [1.0]}]})) as server:  # fmt: skip
        embeddings = hosted(server, batch=1, price=Price(prompt=0.02))
        await embeddings.aembed_documents(["a", "b", "c"])
        await embeddings.close()
    assert (embeddings.spent, embeddings.price) == (Usage(prompt=7), Price(prompt=0.02))


def test_it_says_who_receives() -> None:
    assert receiver_of(HostedEmbeddings("BAAI/bge-m3")) == Principal("embedder:BAAI/bge-m3")
    assert receiver_of(HostedEmbeddings("bge", name="far")) == Principal("embedder:far")


async def test_plain_code_is_told_to_wait_where_a_loop_runs() -> None:
    async with told(reply([1.0])) as server:
        with pytest.raises(InvalidInput, match="async"):
            hosted(server).embed_query("trout")


# ---- what is no answer


BAD = {
    "too few": reply([1.0]),
    "too many": reply([1.0], [1.0], [1.0]),
    "twice the same": reply([1.0], [1.0], order=(0, 0)),
    "from one on": reply([1.0], [1.0], order=(1, 2)),
    "NaN": reply([math.nan], [1.0]),
    "infinity": reply([1.0], [math.inf]),
    "sizes that differ": reply([1.0], [1.0, 2.0]),
    "nothing in them": reply([], []),
    "words": reply("trout", "pike"),
    "half a number": reply(base64.b64encode(b"123").decode(), base64.b64encode(b"123").decode()),
    "no numbers": reply([1.0], None),
    "no data": http(200, {"object": "list"}),
    "another thing": http(200, {"error": "out of memory"}),
    "half of it": http(200, '{"data": [{"index": 0, "embedd'),
    "garbage": http(200, "\x00\x01 garbage"),
    "a page": http(200, "<html>welcome</html>", "text/html"),
}


@pytest.mark.parametrize("answer", BAD.values(), ids=BAD)
async def test_what_is_not_a_vector_for_each_text_is_a_bad_reply_and_not_tried_again(answer: bytes) -> None:
    async with told(answer) as server:
        error = await error_of(server, "trout", "pike")
    assert isinstance(error, BadReply)
    assert len(server.asked) == 1


async def test_vectors_of_another_size_than_before_or_than_asked_for_are_refused() -> None:
    async with told(reply([1.0, 2.0]), reply([1.0, 2.0, 3.0])) as server:
        embeddings = hosted(server)
        await embeddings.aembed_query("trout")
        with pytest.raises(BadReply, match="all of one size"):
            await embeddings.aembed_query("trout")
        await embeddings.close()
    async with told(reply([1.0, 2.0])) as server:
        assert isinstance(await error_of(server, dimensions=1), BadReply)


async def test_a_batch_that_fails_fails_all_of_them() -> None:
    async with told(reply([1.0]), http(400, {"error": {"message": "no"}})) as server:
        assert isinstance(await error_of(server, "a", "b", batch=1), ProviderRefused)


async def test_more_than_a_reply_may_have_is_not_read_to_the_end() -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        for _ in range(100):
            writer.write(b" " * 1024 * 1024)
            await writer.drain()

    async with told(flood) as server:
        assert isinstance(await error_of(server), BadReply)


# ---- refused, busy, down, slow


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
async def test_a_refusal_is_not_tried_again(status: int) -> None:
    async with told(http(status, {"error": {"message": f"not like this, {KEY}"}})) as server:
        error = await error_of(server)
    assert isinstance(error, ProviderRefused)
    assert f"tiny answered {status}: not like this, [key]" in str(error)
    assert len(server.asked) == 1


async def test_a_text_that_the_server_finds_too_long_is_an_overflow() -> None:
    message = "This model's maximum context length is 512 tokens. However, you requested 900 (900 in the prompt)."
    async with told(http(400, {"error": {"message": message}})) as server:
        assert isinstance(await error_of(server), ContextOverflow)


async def test_a_busy_or_broken_server_is_asked_again_until_it_answers() -> None:
    busy = http(429, {"error": {"message": "slow down"}}, Retry_After="0")
    async with told(busy, http(500), reply([1.0])) as server:
        assert await embed(server, "trout") == [[1.0]]
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_server_that_stays_so_is_unavailable(status: int) -> None:
    async with told(http(status, "later", "text/plain")) as server:
        assert isinstance(await error_of(server), ProviderUnavailable)
    assert len(server.asked) == 3


async def test_a_wait_longer_than_allowed_is_left_to_the_caller() -> None:
    async with told(http(429, "later", Retry_After="7")) as server:
        error = await error_of(server)
    assert isinstance(error, ProviderUnavailable)
    assert (error.retry_after, len(server.asked)) == (7.0, 1)


async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def stall_inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(reply([1.0])[:-20])
    await writer.drain()
    await reader.read()


async def hang_up_inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(reply([1.0])[:-20])
    await writer.drain()


@pytest.mark.parametrize("answer", [stall, stall_inside, hang_up_inside])
async def test_a_server_that_stalls_or_hangs_up_is_unavailable_in_time(answer: Any) -> None:
    began = time.monotonic()
    async with told(answer) as server:
        error = await error_of(server, timeouts=SHORT)
    assert isinstance(error, ProviderUnavailable)
    assert time.monotonic() - began < 5
    assert len(server.asked) == 3


async def test_nobody_at_the_address_is_unavailable() -> None:
    async with told(reply([1.0])) as server:
        pass
    assert isinstance(await error_of(server), ProviderUnavailable)


async def test_the_key_and_the_texts_do_not_follow_a_redirect() -> None:
    async with told(reply([1.0])) as other:
        away = http(307, "", Location=f"{other.base_url}/embeddings")
        async with told(away) as server:
            error = await error_of(server)
    assert isinstance(error, ProviderRefused)
    assert other.asked == []


@pytest.mark.parametrize("address", ["https://user:secret@host/v1", "ftp://host", "https://host/v1?key=secret"])
def test_an_address_with_more_in_it_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        HostedEmbeddings("tiny", base_url=address)
    assert "secret" not in str(caught.value)


async def test_a_missing_key_is_told_before_anything_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    async with told(reply([1.0])) as server:
        error = await error_of(server)
        assert await embed(server, "trout", api_key_env=None) == [[1.0]]
    assert "OPENAI_API_KEY holds no API key" in str(error)
    assert [asked.headers.get("authorization") for asked in server.asked] == [None]


FAULTS: dict[str, Any] = {
    "refused": http(401, {"error": {"message": f"bad key {KEY}"}}),
    "busy": http(503, f"{KEY}"),
    "cut": hang_up_inside,
    "slow": stall,
    "garbage": http(200, f"{KEY} {json.dumps(KEY)}"),
}


@pytest.mark.parametrize("answer", FAULTS.values(), ids=FAULTS)
async def test_the_key_shows_in_no_error_chain_frame_or_representation(answer: Any) -> None:
    async with told(answer) as server:
        error = await error_of(server, timeouts=SHORT)
        embeddings = hosted(server)
    report = traceback.TracebackException.from_exception(error, capture_locals=True)
    held = [frame.locals for frame in report.stack if "ringwall_hosted" in frame.filename]
    assert KEY not in f"{error!r} {error} {held} {error.__cause__!r} {error.__context__!r} {embeddings!r}"


def test_ingesting_goes_through_it(served: str) -> None:
    embeddings = HostedEmbeddings("minilm", base_url=served, name="far")
    rules = Rules("allow user:* ask app:app\ngrant embedder:far collection:questions")
    with App(policy=rules, model=ScriptedModel(lambda request: "[1]"), embeddings=embeddings) as app:
        documents = [("wine", "With fish we pour a white wine."), ("office", "The printer is out of paper.")]
        report = app.run_sync(app.ingest(documents, ACL.of("public")))
        refused = app.run_sync(app.ingest([("wages", "The cook earns little.")], ACL.of("role:staff")))
        answer = app.ask_sync("What should I drink with my trout?", as_=Principal.user("ana"))
    assert (len(report.ingested), len(refused.refused)) == (2, 1)
    assert answer.citations[0].document == "wine"


async def test_an_ingestion_ends_with_the_servers_error_and_keeps_what_was_stored() -> None:
    store = MemoryStore()
    async with told(reply([1.0]), http(500)) as server:
        ingestor = Ingestor(store, hosted(server))
        await ingestor.ingest([("menu", "trout")], ACL.of("public"))
        with pytest.raises(ProviderUnavailable):
            await ingestor.ingest([("cellar", "wine")], ACL.of("public"))
    assert [chunk.document async for batch in store.scan() for chunk in batch] == ["menu"]
