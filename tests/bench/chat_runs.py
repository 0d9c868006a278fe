"""The engines that live in this environment, each asked for chats: `chat_runs.py NAME SETTING`.

The setting is a line of JSON: the model's path, the threads that compute, how many chats come at once, and whether
ours may guess. Every engine is greedy, and each is used as its own documents say one gets most out of it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypedDict

import httpx
import llama_cpp
from langchain_core.messages import HumanMessage, SystemMessage

from chat_times import Answer, serve
from chats import Chat
from ringwall.label import BOTTOM, Label
from ringwall.model import ModelRequest, Sampling
from ringwall.principal import ACL
from ringwall_llama import LlamaCpp
from ringwall_llama.batch import Batch
from ringwall_llama.cells import keyed
from ringwall_llama.loaded import Loaded
from ringwall_llama.prompt import ChatTemplate
from ringwall_llama.sampling import logits_of

WINDOW: Final = 2048
_ROWS: Final = 512
_START_SECONDS: Final = 120


class Setting(TypedDict):
    model: str
    threads: int
    slots: int
    lookup: bool


# --- Ours ---------------------------------------------------------------------------------------------


def request(chat: Chat, asker: str) -> ModelRequest:
    """The chat as an application asks it: everybody may read the system prompt, the question only who asked."""
    label = Label.of(ACL.of(f"user:{asker}"))
    return ModelRequest(
        (SystemMessage(chat.system), HumanMessage(chat.question)),
        label=label,
        labels=(BOTTOM, label),
        asker=asker,
        sampling=Sampling(max_tokens=chat.tokens),
    )


async def _listen(model: LlamaCpp, chat: Chat, asker: str, answer: Answer) -> None:
    async for delta in model.stream(request(chat, asker)):
        if delta.text:
            answer.add(delta.text)
        if delta.usage:
            answer.tokens = delta.usage.completion


def ringwall(setting: Setting) -> None:
    """Ours: all at once, in process."""
    with asyncio.Runner() as runner:
        model = LlamaCpp(
            setting["model"],
            context=WINDOW,
            threads=setting["threads"],
            slots=setting["slots"],
            lookup=setting["lookup"],
        )

        async def all_at_once(chats: Sequence[Chat], answers: Sequence[Answer]) -> None:
            both = zip(chats, answers, strict=True)
            await asyncio.gather(*(_listen(model, chat, f"guest-{n}", a) for n, (chat, a) in enumerate(both)))

        serve(
            lambda chats, answers: runner.run(all_at_once(chats, answers)),
            about=_system_info(),
            counters=lambda: asdict(model.spent),
        )
        runner.run(model.close())


# --- llama-cpp-python ---------------------------------------------------------------------------------


def _messages(chat: Chat) -> list[Any]:
    return [{"role": "system", "content": chat.system}, {"role": "user", "content": chat.question}]


def _take(chunk: Any, chat: Chat, answer: Answer) -> None:
    """A piece of a streamed answer, in OpenAI's form; of one cut off at its limit it is known how long it is."""
    choice = chunk["choices"][0]
    if text := choice["delta"].get("content"):
        answer.add(text)
    if choice["finish_reason"] == "length":
        answer.tokens = chat.tokens


def one_by_one(setting: Setting) -> None:
    """`llama_cpp.Llama` in process: it knows no two chats at once, and keeps the beginning that the last one left."""
    threads = setting["threads"]
    model = llama_cpp.Llama(setting["model"], n_ctx=WINDOW, n_threads=threads, n_threads_batch=threads, verbose=False)

    def ask(chats: Sequence[Chat], answers: Sequence[Answer]) -> None:
        for chat, answer in zip(chats, answers, strict=True):
            for chunk in model.create_chat_completion(
                _messages(chat), stream=True, temperature=0.0, max_tokens=chat.tokens
            ):
                _take(chunk, chat, answer)

    serve(ask, about=_system_info())
    model.close()


def its_server(setting: Setting) -> None:
    """`python -m llama_cpp.server`, which by default breaks off what it answers when somebody else asks: not here."""
    with _served(setting) as url, asyncio.Runner() as runner:

        async def all_at_once(chats: Sequence[Chat], answers: Sequence[Answer]) -> None:
            async with httpx.AsyncClient(base_url=url, timeout=None) as client:
                both = zip(chats, answers, strict=True)
                await asyncio.gather(*(_stream(client, chat, answer) for chat, answer in both))

        serve(lambda chats, answers: runner.run(all_at_once(chats, answers)), about=_system_info())


@contextmanager
def _served(setting: Setting) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {
        "model": setting["model"],
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": WINDOW,
        "n_threads": setting["threads"],
        "n_threads_batch": setting["threads"],
        "logits_all": False,
        "interrupt_requests": False,
        "verbose": False,
    }
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    process = subprocess.Popen([sys.executable, "-W", "ignore", "-m", "llama_cpp.server", *given], stdout=sys.stderr)
    try:
        url = f"http://127.0.0.1:{port}"
        _await_start(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


def _await_start(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < until:
        try:
            httpx.get(f"{url}/v1/models", timeout=5).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise RuntimeError(f"llama_cpp.server did not start (exit code {process.poll()})")


async def _stream(client: httpx.AsyncClient, chat: Chat, answer: Answer) -> None:
    body = {"messages": _messages(chat), "stream": True, "temperature": 0.0, "max_tokens": chat.tokens}
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        response.raise_for_status()
        async for data in _events(response):
            _take(json.loads(data), chat, answer)


async def _events(response: httpx.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield line.removeprefix("data: ")


# --- The floor ----------------------------------------------------------------------------------------


class Floor:
    """`llama_decode` in a loop: what all chats share is read once into sequence 0, and copied to theirs."""

    def __init__(self, setting: Setting) -> None:
        self._model = Loaded(Path(setting["model"]))
        self._template = ChatTemplate(self._model.template, bos=self._model.bos, eos=self._model.eos)
        self._context: Any = llama_cpp.llama_init_from_model(self._model.handle, _params(setting))
        self._memory: Any = llama_cpp.llama_get_memory(self._context)
        self._batch = Batch(_ROWS)
        self._kept: list[int] = []

    def ask(self, chats: Sequence[Chat], answers: Sequence[Answer]) -> None:
        prompts = [self._tokens(chat) for chat in chats]
        shared = min(_common(prompts[0][:-1], prompt[:-1]) for prompt in prompts)
        self._keep(prompts[0][:shared])
        said = self._read([prompt[shared:] for prompt in prompts], shared)
        lengths = [len(prompt) for prompt in prompts]
        talking = dict(enumerate(said))
        while talking := self._told(talking, chats, answers):
            self._batch.clear()
            for n, token in talking.items():
                self._batch.add(keyed([token], 0), n + 1, lengths[n], asked=1)
                lengths[n] += 1
            self._compute()
            talking = {n: self._best(row) for row, n in enumerate(talking)}

    def _tokens(self, chat: Chat) -> list[int]:
        pieces = self._template.lay_out(request(chat, "nobody"))
        return [token for tokens in self._model.prompt(pieces) for token in tokens]

    def _told(self, said: dict[int, int], chats: Sequence[Chat], answers: Sequence[Answer]) -> dict[int, int]:
        """Note the tokens; those chats go on that are not at their end."""
        said = {n: token for n, token in said.items() if not self._model.ends(token)}
        for n, token in said.items():
            answers[n].add(self._model.text(token).decode("utf-8", "replace"))
        return {n: token for n, token in said.items() if answers[n].tokens < chats[n].tokens}

    def _keep(self, shared: list[int]) -> None:
        there = _common(self._kept, shared)
        llama_cpp.llama_memory_seq_rm(self._memory, 0, there, -1)
        for place in range(there, len(shared), _ROWS):
            self._batch.clear()
            self._batch.add(keyed(shared[place : min(place + _ROWS, len(shared))], 0), 0, place, asked=0)
            self._compute()
        self._kept = shared

    def _read(self, rests: list[list[int]], shared: int) -> list[int]:
        """Read what the chats do not share, as many whole ones at once as there is room for; their first tokens."""
        said: list[int] = []
        asked: list[int] = []
        self._batch.clear()
        for n, rest in enumerate(rests, 1):
            llama_cpp.llama_memory_seq_rm(self._memory, n, -1, -1)
            llama_cpp.llama_memory_seq_cp(self._memory, 0, n, 0, shared)
            if self._batch.rows + len(rest) > _ROWS:
                self._compute()
                said += map(self._best, asked)
                asked.clear()
                self._batch.clear()
            asked.append(self._batch.add(keyed(rest, 0), n, shared, asked=1) + len(rest) - 1)
        self._compute()
        return said + [self._best(row) for row in asked]

    def _compute(self) -> None:
        if code := llama_cpp.llama_decode(self._context, self._batch.whole()):
            raise RuntimeError(f"llama_decode returned {code}")

    def _best(self, row: int) -> int:
        return int(logits_of(self._context, row, self._model).argmax())


def _params(setting: Setting) -> Any:
    """As our engine sets its own."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = 8 * WINDOW
    params.n_batch = params.n_ubatch = _ROWS
    params.n_seq_max = setting["slots"] + 1
    params.kv_unified = True
    params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_AUTO
    params.n_threads = params.n_threads_batch = setting["threads"]
    params.no_perf = True
    return params


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def bare_loop(setting: Setting) -> None:
    serve(Floor(setting).ask, about=_system_info())


def _system_info() -> str:
    return str(llama_cpp.llama_print_system_info().decode())


ENGINES = {"ringwall": ringwall, "llama-cpp-python": one_by_one, "its-server": its_server, "bare-loop": bare_loop}

if __name__ == "__main__":
    ENGINES[sys.argv[1]](json.loads(sys.argv[2]))
