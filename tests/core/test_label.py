"""Labels are a join-semilattice, and joining never lets a value flow further."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringwall.errors import DocumentWithoutReaders
from ringwall.label import BOTTOM, Label, join
from ringwall.principal import ACL, PUBLIC

GRANTS = st.sampled_from(["user:ana", "user:ben", "role:staff", "role:guest", "collection:hr", PUBLIC])
ACLS = st.frozensets(GRANTS, min_size=1, max_size=3).map(ACL)
SOURCES = st.sampled_from(["user:ana", "doc:a", "doc:b", "web:example.org", "tool:mail"])
LABELS = st.builds(Label, st.frozensets(ACLS, max_size=3), st.frozensets(SOURCES, max_size=3))
HELD = st.frozensets(GRANTS)


@given(LABELS, LABELS, LABELS)
def test_joining_is_associative(a: Label, b: Label, c: Label) -> None:
    assert (a | b) | c == a | (b | c)


@given(LABELS, LABELS)
def test_joining_is_commutative(a: Label, b: Label) -> None:
    assert a | b == b | a


@given(LABELS)
def test_joining_is_idempotent_and_the_bottom_is_neutral(a: Label) -> None:
    assert a | a == a
    assert a | BOTTOM == a


@given(LABELS, LABELS)
def test_a_join_is_at_least_as_strict_as_its_parts(a: Label, b: Label) -> None:
    assert a <= a | b
    assert b <= a | b
    assert (a <= b) == (a | b == b)


@given(LABELS, LABELS, HELD)
def test_joining_never_lets_a_value_flow_further(a: Label, b: Label, held: frozenset[str]) -> None:
    assert (a | b).may_flow_to(held) == (a.may_flow_to(held) and b.may_flow_to(held))


@given(LABELS, HELD, HELD)
def test_holding_more_never_means_receiving_less(a: Label, held: frozenset[str], more: frozenset[str]) -> None:
    assert not a.may_flow_to(held) or a.may_flow_to(held | more)


@given(st.lists(LABELS))
def test_the_join_of_many_is_the_joins_of_pairs(labels: list[Label]) -> None:
    folded = BOTTOM
    for label in labels:
        folded = folded | label
    assert join(labels) == folded


@given(LABELS)
def test_a_label_survives_the_journal(a: Label) -> None:
    assert Label.from_json(a.to_json()) == a


@given(ACLS, HELD)
def test_a_reader_needs_any_one_grant_of_an_acl(acl: ACL, held: frozenset[str]) -> None:
    assert acl.admits(held) == any(grant in held for grant in acl)


def test_an_acl_of_nobody_cannot_be_made() -> None:
    with pytest.raises(DocumentWithoutReaders, match="nothing is public by default"):
        ACL(())
    with pytest.raises(DocumentWithoutReaders):
        ACL([""])


def test_public_readers_add_no_secrecy() -> None:
    assert Label.of(ACL.of(PUBLIC, "user:ana"), "doc:a") == Label(frozenset(), frozenset({"doc:a"}))
