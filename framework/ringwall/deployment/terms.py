"""How people are asked, as words and as JSON: the end of an `ask` line, and what the journal keeps of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ringwall.deployment.base import Terms
from ringwall.errors import InvalidInput
from ringwall.principal import PUBLIC, Grant
from ringwall.schema import JSON

_WORD: Final = r'[^\s"#][^\s"]*'
_CLAUSE: Final = re.compile(
    rf"\s+(?:(?P<key>of|needing|within)\s+(?P<word>{_WORD})|(?P<asker>or\s+asker)"
    rf"|then\s+(?P<only>only\s+)?(?P<then>{_WORD})\s+after\s+(?P<after>{_WORD}))"
)

_UNNAMED: Final = re.sub(r"\?P<[a-z]+>", "?:", _CLAUSE.pattern)

CLAUSES: Final = rf"(?P<terms>(?:{_UNNAMED})*)"
"""A pattern for any number of clauses, in any order, as the group `terms`."""

EXPECTED_TERMS: Final = (
    " [of <grant>,...] [needing <people>] [or asker] [within <time>] [then [only] <grant>,... after <time>]"
)
"""How the clauses are written."""

_TIME: Final = re.compile(r"(\d{1,6})([smhd])")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def read_terms(text: str) -> Terms:
    """Read the clauses at the end of an `ask` line. Raises `InvalidInput` naming what cannot be meant."""
    found: dict[str, Any] = {}
    for clause in _CLAUSE.finditer(text):
        for name, value in _meant(clause).items():
            if name in found:
                raise InvalidInput(f"{clause[0].strip()!r} where {name!r} was said before", expected="each clause once")
            found[name] = value
    terms = Terms(**found)
    if terms.within and terms.then and terms.after >= terms.within:
        raise InvalidInput("a question that expires before others may answer it", expected="`after` before `within`")
    return terms


def _meant(clause: re.Match[str]) -> dict[str, Any]:
    if clause["asker"]:
        return {"asker": True}
    if clause["then"]:
        return {"then": _grants(clause["then"]), "after": seconds(clause["after"]), "only": bool(clause["only"])}
    match clause["key"]:
        case "of":
            return {"of": _grants(clause["word"])}
        case "within":
            return {"within": seconds(clause["word"])}
    if not clause["word"].isdecimal() or not 0 < int(clause["word"]) < 100:
        raise InvalidInput(f"{clause['word']!r} people", expected="a number from 1 to 99")
    return {"people": int(clause["word"])}


def _grants(text: str) -> frozenset[Grant]:
    grants = frozenset(text.split(","))
    for grant in grants:
        if "*" in grant or not (grant == PUBLIC or re.fullmatch(r"[^:]+:.+", grant)):
            raise InvalidInput(f"{grant!r} as approver", expected="grants, as in `role:manager,user:mia`")
    return grants


def seconds(text: str) -> float:
    """Read a time, as in `90s`, `30m`, `4h` or `2d`. Raises `InvalidInput`."""
    match = _TIME.fullmatch(text)
    if not match or not int(match[1]):
        raise InvalidInput(f"{text!r} as a time", expected="as in `90s`, `30m`, `4h` or `2d`")
    return int(match[1]) * _SECONDS[match[2]]


def duration(length: float) -> str:
    """Write a time as `seconds` reads it, in the largest unit that leaves nothing over."""
    unit = next((u for u in "dhm" if length >= _SECONDS[u] and length % _SECONDS[u] == 0), "s")
    return f"{length / _SECONDS[unit]:g}{unit}"


def written(terms: Terms) -> str:
    """The clauses, as `read_terms` reads them back; empty for ordinary terms."""
    parts = [
        f"of {_names(terms.of)}" if terms.of else "",
        f"needing {terms.people}" if terms.people > 1 else "",
        "or asker" if terms.asker else "",
        f"within {duration(terms.within)}" if terms.within else "",
    ]
    if terms.then:
        parts.append(f"then {'only ' if terms.only else ''}{_names(terms.then)} after {duration(terms.after)}")
    return " ".join(part for part in parts if part)


def _names(grants: Iterable[Grant]) -> str:
    return ",".join(sorted(grants))


def terms_to_json(terms: Terms) -> dict[str, JSON]:
    """What differs from ordinary terms."""
    plain = Terms()
    found: dict[str, JSON] = {}
    for name in Terms.__slots__:
        value = getattr(terms, name)
        if value != getattr(plain, name):
            found[name] = sorted(value) if isinstance(value, frozenset) else value
    return found


def terms_from_json(value: Mapping[str, Any]) -> Terms:
    """Read back what `terms_to_json` wrote."""
    fields: dict[str, Any] = {name: frozenset(v) if isinstance(v, list) else v for name, v in value.items()}
    return Terms(**fields)
