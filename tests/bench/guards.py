"""What guards cost and find: `python tests/bench/guards.py`, a JSON line each.

- `cost`: microseconds for each 1,000 characters of ordinary text, whole and as a stream of words; `ratio_to_datafog` is
  to one plain scan by datafog of the same text in the same run, of `disarm` also to one parse by markdown-it.
- `growth`: CPU time of `Secrets` for a text that repeats one thing, and how many times that of a text twice as long is;
  2 is linear. `as_written` is the same with its patterns as detect-secrets writes them, on an eighth of the text.
- `found`: of personal data put into the templates that `presidio-evaluator` ships (`pip install --no-deps
  presidio-evaluator`, and `faker` for the data), how much was left out whole (recall) and how much of what was left out
  is personal data of any kind (precision), by kind. The finders know neither the templates nor faker.

With `--presidio` the same for presidio's finder, which also looks for names and places.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, files
from typing import Any, Final
from unittest.mock import patch

from datafog.engine import scan
from markdown_it import MarkdownIt

from ringwall import Principal
from ringwall.deployment.disarm import Disarm
from ringwall.deployment.guard import Crossing, Guard, Passing
from ringwall_guards import Finder, Injection, Pii, Pseudonyms, Secrets, secrets
from ringwall_guards.pii import KINDS, by_patterns, by_presidio
from ringwall_guards.spans import Span, apart, sentences

ANA: Final = Principal.user("ana")
TEXT: Final = (
    "Lucia opens at seven; the garden is quiet, and a table for four is free on Friday. Ask for Maria at the door (she "
    "knows the wines) or write to booking@lucia.example.\n\n- The **menu** changes weekly: see "
    "[1] and menu.lucia.example.\n"
    "- Children eat for half, dogs are welcome, and `code 42` opens the gate.\n\n"
    "If it rains, call +39 06 1234 5678 before six.\n"
) * 10
REPEATS: Final = 15
WANTED: Final = {
    "email": "email",
    "phone_number": "phone",
    "ssn": "ssn",
    "credit_card_number": "credit_card",
    "iban": "iban",
    "ip_address": "ip_address",
}
_FIELD: Final = re.compile(r"\{\{(\w+)\}\}")


def cost() -> Iterator[dict[str, object]]:
    """What each guard takes for a thousand characters."""
    floor = _best(lambda: scan(TEXT, engine="regex"))
    markdown = _best(lambda: MarkdownIt().parse(TEXT))
    for guard, crossing in (
        (Disarm(), Crossing.ANSWER),
        (Pii(), Crossing.ANSWER),
        (Pseudonyms(), Crossing.PROMPT),
        (Secrets(), Crossing.ANSWER),
        (Injection(), Crossing.RESULT),
    ):
        whole = _best(lambda guard=guard, crossing=crossing: asyncio.run(_whole(guard, crossing)))  # type: ignore[misc]
        words = _best(lambda guard=guard, crossing=crossing: asyncio.run(_streamed(guard, crossing)))  # type: ignore[misc]
        line: dict[str, object] = {"bench": "cost", "guard": guard.name, "us_per_kb": _per_kb(whole)}
        line |= {"streamed_us_per_kb": _per_kb(words), "ratio_to_datafog": round(whole / floor, 2)}
        if isinstance(guard, Disarm):
            line["ratio_to_markdown_it"] = round(whole / markdown, 2)
        yield line


def growth() -> Iterator[dict[str, object]]:
    """How the time for a text grows when the text does."""
    for repeats in ("see https://example.org/a and ", "see bo@example.org and ", "sk-", "eyJ", "password:"):
        now = [_cpu(repeats, length) for length in (100_000, 200_000)]
        with patch.object(secrets, "_FROM_THE_FIRST", {}):
            before = [_cpu(repeats, length) for length in (12_500, 25_000)]
        line: dict[str, object] = {"bench": "growth", "guard": "secrets", "repeats": repeats}
        yield {
            **line,
            "us_per_kb": round(now[1] * 1e6 / 200, 1),
            "ratio_when_doubled": round(now[1] / now[0], 2),
            "as_written_us_per_kb": round(before[1] * 1e6 / 25, 1),
            "as_written_ratio_when_doubled": round(before[1] / before[0], 2),
        }


def _cpu(repeats: str, length: int) -> float:
    """CPU seconds of one inspection of so many characters, the least of several."""
    guard, text = Secrets(), repeats * (length // len(repeats))
    times = []
    for _ in range(5):
        began = time.process_time()
        asyncio.run(guard.inspect(Passing(text, Crossing.ANSWER, ANA)))
        times.append(time.process_time() - began)
    return min(times)


async def _whole(guard: Guard, crossing: Crossing) -> None:
    await guard.inspect(Passing(TEXT, crossing, ANA, remote=True))


async def _streamed(guard: Guard, crossing: Crossing) -> None:
    held, offset = "", 0
    for word in TEXT.split(" "):
        held += f"{word} "
        if cut := guard.settled(held, crossing):
            await guard.inspect(Passing(held[:cut], crossing, ANA, remote=True, offset=offset))
            held, offset = held[cut:], offset + cut


def _best(work: Callable[[], object]) -> float:
    """Seconds, the median of several tries after one that warms up."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _per_kb(seconds: float) -> float:
    return round(seconds * 1e6 / (len(TEXT) / 1000), 1)


def found(name: str, find: Finder, *, examples: int, seed: int) -> dict[str, object]:
    """Recall and precision on the templates, each filled until there are so many."""
    lines, data = _templates(), _Data(seed)
    put, left_out, hits, marks = Counter[str](), Counter[str](), 0, 0
    for number in range(examples):
        text, spans = data.filled(lines[number % len(lines)])
        marked = apart(_in_sentences(find, text))
        for span in spans:
            if span.kind in WANTED:
                put[WANTED[span.kind]] += 1
                left_out[WANTED[span.kind]] += any(m.start <= span.start and span.end <= m.end for m in marked)
        marks += len(marked)
        hits += sum(any(m.start < span.end and span.start < m.end for span in spans) for m in marked)
    recall = {kind: round(left_out[kind] / put[kind], 3) for kind in KINDS if put[kind]}
    return {
        "bench": "found",
        "finder": name,
        "examples": examples,
        "put": dict(put),
        "recall": recall,
        "recall_of_all": round(left_out.total() / put.total(), 3),
        "precision": round(hits / marks, 3) if marks else None,
    }


def _in_sentences(find: Finder, text: str) -> Iterator[Span]:
    place = 0
    for sentence in sentences(text):
        for start, end, kind in find(sentence):
            yield Span(place + start, place + end, kind)
        place += len(sentence)


def _templates() -> list[str]:
    path = next(path for path in files("presidio-evaluator") or () if path.name == "templates.txt")
    lines = path.locate().read_text(encoding="utf-8", errors="replace").splitlines()  # type: ignore[attr-defined]
    return [line for line in lines if line.strip()]


class _Data:
    """Fills templates with made-up data, and knows where it put it."""

    def __init__(self, seed: int) -> None:
        from faker import Faker

        self._faker: Any = Faker("en_US")
        self._faker.seed_instance(seed)
        self._random = random.Random(seed)

    def filled(self, template: str) -> tuple[str, list[Span]]:
        out, spans, place = "", [], 0
        for field in _FIELD.finditer(template):
            out += template[place : field.start()]
            value = self._value(field[1])
            spans.append(Span(len(out), len(out) + len(value), field[1]))
            out, place = out + value, field.end()
        return out + template[place:], spans

    def _value(self, field: str) -> str:
        names = {"ip_address": "ipv4", "person": "name", "organization": "company", "zipcode": "postcode"}
        make = getattr(self._faker, names.get(field, field), None)
        return str(make()).replace("\n", ", ") if make else self._faker.word()


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--examples", type=int, default=2000)
    arguments.add_argument("--seed", type=int, default=7)
    arguments.add_argument("--presidio", action="store_true")
    given = arguments.parse_args()
    for line in (*cost(), *growth()):
        print(json.dumps(line), flush=True)
    finders: dict[str, Finder] = {"patterns": by_patterns()}
    if given.presidio:
        finders["presidio"] = by_presidio()
    try:
        for name, find in finders.items():
            print(json.dumps(found(name, find, examples=given.examples, seed=given.seed)), flush=True)
    except (PackageNotFoundError, ModuleNotFoundError) as missing:
        print(json.dumps({"bench": "found", "skipped": f"not installed: {missing.name}"}))


if __name__ == "__main__":
    main()
