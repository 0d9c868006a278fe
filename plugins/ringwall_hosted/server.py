"""One server: its address, its key, its connections, and how patiently it is asked."""

from __future__ import annotations

import asyncio
import inspect
import os
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import httpx
import stamina

from ringwall.errors import BadReply, ConfigurationError, ProviderRefused, ProviderUnavailable, RingwallError
from ringwall_hosted import faults
from ringwall_hosted.faults import Secret
from ringwall_hosted.port import Clients, http_errors

ReadKey = Callable[[], str | Awaitable[str]]
"""Gives the API key of the moment: from a vault, a file that is rotated, a token service."""

_NONE: Final[Mapping[str, str]] = MappingProxyType({})

_PLAIN_URL: Final = re.compile(r"https?://([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?(/[^\s?#@]*)?", re.ASCII)
"""An address without a user, a query or a fragment: what is secret has no place in it."""

_ERROR_BODY: Final = 64 * 1024
"""Bytes of an error's body that are looked at."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that each phase of a request may take.

    To `connect`, to `send` a piece of the request, to wait for a free connection of the `pool`, from the
    request to the `first` event of the reply, and the `gap` between two events. A server's keep-alive
    comments are no events.
    """

    connect: float = 5.0
    send: float = 30.0
    pool: float = 30.0
    first: float = 120.0
    gap: float = 60.0


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried, and how many seconds apart: only until its first delta.

    The wait doubles from `first_wait` to at most `longest_wait`, with jitter. What `Retry-After` asks for
    is honoured instead, unless it is longer than `longest_wait`: then the error comes at once.
    """

    attempts: int = 3
    first_wait: float = 0.5
    longest_wait: float = 20.0


_NO_SUCH_PATH: Final = (404, 405, 501)

TIMEOUTS: Final = Timeouts()
RETRIES: Final = Retries()


class Server:
    """Where requests go, each with `headers`. `name` is what its errors call it.

    The key goes into the header `key_header`.

    Raises `ConfigurationError` for a `base_url` that is no plain http(s) address.
    """

    def __init__(
        self,
        base_url: str,
        *,
        name: str,
        api_key_env: str | None,
        api_key: ReadKey | None,
        timeouts: Timeouts,
        retries: Retries,
        client: Callable[[], httpx.AsyncClient],
        headers: Mapping[str, str] = _NONE,
        key_header: str = "Authorization",
    ) -> None:
        if not _PLAIN_URL.fullmatch(base_url):
            # The address is not repeated: what makes it wrong may be a password.
            raise ConfigurationError(
                "`base_url` is no plain http(s) address",
                expected="`https://host/v1`, without user, query or fragment",
            )
        self.name, self.timeouts = name, timeouts
        self._url, self._retries = base_url.rstrip("/"), retries
        self._api_key_env, self._api_key = api_key_env, api_key
        self._headers, self._key_header = headers, key_header
        self._clients = Clients(client)

    async def close(self) -> None:
        await self._clients.close()

    # ---- the key

    async def read_key(self) -> Secret:
        if self._api_key is None and self._api_key_env is None:
            return Secret("")
        secret = Secret(await self._key_text(), self._key_header)
        # Checked here: the HTTP library would repeat a key that it cannot send.
        if secret.is_sendable:
            return secret
        source = "`api_key`" if self._api_key else f"the environment variable {self._api_key_env}"
        raise ProviderRefused(
            f"{source} holds no API key",
            provider=self.name,
            expected="visible ASCII characters",
            hint="set it, or say `api_key_env=None` for a server that asks for none",
        )

    async def _key_text(self) -> str:
        if self._api_key is None:
            return os.environ.get(self._api_key_env or "", "")
        text = self._api_key()
        return await text if inspect.isawaitable(text) else text

    # ---- trying

    def attempts(self) -> AsyncIterator[stamina.Attempt]:
        """As many attempts as that takes: each is a context for one exchange."""
        return stamina.retry_context(
            on=self._wait,
            attempts=self._retries.attempts,
            timeout=None,
            wait_initial=self._retries.first_wait,
            wait_max=self._retries.longest_wait,
            wait_jitter=self._retries.first_wait,
        )

    def _wait(self, error: Exception) -> bool | float:
        """Whether to try again after `error`: no, after the usual wait, or after so many seconds."""
        if not isinstance(error, ProviderUnavailable):
            return False
        if error.retry_after is None:
            return True
        if error.retry_after > self._retries.longest_wait:
            return False
        # Jitter here too: everybody who was sent away was told the same second.
        return error.retry_after + random.uniform(0, self._retries.first_wait)

    @staticmethod
    def failures() -> tuple[type[Exception], ...]:
        """What may go wrong in an exchange and has another name than it should."""
        return (ValueError, TimeoutError, ProviderUnavailable, *http_errors("HTTPError", "StreamError"))

    def meaning(self, failure: Exception, *, expected: str) -> RingwallError:
        """The error to raise for one of `failures`: where it was caught is over, or it would carry the key along."""
        if isinstance(failure, ProviderUnavailable):
            return failure
        if isinstance(failure, ValueError):
            return self.bad("something else came", expected=expected)
        if isinstance(failure, TimeoutError):
            return self.unavailable("no answer in time")
        return self.unavailable(f"no connection, or one that broke ({type(failure).__name__})")

    def unavailable(self, what: str) -> ProviderUnavailable:
        return ProviderUnavailable(f"{self.name}: {what}", provider=self.name)

    def bad(self, what: str, *, expected: str) -> BadReply:
        return BadReply(f"{self.name}: {what}", provider=self.name, expected=expected)

    # ---- whether it is there

    async def look(self, path: str, *, seconds: float) -> bool:
        """Whether the server answers a GET with the key; False if it knows no such path. Asked once, and for nothing.

        Raises `ProviderRefused` for a key that it does not take, `ProviderUnavailable` when it is down, busy or slow.
        """
        secret = await self.read_key()
        failure: RingwallError
        try:
            return await self._answers(path, secret, asyncio.get_running_loop().time() + seconds)
        except RingwallError as error:
            failure = error
        except self.failures() as error:
            failure = self.meaning(error, expected="an answer")
        raise failure.with_traceback(None)  # out here, without the library's error and what the server said

    async def _answers(self, path: str, secret: Secret, limit: float) -> bool:
        client, timeouts = await self._clients.here(), self.timeouts
        request = client.build_request(
            "GET",
            self._url + path,
            headers={"Accept": "application/json", **self._headers, **secret.headers},
            timeout=(timeouts.connect, None, timeouts.send, timeouts.pool),
        )
        async with asyncio.timeout_at(limit):
            response = await client.send(request, stream=True, follow_redirects=False)
        try:
            if response.status_code in _NO_SUCH_PATH:
                return False
            if response.status_code != 200:
                said = secret.removed_from(await self._error_body(response))
                raise self.refusal(response.status_code, response.headers, said, secret, reserved=0)
            return True
        finally:
            await response.aclose()

    # ---- one exchange

    @asynccontextmanager
    async def answer(
        self, path: str, body: bytes, secret: Secret, *, accept: str, limit: float, reserved: int = 0
    ) -> AsyncGenerator[httpx.Response, None]:
        """The answer to `body`, once it is known to be one, of the type `accept`; `limit` is the loop's time."""
        client, timeouts = await self._clients.here(), self.timeouts
        request = client.build_request(
            "POST",
            self._url + path,
            content=body,
            headers={"Content-Type": "application/json", "Accept": accept, **self._headers, **secret.headers},
            timeout=(timeouts.connect, None, timeouts.send, timeouts.pool),
        )
        async with asyncio.timeout_at(limit):
            response = await client.send(request, stream=True, follow_redirects=False)
        try:
            if response.status_code != 200:
                said = secret.removed_from(await self._error_body(response))
                raise self.refusal(response.status_code, response.headers, said, secret, reserved=reserved)
            if not response.headers.get("content-type", "").startswith(accept):
                raise self.bad("what came is of another type", expected=accept)
            yield response
        finally:
            await response.aclose()

    async def _error_body(self, response: httpx.Response) -> str:
        """The beginning of the body, as much of it as comes: the status says more than it does."""
        body = b""
        with suppress(TimeoutError, *http_errors("HTTPError")):
            async with asyncio.timeout(self.timeouts.gap):
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > _ERROR_BODY:
                        break
        return body[:_ERROR_BODY].decode(errors="replace")

    def refusal(
        self, status: int, headers: Mapping[str, str], body: str, secret: Secret, *, reserved: int
    ) -> RingwallError:
        """The error that the server tells with this status; `reserved` tokens were kept for the answer."""
        return faults.refusal(status, headers, body, provider=self.name, secret=secret, reserved=reserved)
