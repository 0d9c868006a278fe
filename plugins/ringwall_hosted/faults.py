"""What a server's refusal means, in Ringwall's errors, and nothing of the API key in any of them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, final
from urllib.parse import quote, urlsplit

from ringwall.errors import BadReply, ContextOverflow, ProviderRefused, ProviderUnavailable, RingwallError

_EXCERPT: Final = 200
"""Characters of a server's own words that an error may repeat."""

_BUSY: Final = frozenset((408, 409, 425, 429))
"""The statuses below 500 after which trying again may help."""

_HINTS: Final = {
    401: "check the API key",
    403: "check what the API key's account may use",
    404: "check `base_url` and the model's name",
}


@final
class Secret:
    """An API key: it can go into a header and out of a text, and does not show itself."""

    __slots__ = ("_spellings", "_text")

    def __init__(self, text: str) -> None:
        self._text = text = text.strip()
        # A server may give it back as it came, percent-encoded, or inside JSON that nobody decoded.
        escaped = json.dumps(text)[1:-1]
        spellings = {text, quote(text, safe=""), quote(text), escaped, escaped.replace("/", "\\/")}
        self._spellings = sorted(spellings - {""}, key=len, reverse=True)

    def __repr__(self) -> str:
        return "Secret(...)"

    @property
    def is_sendable(self) -> bool:
        """Whether there is a key, and one that fits into a header."""
        return bool(self._text) and all("!" <= character <= "~" for character in self._text)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._text}"} if self._text else {}

    def removed_from(self, text: str) -> str:
        for spelling in self._spellings:
            text = text.replace(spelling, "[key]")
        return text


def excerpt(text: str, secret: Secret) -> str:
    """The beginning of a server's words on one line, without the key. Cut last, so that no half of it stays."""
    text = " ".join(secret.removed_from(text).split())
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"


def refusal(
    status: int,
    headers: Mapping[str, str],
    body: str,
    *,
    provider: str,
    secret: Secret,
    reserved: int,
) -> RingwallError:
    """The error for an answer that is no reply. `reserved` is what the request kept for the answer, in tokens."""
    if 300 <= status < 400:
        return _redirected(headers, provider, secret)
    error = _error_in(body)
    said = str(error.get("message") or body)
    if overflow := _overflow(error, said, reserved):
        return overflow
    what = f"{provider} answered {status}" + (f": {excerpt(said, secret)}" if said.strip() else "")
    if status < 400:
        return BadReply(what, provider=provider, expected="status 200")
    # An empty account is told with the status of a busy server, but waiting does not fill it.
    if (status in _BUSY or status >= 500) and error.get("code") != "insufficient_quota":
        return ProviderUnavailable(what, provider=provider, retry_after=retry_after(headers))
    return ProviderRefused(what, provider=provider, hint=_HINTS.get(status, ""))


def _redirected(headers: Mapping[str, str], provider: str, secret: Secret) -> ProviderRefused:
    try:
        host = urlsplit(headers.get("location", "")).hostname or "itself"
    except ValueError:
        host = "an address that is none"
    return ProviderRefused(
        f"{provider} redirects to {excerpt(host, secret)}; neither the key nor any text is sent after it",
        provider=provider,
        hint="if you trust it, make it the `base_url`",
    )


def _error_in(body: str) -> Mapping[str, object]:
    """The error object of a body: `{"error": {...}}`, `{"error": "..."}`, or the fields themselves."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = value.get("error", value) if isinstance(value, dict) else value
    return error if isinstance(error, dict) else {"message": error}


# The servers' ways to say how large a prompt was and how large it may be.
_WINDOW: Final = re.compile(r"maximum context length is (\d{1,12})|tokens > (\d{1,12}) maximum")
_PROMPT: Final = re.compile(
    r"\((\d{1,12}) in the (?:messages|prompt)|has (?:at least )?(\d{1,12}) input tokens"
    r"|resulted in (\d{1,12}) tokens|too long: (\d{1,12}) tokens"
)


def _overflow(error: Mapping[str, object], said: str, reserved: int) -> ContextOverflow | None:
    tokens, window = error.get("n_prompt_tokens"), error.get("n_ctx")
    if not (isinstance(tokens, int) and isinstance(window, int)):
        tokens, window = _number(_PROMPT, said), _number(_WINDOW, said)
    if tokens is None or window is None or tokens + reserved <= window:
        return None
    return ContextOverflow(tokens, window, reserved=reserved)


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(next(filter(None, found.groups()))) if found else None


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that `Retry-After` asks for, given as seconds or as a date; None if it says nothing usable."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        return _seconds_until(value, headers.get("date", ""))
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _seconds_until(date: str, now: str) -> float | None:
    try:
        then = parsedate_to_datetime(date)
        # The server's own clock counts, where it tells the time: the two may differ by more than the wait.
        start = parsedate_to_datetime(now) if now else datetime.now(UTC)
        return max((then - start).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None
