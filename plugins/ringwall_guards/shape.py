"""What texts are about, what shape they have, and how long they are."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Literal

from ringwall.deployment.guard import Crossing, Guard, Passing, Ruling
from ringwall.errors import ConfigurationError
from ringwall.schema import JsonSchema


class FitsSchema(Guard):
    """Lets pass only JSON that fits a schema (draft 2020-12). Raises `ConfigurationError` for what is no schema."""

    name = "schema"

    def __init__(self, schema: JsonSchema, at: Collection[Crossing] = (Crossing.ANSWER,)) -> None:
        from jsonschema import Draft202012Validator
        from jsonschema.exceptions import SchemaError

        try:
            Draft202012Validator.check_schema(schema)
        except SchemaError as error:
            raise ConfigurationError(f"no JSON schema: {error.message}") from error
        self.crossings = frozenset(at)
        self._validator = Draft202012Validator(schema)

    async def inspect(self, passing: Passing) -> Ruling:
        try:
            value = json.loads(passing.text)
        except ValueError:
            return Ruling(passing.text, {"no_json": 1}, refused=True)
        wrong = sum(1 for _ in self._validator.iter_errors(value))
        return Ruling(passing.text, {"misfit": wrong} if wrong else {}, refused=wrong > 0)


class Topics(Guard):
    """Refuses, or only tells of, texts with any of the words of a topic: `{"law": ["lawsuit", "sue"]}`.

    Words and phrases, whole and in any case. With `only`, a text that has none of all the words is refused instead.
    """

    name = "topics"

    def __init__(
        self,
        topics: Mapping[str, Collection[str]],
        at: Collection[Crossing] = (Crossing.QUESTION, Crossing.ANSWER),
        *,
        act: Literal["refuse", "tell"] = "refuse",
        only: bool = False,
    ) -> None:
        self.crossings = frozenset(at)
        self._act, self._only = act, only
        self._topics = {
            topic: re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)", re.IGNORECASE)
            for topic, words in topics.items()
            if words
        }

    async def inspect(self, passing: Passing) -> Ruling:
        counts = {topic: len(words.findall(passing.text)) for topic, words in self._topics.items()}
        found = {topic: count for topic, count in counts.items() if count}
        wrong = not found if self._only else bool(found)
        return Ruling(passing.text, found, refused=wrong and self._act == "refuse")


class MaxLength(Guard):
    """Cuts a text off after so many characters, or refuses it. A stream is cut where it has come so far."""

    name = "length"

    def __init__(
        self,
        characters: int,
        at: Collection[Crossing] = (Crossing.ANSWER,),
        *,
        act: Literal["cut", "refuse"] = "cut",
    ) -> None:
        self.crossings = frozenset(at)
        self._most, self._act = characters, act

    async def inspect(self, passing: Passing) -> Ruling:
        left = max(self._most - passing.offset, 0)
        over = len(passing.text) > left
        text = passing.text[:left] if self._act == "cut" else passing.text
        return Ruling(text, {"too_long": 1} if over else {}, refused=over and self._act == "refuse")

    def settled(self, text: str, crossing: Crossing) -> int:
        return len(text) if self._act == "cut" else 0


__all__ = ["FitsSchema", "MaxLength", "Topics"]
