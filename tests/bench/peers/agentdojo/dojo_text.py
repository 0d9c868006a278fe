"""What a planner can write itself: what the user's words say, and texts of its own wording around what it looks up."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ringwall.interface.origin import Taken

_MONTHS: Final = [name.lower() for name in calendar.month_name[1:]]
_NAMED_DATE: Final = re.compile(rf"({'|'.join(_MONTHS)}) (\d\d?)(?:st|nd|rd|th)?(?:,? (\d{{4}}))?")
_DATE: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:[ T](\d\d:\d\d))?")
_TOKEN: Final = re.compile(r"\w+(?:[-.:']\w+)*")


class UserWords:
    """The words of the user's task."""

    def __init__(self, prompt: str) -> None:
        self.text = " ".join(prompt.split()).lower()
        self._dates = [
            (y, m, int(d)) for name, d, y in _NAMED_DATE.findall(self.text) for m in [_MONTHS.index(name) + 1]
        ]

    def say(self, value: Any) -> bool:
        """Whether the user says it, or all of its parts, or the same day in another notation."""
        if isinstance(value, int | float):
            return any(float(found) == value for found in re.findall(r"\d+(?:\.\d+)?", self.text))
        text = " ".join(str(value).split()).lower()
        parts = re.findall(r"[\w@.-]+", text)
        whole = stands_in(text, self.text) or (bool(parts) and all(stands_in(part, self.text) for part in parts))
        return whole or self._say_day(text)

    def _say_day(self, text: str) -> bool:
        found = _DATE.fullmatch(text)
        if found is None or not (found[4] is None or stands_in(found[4], self.text)):
            return False
        year, month, day = found[1], int(found[2]), int(found[3])
        return any(said[0] in ("", year) and said[1:] == (month, day) for said in self._dates)


@dataclass(frozen=True)
class Quote:
    """A piece of a text that a trusted result says, and where all that it says stands."""

    text: str
    source: Taken


@dataclass(frozen=True)
class Source:
    """What trusted results say, in one place."""

    origin: Taken
    texts: tuple[str, ...]


def worded(value: str, words: UserWords, sources: Sequence[Source], others: Sequence[str]) -> list[str | Quote] | None:
    """A text as a planner words it that has seen no result: its own words, and pieces to be quoted from results.

    None where that cannot be: it says something that only others do, or next to nothing of what the user does.
    """
    tokens = list(_TOKEN.finditer(value))
    pieces: list[str | Quote] = []
    place = known = n = 0
    while n < len(tokens):
        found = next(_quotes(value, tokens, n, words, sources), None)
        if found is not None:
            quote, after = found
            pieces += [value[place : tokens[n].start()], quote]
            known += after - n
            n, place = after, tokens[after - 1].end()
            continue
        said = words.say(tokens[n][0])
        if not said and _is_theirs(tokens[n][0], others):
            return None
        known, n = known + said, n + 1
    pieces.append(value[place:])
    return [piece for piece in pieces if piece] if tokens and 2 * known >= len(tokens) else None


def _quotes(
    value: str, tokens: Sequence[re.Match[str]], n: int, words: UserWords, sources: Sequence[Source]
) -> Iterator[tuple[Quote, int]]:
    """What begins with this token, stands in a trusted result, and is not what the user says; the longest first."""
    for after in range(len(tokens), n, -1):
        text = value[tokens[n].start() : tokens[after - 1].end()]
        if len(text) < 4 or all(words.say(token[0]) for token in tokens[n:after]):
            continue
        for source in sources:
            if any(re.search(rf"(?<!\w){re.escape(text)}(?!\w)", said) for said in source.texts):
                yield Quote(text, source.origin), after


def _is_theirs(token: str, others: Sequence[str]) -> bool:
    """Whether it is more than a short word, and what others wrote holds it."""
    is_telling = len(token) > 4 or not token.islower()
    return is_telling and any(stands_in(token.lower(), text) for text in others)


def stands_in(text: str, words: str) -> bool:
    """Whether a text stands in others as a word or words of its own."""
    return re.search(rf"(?<![\w@.-]){re.escape(text.strip('.'))}(?![\w@-])", words) is not None
