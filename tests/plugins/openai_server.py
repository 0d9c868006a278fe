"""Two OpenAI-compatible servers on loopback: one that says exactly what a test tells it to, good or bad, and one
that is a ringwall provider. What other APIs share with them is here too.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from langchain_core.messages import convert_to_messages

from ringwall.errors import ContextOverflow
from ringwall.model import (
    ANY_TOOL,
    Delta,
    ModelProvider,
    ModelRequest,
    RequestedCall,
    Sampling,
    TokenProbability,
    ToolSpec,
)

# ---- a server that does what it is told


Answer = bytes | Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Asked:
    """A request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


@dataclass
class Told:
    """The server, seen by the test: what it answers in turn (the last again and again), and what it was asked."""

    answers: list[Answer]
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    _serving: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def stop(self) -> None:
        for writer in self._serving.values():
            writer.transport.abort()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if task := asyncio.current_task():
            self._serving[task] = writer
        try:
            while asked := await _read(reader):
                self.asked.append(asked)
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                if callable(answer):
                    await answer(reader, writer)
                    break
                writer.write(answer)
                await writer.drain()
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").splitlines()
    except asyncio.IncompleteReadError:
        return None
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(head[0].split()[1], headers, json.loads(body or b"{}"))


@asynccontextmanager
async def told(*answers: Answer) -> AsyncIterator[Told]:
    """A server that gives these answers."""
    server = Told(list(answers))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    async with listening:
        yield server
        await server.stop()


def http(status: int, body: object = "", content_type: str = "application/json", **headers: str) -> bytes:
    """A whole HTTP answer; a body that is no string is written as JSON."""
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} Said", f"Content-Type: {content_type}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def piece(data: object, end: str = "\n\n") -> bytes:
    """One event, as a piece of a chunked body."""
    content = f"data: {data if isinstance(data, str) else json.dumps(data)}{end}".encode()
    return f"{len(content):x}\r\n".encode() + content + b"\r\n"


def stream(*events: object) -> bytes:
    """A whole stream of these events."""
    return STREAM_HEAD + b"".join(map(piece, events)) + b"0\r\n\r\n"


def says(text: str = "", finish: str | None = None, *, logprobs: object = None, **delta: object) -> dict[str, Any]:
    """The chunk of a reply that says so."""
    message = {"content": text, **delta}
    return {"choices": [{"index": 0, "delta": message, "finish_reason": finish, "logprobs": logprobs}]}


USED = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}}
HELLO = stream(says("Hel"), says("lo"), says(finish="stop"), USED, "[DONE]")


# ---- a server that is a provider


Body = dict[str, Any]

Write = Callable[[Delta, int], Iterator[Body]]
"""What an API writes of a delta, before which there were so many."""


def openai_app(provider: ModelProvider) -> FastAPI:
    """Chat completions as `provider` answers them."""
    return api_app(provider, "/v1/chat/completions", _as_request, _written, end="data: [DONE]\n\n")


def api_app(
    provider: ModelProvider, path: str, as_request: Callable[[Body], ModelRequest], write: Write, *, end: str = ""
) -> FastAPI:
    """An API whose one door is `path`, as `provider` answers."""
    app = FastAPI()

    @app.post(path, response_model=None)
    async def complete(request: Request) -> Response:
        deltas = provider.stream(as_request(await request.json()))
        try:
            first = await anext(deltas)
        except ContextOverflow as error:
            message = (
                f"This model's maximum context length is {error.window} tokens. However, your messages "
                f"resulted in {error.tokens} tokens."
            )
            return JSONResponse({"error": {"message": message, "code": "context_length_exceeded"}}, 400)
        return StreamingResponse(_events(first, deltas, write, end), media_type="text/event-stream")

    return app


async def _events(first: Delta, rest: AsyncGenerator[Delta, None], write: Write, end: str) -> AsyncIterator[str]:
    count = 0
    try:
        for event in write(first, count):
            yield _event(event)
        async for delta in rest:
            count += 1
            for event in write(delta, count):
                yield _event(event)
        yield end
    finally:
        await rest.aclose()


def _event(event: Body) -> str:
    return (f"event: {event['type']}\n" if "type" in event else "") + f"data: {json.dumps(event)}\n\n"


def _as_request(body: dict[str, Any]) -> ModelRequest:
    choice = body.get("tool_choice")
    tools = [tool["function"] for tool in body.get("tools", ())]
    return ModelRequest(
        tuple(convert_to_messages(body["messages"])),
        tools=tuple(ToolSpec(tool["name"], tool["description"], tool["parameters"]) for tool in tools),
        tool_choice=ANY_TOOL if choice == "required" else choice and choice["function"]["name"],
        schema=body["response_format"]["json_schema"]["schema"] if "response_format" in body else None,
        sampling=Sampling(
            body["temperature"],
            body.get("top_p", 1.0),
            body["max_tokens"],
            tuple(body.get("stop", ())),
            body.get("seed"),
            logprobs=body.get("top_logprobs"),
        ),
    )


def _written(delta: Delta, before: int) -> Iterator[Body]:
    if delta.text or delta.logprobs:
        yield says(delta.text, logprobs=_likely(delta))
    for index, call in enumerate(delta.calls):
        yield from (says(tool_calls=[fragment]) for fragment in _fragments(index, call))
    if delta.finish:
        yield says(finish=delta.finish)
    if delta.usage:
        used = {"prompt_tokens": delta.usage.prompt, "completion_tokens": delta.usage.completion}
        yield {"choices": [], "usage": used}


def _likely(delta: Delta) -> Body | None:
    return {"content": [likely(token) for token in delta.logprobs]} if delta.logprobs else None


def likely(token: TokenProbability) -> Body:
    """A token and its alternatives, as OpenAI's APIs write them."""
    others = [{"token": other.text, "logprob": other.logprob} for other in token.others]
    return {"token": token.text, "logprob": token.logprob, "top_logprobs": others}


def _fragments(index: int, call: RequestedCall) -> list[dict[str, Any]]:
    half = len(call.arguments) // 2
    return [
        {"index": index, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}},
        {"index": index, "function": {"arguments": call.arguments[:half]}},
        {"index": index, "function": {"arguments": call.arguments[half:]}},
    ]


@contextmanager
def serving(provider: ModelProvider, app: Callable[[ModelProvider], FastAPI] = openai_app) -> Iterator[str]:
    """Serve `provider` from a thread of its own; gives the `base_url`."""
    config = uvicorn.Config(app(provider), port=0, log_level="warning", lifespan="off", ws="none", access_log=False)
    server = uvicorn.Server(config)
    listening = config.bind_socket()
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
