"""Secrets: keys, tokens and passwords, by the patterns of detect-secrets and a few it lacks, and by entropy."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final, Literal

from ringwall.deployment.guard import Crossing, Guard, Passing, Ruling
from ringwall_guards.spans import Span, rewrite, whole_sentences

_KEY: Final = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)",
    re.DOTALL,
)
_BEGUN: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|-(?:-(?:-(?:-(?:-(?:B[A-Z0-9 ]*)?)?)?)?)?$")
# What each service says of its own: GitHub's token formats, Google's API keys, Anthropic's, Hugging Face's, and
# passwords as people write them down.
_MORE: Final = {
    "github_pat": re.compile(r"github_pat_[A-Za-z0-9_]{22,255}"),
    "google_api_key": re.compile(r"AIza[0-9A-Za-z_\-]{35}"),
    "anthropic_key": re.compile(r"sk-ant-[A-Za-z0-9_\-]{20,}"),
    "hugging_face_token": re.compile(r"\bhf_[A-Za-z0-9]{30,}"),
    "openai_key": re.compile(r"\bsk-(?:proj-)?[A-Za-z0-9_\-]{32,}"),
    "bearer": re.compile(r"\bBearer +[A-Za-z0-9._~+/\-]{16,}=*"),
}
# A password as it is written down: what comes before it, it, and the first digit in the word that it begins.
_BEFORE: Final = re.compile(
    r"\b(?:pass(?:word|wd|phrase|code)|pwd|secret|(?:api|secret|access|private)[ _-]?key"
    r"|(?:access|auth|api)[ _-]?token)\b[\"']?(?:\s++is)?\s*+(?:[:=]\s*+)?[\"']?+(?=[^\s\"'<>\[\]]{6})",
    re.IGNORECASE,
)
_PASSWORD: Final = re.compile(r"[^\s\"'<>\[\]]+")
_DIGIT: Final = re.compile(r"[^\s\"'\d]*+(?P<digit>\d)?")
# Patterns of detect-secrets that go over the rest of a line from each place in it where something could begin, beside
# ones that find the same from the first such place alone: where that one fails, so do all that follow it.
_FROM_THE_FIRST: Final = {
    r"\/\/.+\/:_authToken=\s*((npm_.+)|([A-Fa-f0-9-]{36})).*": (
        r"(?m)^(?>.*?(?=//))(?P<secret>//.+/:_authToken=\s*(?:npm_.+|[A-Fa-f0-9-]{36}).*)"
    ),
    r"eyJ[A-Za-z0-9-_=]+\.[A-Za-z0-9-_=]+\.?[A-Za-z0-9-_.+/=]*?": (
        r"(?<![A-Za-z0-9\-_=])(?>[A-Za-z0-9\-_=]*?(?=eyJ))(?P<secret>eyJ[A-Za-z0-9\-_=]++\.[A-Za-z0-9\-_=]++\.?)"
    ),
    r"sk-[A-Za-z0-9-_]*[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}": (
        r"(?<![A-Za-z0-9\-_])(?>[A-Za-z0-9\-_]*?(?=sk-))(?P<secret>"
        r"sk-[A-Za-z0-9\-_]*[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20})"
    ),
}
_RANDOM: Final = re.compile(
    r"(?<![A-Za-z0-9+/_\-])(?=[A-Za-z+/_\-]*\d)(?=[a-z0-9+/_\-]*[A-Z])[A-Za-z0-9+/_\-]{24,}={0,2}"
)
_BITS: Final = 4.5  # detect-secrets' own bound for base64


class Secrets(Guard):
    """Finds secrets, and leaves them out (`[aws_access_key]`), lets nothing pass, or only counts them.

    With `random` what looks random is one, too: 24 characters or more, with letters of both sizes and digits, of more
    than 4.5 bits each. Hexadecimal digests are not.
    """

    name = "secrets"

    def __init__(
        self,
        at: Collection[Crossing] = frozenset(Crossing) - {Crossing.REPLY},
        *,
        act: Literal["redact", "refuse", "tell"] = "redact",
        random: bool = True,
    ) -> None:
        self.crossings = frozenset(at)
        self._act, self._random = act, random
        self._patterns = tuple(_patterns())

    async def inspect(self, passing: Passing) -> Ruling:
        text, keys = _KEY.subn("[private_key]", passing.text)
        text, found = await rewrite(text, self._find, lambda kind, _: f"[{kind}]")
        if keys:
            found["private_key"] += keys
        if self._act == "redact":
            return Ruling(text, found)
        return Ruling(passing.text, found, refused=self._act == "refuse" and bool(found))

    def settled(self, text: str, crossing: Crossing) -> int:
        """Whole sentences before a private key that may have begun: a key has many lines."""
        if self._act == "refuse":
            return 0
        keys = list(_KEY.finditer(text))
        begun = _BEGUN.search(text, keys[-1].end() if keys else 0)
        cut = whole_sentences(text[: begun.start()] if begun else text)
        for key in reversed(keys):
            if cut > key.start():
                closed = "-----END " in key[0] and cut >= key.end()
                cut = cut if closed else whole_sentences(text[: key.start()])
        return cut

    def _find(self, sentence: str) -> Iterator[Span]:
        for kind, pattern in self._patterns:
            group = "secret" if "secret" in pattern.groupindex else 0
            for match in pattern.finditer(sentence):
                yield Span(*match.span(group), kind)
        yield from _passwords(sentence)
        if self._random:
            for match in _RANDOM.finditer(sentence):
                if _bits(match[0]) > _BITS:
                    yield Span(*match.span(), "random")


def _patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """The patterns with their kinds. Of detect-secrets only those are used: it looks for secrets in files."""
    from detect_secrets.plugins import (
        artifactory,
        aws,
        azure_storage_key,
        basic_auth,
        discord,
        github_token,
        gitlab_token,
        jwt,
        mailchimp,
        npm,
        openai,
        pypi_token,
        sendgrid,
        slack,
        square_oauth,
        stripe,
        telegram_token,
        twilio,
    )

    detectors = (
        artifactory.ArtifactoryDetector,
        aws.AWSKeyDetector,
        azure_storage_key.AzureStorageKeyDetector,
        basic_auth.BasicAuthDetector,
        discord.DiscordBotTokenDetector,
        github_token.GitHubTokenDetector,
        gitlab_token.GitLabTokenDetector,
        jwt.JwtTokenDetector,
        mailchimp.MailchimpDetector,
        npm.NpmDetector,
        openai.OpenAIDetector,
        pypi_token.PypiTokenDetector,
        sendgrid.SendGridDetector,
        slack.SlackDetector,
        square_oauth.SquareOAuthDetector,
        stripe.StripeDetector,
        telegram_token.TelegramBotTokenDetector,
        twilio.TwilioKeyDetector,
    )
    for detector in detectors:
        kind = "_".join(re.findall(r"[a-z0-9]+", detector.secret_type.lower()))[:40]
        for pattern in detector().denylist:
            yield kind, re.compile(_FROM_THE_FIRST.get(pattern.pattern, pattern.pattern), pattern.flags)
    yield from _MORE.items()


def _passwords(sentence: str) -> Iterator[Span]:
    """Words with a digit after what tells that they are secret; none is read twice, however often that is told."""
    place = seen = 0
    has_digit = False
    while before := _BEFORE.search(sentence, place):
        start, place = before.end(), before.start() + 1
        if start >= seen and (ahead := _DIGIT.match(sentence, start)):
            seen, has_digit = ahead.end(), ahead["digit"] is not None
        if has_digit and (password := _PASSWORD.match(sentence, start)):
            place = password.end()
            yield Span(start, place, "password")


def _bits(text: str) -> float:
    """Shannon entropy of a text, in bits a character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


__all__ = ["Secrets"]
