"""The server that comes with llama-cpp-python, as it is, in a process of its own: a hosted model asks it over HTTP."""

import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest
from langchain_core.messages import HumanMessage

from ringwall.model import Ability, ModelRequest, Sampling, collect
from ringwall_hosted import OPENAI, ChatCompletions, HostedModel
from ringwall_llama.provider import bundled_model

pytest.importorskip("starlette_context", reason="llama-cpp-python's extra `server` is not installed")

WIRE = ChatCompletions(knows=OPENAI | {"min_p", "grammar"})


@pytest.fixture(scope="module")
def base_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"model": bundled_model(), "port": port, "n_ctx": 512, "n_threads": 1, "n_threads_batch": 1}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "llama_cpp.server", *arguments], stdout=said, stderr=subprocess.STDOUT
        )
        try:
            _wait_for(server, f"http://127.0.0.1:{port}/v1", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.terminate()
            server.wait()


def _wait_for(server: subprocess.Popen[bytes], base_url: str, log: Path) -> None:
    until = time.monotonic() + 120
    while server.poll() is None and time.monotonic() < until:
        try:
            httpx.get(f"{base_url}/models")
            return
        except httpx.ConnectError:
            time.sleep(0.2)
    pytest.fail(log.read_text())


@pytest.fixture
async def model(base_url: str) -> AsyncIterator[HostedModel]:
    model = HostedModel("smollm2", base_url=base_url, window=512, api_key_env=None, wire=WIRE)
    yield model
    await model.close()


async def test_it_answers_piece_by_piece(model: HostedModel) -> None:
    request = ModelRequest((HumanMessage("Say hello."),), sampling=Sampling(max_tokens=4))
    deltas = [delta async for delta in model.stream(request)]
    assert len([delta for delta in deltas if delta.text]) > 1
    assert deltas[-1].finish in ("stop", "length")


async def test_it_keeps_to_a_grammar(model: HostedModel) -> None:
    assert Ability.GRAMMAR in model.info.abilities
    request = ModelRequest(
        (HumanMessage("Is water wet?"),), grammar='root ::= "perhaps"', sampling=Sampling(max_tokens=8, min_p=0.05)
    )
    assert (await collect(model.stream(request))).text == "perhaps"
