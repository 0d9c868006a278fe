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


_STATUSES: Final = {
    "invalid_request_error": 400,
    "invalid_prompt": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What the names of errors would have been as an answer's status."""


@final
class Secret:
    """An API key: it can go into a header and out of a text, and does not show itself."""

    __slots__ = ("_header", "_spellings", "_text")

    def __init__(self, text: str, header: str = "Authorization") -> None:
        self._header, self._text = header, text.strip()
        text = self._text
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
        if not self._text:
            return {}
        return {self._header: f"Bearer {self._text}" if self._header == "Authorization" else self._text}

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


def status_of(error: object) -> int:
    """The status that an error in the middle of a stream would have had as an answer."""
    if not isinstance(error, Mapping):
        return 500
    code = error.get("code")
    if isinstance(code, int) and 400 <= code < 600:
        return code
    return _STATUSES.get(str(code)) or _STATUSES.get(str(error.get("type"))) or 500


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
    """The error object of a body: `{"error": {...}}`, `{"error": "..."}`, or the fields themselves.

    An event that tells that a response failed holds the response, and that such an object.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if isinstance(value, dict) and isinstance(value.get("response"), dict):
        value = value["response"]
    error = value.get("error", value) if isinstance(value, dict) else value
    return error if isinstance(error, dict) else {"message": error}


# The servers' ways to say how large a prompt was and how large it may be.
_WINDOW: Final = re.compile(
    r"maximum context length is (\d{1,12})|tokens > (\d{1,12}) maximum|context limit: \d{1,12} \+ \d{1,12} > (\d{1,12})"
)
_PROMPT: Final = re.compile(
    r"\((\d{1,12}) in the (?:messages|prompt)|has (?:at least )?(\d{1,12}) input tokens"
    r"|resulted in (\d{1,12}) tokens|too long: (\d{1,12}) tokens|context limit: (\d{1,12}) \+"
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


_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9})ms)?", re.ASCII)

_LIMITS: Final = re.compile(r"(?:anthropic-|x-)ratelimit-(?:remaining-[a-z]+|[a-z-]+-remaining)")
"""The headers that say what is left of a limit; each has a twin that says when it is whole again."""


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a server asks to wait; None if it says nothing usable.

    `Retry-After` counts, as seconds or as a date, or else the time when the limit that is used up is whole again.
    """
    value, now = headers.get("retry-after", "").strip(), headers.get("date", "")
    wait = _plain_seconds(value)
    if wait is None and value:
        wait = _seconds_until(value, now)
    return _until_reset(headers, now) if wait is None else wait


def _plain_seconds(value: str) -> float | None:
    try:
        seconds = float(value)
    except ValueError:
        return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _until_reset(headers: Mapping[str, str], now: str) -> float | None:
    """The longest of the times until a limit of which nothing remains is whole: OpenAI's `1m6s`, Anthropic's dates."""
    spent = [name for name, left in headers.items() if left == "0" and _LIMITS.fullmatch(name.lower())]
    resets = [headers.get(name.lower().replace("remaining", "reset"), "") for name in spent]
    waits = [wait for reset in resets if (wait := _duration(reset) or _seconds_until(reset, now)) is not None]
    return max(waits, default=None)


def _duration(text: str) -> float | None:
    found = _DURATION.fullmatch(text) if text else None
    if found is None:
        return None
    hours, minutes, seconds, thousandths = (float(number or 0) for number in found.groups())
    return hours * 3600 + minutes * 60 + seconds + thousandths / 1000


def _seconds_until(date: str, now: str) -> float | None:
    try:
        then = _moment(date)
        # The server's own clock counts, where it tells the time: the two may differ by more than the wait.
        start = _moment(now) if now else datetime.now(UTC)
        return max((then - start).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def _moment(text: str) -> datetime:
    """A date as HTTP writes it, or as RFC 3339 does."""
    return datetime.fromisoformat(text) if text[:4].isdigit() else parsedate_to_datetime(text)
