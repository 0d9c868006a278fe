"""Secrets are found as their patterns say, and in a time that grows as the text does, whatever it repeats."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from unittest.mock import patch

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ringwall import Principal
from ringwall.deployment.guard import Crossing, Passing, Ruling
from ringwall_guards import Secrets, secrets
from ringwall_guards.spans import Span

ANA: Final = Principal.user("ana")
PASSWORD: Final = re.compile(
    r"\b(?:pass(?:word|wd|phrase|code)|pwd|secret|(?:api|secret|access|private)[ _-]?key"
    r"|(?:access|auth|api)[ _-]?token)\b[\"']?(?:\s+is)?\s*[:=]?\s*[\"']?(?P<secret>(?=[^\s\"']*\d)[^\s\"'<>\[\]]{6,})",
    re.IGNORECASE,
)
PIECES: Final = (
    *("//", "/:_authToken=", "npm_", "0a-F" * 9, "eyJ", "eyJa.b", ".", "sk-", "T3BlbkFJ", "a1B2c" * 4, "-", "_", "="),
    *("password", "Secret", "secret key", "api_token", "private-key", "pwd", " is ", "is", ":", " ", "  ", '"', "'"),
    *("hunter2", "abcdef", "7", "<", "]", "\t", "\n", ". ", "é"),
)


def inspected(text: str) -> Ruling:
    return asyncio.run(Secrets().inspect(Passing(text, Crossing.ANSWER, ANA)))


@contextmanager
def by_the_plain_patterns() -> Iterator[None]:
    """With detect-secrets' patterns as they are, and that of a password as one would write it."""

    def passwords(sentence: str) -> Iterator[Span]:
        for match in PASSWORD.finditer(sentence):
            yield Span(*match.span("secret"), "password")

    with patch.object(secrets, "_FROM_THE_FIRST", {}), patch.object(secrets, "_passwords", passwords):
        yield


@settings(max_examples=500, deadline=None)
@given(pieces=st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=25))
@example(["//a", "/:_authToken=", "npm_", "b//", "/:_authToken=", "npm_", "c"])
@example(["eyJa.eyJb.", "eyJc.d"])
@example(["sk-", "a1B2c" * 4, "T3BlbkFJ", "a1B2c" * 4, "sk-", "a1B2c" * 4, "T3BlbkFJ", "a1B2c" * 4])
@example(["password", ":", "abcdef", "<", "secret", "=", "abcdef", "<", "7"])
@example(["password", " is ", "isa123"])
@example(["pwd", "=", "a1234"])
def test_it_finds_what_the_plain_patterns_find(pieces: list[str]) -> None:
    text = "".join(pieces)
    found = inspected(text)
    with by_the_plain_patterns():
        assert inspected(text) == found


@pytest.mark.parametrize(
    "unit",
    [
        *("see https://example.org/a and ", "see bo@example.org and ", "//x/:_authToken=", "eyJ", "sk-", "sk-ant-"),
        *("password:", "password=abcdef<", "secret key is ", "-----BEGIN ", "https://u:p@h/ ", "xoxb-1-", "aB3", "'"),
    ],
)
def test_a_text_of_200000_characters_is_inspected_well_within_the_time_that_a_guard_has(unit: str) -> None:
    assert cpu_seconds(unit * (200_000 // len(unit))) < Secrets.timeout / 2


def test_so_is_one_password_before_a_great_gap() -> None:
    assert cpu_seconds("password" + " " * 200_000 + "short") < Secrets.timeout / 2


def cpu_seconds(text: str) -> float:
    began = time.process_time()
    inspected(text)
    return time.process_time() - began
