"""An embedder behind an OpenAI-compatible server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

import httpx
from langchain_core.embeddings import Embeddings

from ringwall.door import Door
from ringwall.errors import RingwallError
from ringwall.model.base import Price, Usage
from ringwall.principal import Principal
from ringwall.schema import JSON
from ringwall_hosted import vectors
from ringwall_hosted.faults import Secret
from ringwall_hosted.server import RETRIES, TIMEOUTS, ReadKey, Retries, Server, Timeouts

T = TypeVar("T")

_NOTHING: Final[Mapping[str, JSON]] = MappingProxyType({})

_FREE: Final = Price()

_EXPECTED: Final = "a vector for each text, all of one size, of finite numbers"


class HostedEmbeddings(Embeddings):
    """The embedding model `model` behind `base_url`, asked over HTTP.

    It is elsewhere: `principal`, which is `embedder:<name>`, receives every text that it is given, and Ringwall sends
    it only what that principal may read. `name` is the model's unless given.

    The caller relies on this:

    - the key is read at each call and goes to the host of `base_url` alone, as with `HostedModel`; no error, log or
      representation shows it;
    - vectors have unit length, whatever the server's have;
    - `ProviderRefused`, `ProviderUnavailable` after the last try, or `BadReply`: never some of the vectors, never one
      of another size than those before it, never NaN;
    - a request holds at most `batch` texts and `batch_characters` characters, unless one text alone has more.

    `dimensions` asks the provider to cut its vectors; one that does not know how is a `BadReply`. `prefix` and
    `query_prefix` go before passages and questions, for models that were trained so. Of a text longer than `longest`
    characters only the first count; an empty one is sent as a space, since some servers refuse it; what UTF-8 cannot
    hold counts as `?`. `encoding` base64 makes replies a quarter as long, where the server knows it.
    `extra` goes into each request. `timeouts.first` bounds a whole reply. `spent` counts tokens as the server does,
    `price` is what a million of them cost.

    May be used from several threads and event loops. From async code use `aembed_documents` and `aembed_query`, whose
    connections are pooled; from plain code each call has its own.
    Raises `ConfigurationError` for a `base_url` that is no plain http(s) address.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str = "https://api.openai.com/v1",
        api_key_env: str | None = "OPENAI_API_KEY",
        api_key: ReadKey | None = None,
        name: str = "",
        dimensions: int | None = None,
        prefix: str = "",
        query_prefix: str = "",
        longest: int = 8_000,
        batch: int = 128,
        batch_characters: int = 200_000,
        encoding: Literal["float", "base64"] = "float",
        price: Price = _FREE,
        timeouts: Timeouts = TIMEOUTS,
        retries: Retries = RETRIES,
        extra: Mapping[str, JSON] = _NOTHING,
        client: Callable[[], httpx.AsyncClient] = httpx.AsyncClient,
    ) -> None:
        self.principal: Final = Principal(f"embedder:{name or model}")
        self.price: Final = price
        self._model, self._dimension, self._dimensions = model, dimensions, dimensions
        self._prefix, self._query_prefix, self._longest = prefix, query_prefix, longest
        self._batch, self._batch_characters = batch, batch_characters
        self._encoding, self._extra = encoding, extra
        self._server = Server(
            base_url,
            name=name or model,
            api_key_env=api_key_env,
            api_key=api_key,
            timeouts=timeouts,
            retries=retries,
            client=client,
        )
        self._lock = threading.Lock()
        self._spent = Usage()

    @property
    def spent(self) -> Usage:
        """The tokens that were sent since this was made, as the server counts them."""
        return self._spent

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vector of each text, in order."""
        return _waited_for(self.aembed_documents(texts))

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return _waited_for(self.aembed_query(text))

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """The vector of each text, in order."""
        found: list[list[float]] = []
        for batch in self._batches([self._sendable(self._prefix, text) for text in texts]):
            found += (await self._embed(batch))[0]
        return found

    async def aembed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return (await self.aembed_counted(text))[0]

    async def aembed_counted(self, text: str) -> tuple[list[float], int]:
        """The vector of a question, and its tokens as the server counts them."""
        (vector,), tokens = await self._embed([self._sendable(self._query_prefix, text)])
        return vector, tokens

    async def close(self) -> None:
        """Close the connections that are open; each also closes with its event loop."""
        await self._server.close()

    # ---- before anything is sent

    def _sendable(self, prefix: str, text: str) -> str:
        return (prefix + text[: self._longest]).encode(errors="replace").decode() or " "

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        size = 0
        for text in texts:
            if batch and (len(batch) == self._batch or size + len(text) > self._batch_characters):
                yield batch
                batch, size = [], 0
            batch.append(text)
            size += len(text)
        if batch:
            yield batch

    # ---- trying

    async def _embed(self, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        body = vectors.body(
            texts, model=self._model, dimensions=self._dimensions, encoding=self._encoding, extra=self._extra
        )
        secret = await self._server.read_key()
        async for attempt in self._server.attempts():
            with attempt:
                return await self._attempt(body, secret, len(texts))
        raise AssertionError("the last attempt returns or raises")

    async def _attempt(self, body: bytes, secret: Secret, count: int) -> tuple[list[list[float]], int]:
        """One exchange, or an error that keeps nothing of the HTTP library's."""
        failure: RingwallError | None = None
        found: list[list[float]] = []
        tokens = 0
        try:
            reply = vectors.Reply.model_validate_json(await self._exchange(body, secret))
            found = reply.vectors(count, self._dimension)
            tokens = reply.tokens
            self._count(tokens)
        except self._server.failures() as error:
            failure = self._server.meaning(error, expected=_EXPECTED)
        # Raised out here, where it does not carry the library's error along, and with that the request's key.
        if failure:
            raise failure
        self._dimension = len(found[0])
        return found, tokens

    async def _exchange(self, body: bytes, secret: Secret) -> bytes:
        """The whole body of the server's answer."""
        limit, said = asyncio.get_running_loop().time() + self._server.timeouts.first, bytearray()
        answer = self._server.answer("/embeddings", body, secret, accept="application/json", limit=limit)
        async with asyncio.timeout_at(limit), answer as response:
            async for piece in response.aiter_bytes():
                said += piece
                if len(said) > vectors.MOST:
                    raise ValueError("too long")
        return bytes(said)

    def _count(self, tokens: int) -> None:
        with self._lock:
            self._spent = Usage(self._spent.prompt + tokens)


def _waited_for(work: Coroutine[Any, Any, T]) -> T:
    """What comes of `work`, on an event loop of its own. Raises `InvalidInput` when called from async code."""
    door = Door()
    try:
        return door.run(work)
    finally:
        door.close()
