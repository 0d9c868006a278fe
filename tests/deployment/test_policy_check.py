"""What a check of rules finds, and that it is right."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall.deployment.expectations import Question
from ringwall.deployment.policy_check import REMOVABLE, FindingKind, Known, Severity, check
from ringwall.deployment.rules import Rules
from ringwall.errors import BadPolicy
from ringwall.principal import Principal
from tests.deployment.generated import PRINCIPALS, QUESTIONS, TEXTS


def found(text: str, known: Known = Known()) -> list[tuple[int, FindingKind, int]]:  # noqa: B008
    return [(f.line, f.kind, f.because_of) for f in check(text, known=known)]


@pytest.mark.parametrize(
    ("text", "finding"),
    [
        ("allow user:ana call tool:a\nallow user:ana call tool:a", (2, FindingKind.DUPLICATE, 1)),
        ("allow user:* call tool:a\nallow user:ana call tool:a", (2, FindingKind.UNREACHABLE, 1)),
        ("allow user:ana call tool:a\nallow user:* call tool:*", (1, FindingKind.REDUNDANT, 2)),
        ("allow web:a call tool:a\ndeny web:* call tool:*", (1, FindingKind.SHADOWED, 2)),
        ("allow user:a call tool:a in acme\ndeny user:a call tool:a", (1, FindingKind.SHADOWED, 2)),
        ("member user:a role:x\nmember user:a role:x", (2, FindingKind.DUPLICATE, 1)),
        ("member user:a role:x in acme\nmember user:a role:x", (1, FindingKind.REDUNDANT, 2)),
        ("allow role:x ask app:a", (1, FindingKind.HELD_BY_NOBODY, 0)),
        ("allow collection:x ask app:a", (1, FindingKind.HELD_BY_NOBODY, 0)),
        ("allow user:ana * app:a", (1, FindingKind.OVER_BROAD, 0)),
        ("allow user:ana call *", (1, FindingKind.OVER_BROAD, 0)),
        ("allow public call tool:*", (1, FindingKind.OVER_BROAD, 0)),
        ("grant * collection:x", (1, FindingKind.OVER_BROAD, 0)),
    ],
)
def test_each_kind_is_found_with_its_line_and_the_line_that_makes_it_so(
    text: str, finding: tuple[int, FindingKind, int]
) -> None:
    assert found(text) == [finding]


def test_a_role_covers_whatever_includes_it() -> None:
    text = "role staff includes guest\nmember user:bo role:staff\nallow role:guest ask app:a\nallow user:bo ask app:a"
    assert (4, FindingKind.UNREACHABLE, 3) in found(text)


def test_what_may_decide_something_is_left_alone() -> None:
    known = Known(roles=frozenset(("guest", "staff")))
    assert not found(
        """
        allow role:guest ask app:dinner
        allow role:staff ask app:*
        ask doc:* call tool:book
        allow user:ana call tool:book because "she owns the place"
        allow user:* call tool:book
        deny user:ana call tool:book in acme
        deny web:* call tool:*
        """,
        known,
    )


def test_an_id_that_a_line_hands_out_is_not_covered_by_a_pattern_of_ids() -> None:
    text = "grant doc:menu.md user:ana\nallow user:* call tool:a\nallow user:ana call tool:a"
    assert not found(text)
    assert asyncio.run(Question(Principal("doc:menu.md"), "call", "tool:a").put_to(Rules(text))).rule == "rules:3"


def test_names_that_an_app_does_not_have_are_found_and_the_nearest_one_is_named() -> None:
    known = Known(
        frozenset(("search", "pay")), frozenset(("dinner",)), frozenset(("hr",)), irreversible=frozenset(("pay",))
    )
    lines = ["allow user:* call tool:serch", "deny tool:x* call tool:*", "grant user:a collection:hr"]
    findings = check([*lines, "grant tool:* collection:questions"], known=known)
    assert [(f.line, f.kind) for f in findings] == [(1, FindingKind.UNKNOWN_NAME), (2, FindingKind.UNKNOWN_NAME)]
    assert findings[0].what == "there is no tool 'serch'; meant: search?"
    assert found("allow web:x call tool:p*", known) == [(1, FindingKind.OVER_BROAD, 0)]


def test_a_role_that_nobody_gives_is_a_note_until_it_is_known_who_vouches_for_what() -> None:
    (note,) = check("allow role:x ask app:a")
    (warning,) = check("allow role:x ask app:a", known=Known(roles=frozenset("y")))
    assert (note.severity, warning.severity) == (Severity.NOTE, Severity.WARNING)
    assert not check("allow role:x ask app:a", known=Known(roles=frozenset("x")))


def test_rules_that_cannot_be_read_are_not_checked() -> None:
    with pytest.raises(BadPolicy, match="line 2"):
        check("allow user:a ask app:a\nallow everybody")


# Always: on generated rules. No deadline: time is not what these are about.


@settings(deadline=None, max_examples=400)
@given(TEXTS, st.lists(QUESTIONS, min_size=1, max_size=12), st.lists(PRINCIPALS, min_size=1, max_size=4))
def test_what_decides_nothing_can_be_removed_without_changing_an_answer(
    lines: list[str], questions: list[Question], principals: list[Principal]
) -> None:
    removable = {f.line: f.kind for f in check(lines) if f.kind in REMOVABLE}
    reasons_too = FindingKind.REDUNDANT not in removable.values()
    before = Rules(lines)
    after = Rules(["" if number in removable else line for number, line in enumerate(lines, 1)])
    for question in questions:
        was, now = (asyncio.run(question.put_to(policy)) for policy in (before, after))
        assert now.verdict is was.verdict
        assert now == was or not reasons_too
    for principal in principals:
        assert asyncio.run(before.grants(principal)) == asyncio.run(after.grants(principal))


@settings(deadline=None, max_examples=200)
@given(TEXTS)
def test_nothing_is_left_to_remove_once_it_is_removed(lines: list[str]) -> None:
    removable = {f.line for f in check(lines) if f.kind in REMOVABLE}
    rest = ["" if number in removable else line for number, line in enumerate(lines, 1)]
    assert not [f for f in check(rest) if f.kind in REMOVABLE and f.kind is not FindingKind.REDUNDANT]


def test_a_hundred_thousand_lines_are_checked_within_seconds() -> None:
    lines = [
        line
        for n in range(20_000)
        for line in (
            f"member user:u{n} role:r{n % 1000}",
            f"allow role:r{n % 1000} call tool:t{n // 1000}_{n % 50}",
            f"allow user:u{n} call tool:t{n}",
            f"ask doc:d{n}* call tool:t{n}",
            f"deny web:w{n}.org call tool:x*",
        )
    ]
    began = time.process_time()
    findings = check([*lines, "allow user:u7 call tool:t7"])
    assert (len(findings), findings[-1].because_of) == (1, 38)
    assert time.process_time() - began < 30
