"""Principals, and what they hold in their tenant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringwall import ACL, Principal
from ringwall.errors import InvalidInput
from ringwall.principal import PUBLIC, scoped

NAMES = st.text("abc", min_size=1, max_size=3)


@pytest.mark.parametrize("id_", ["ana", ":ana", "user:", "", "user:a::b"])
def test_an_id_needs_a_kind_and_a_name(id_: str) -> None:
    with pytest.raises(InvalidInput):
        Principal(id_)


@given(NAMES, NAMES, NAMES, NAMES)
def test_tenants_never_share_a_grant_but_public(user: str, role: str, one: str, other: str) -> None:
    mine = Principal.user(user, role, tenant=one).vouched_grants
    theirs = Principal.user(user, role, tenant=other).vouched_grants
    assert (mine & theirs == {PUBLIC}) == (one != other)


def test_an_acl_of_one_tenant_does_not_admit_the_same_role_of_another() -> None:
    acl = ACL.of("role:staff", tenant="acme")
    assert acl.admits(Principal.user("ana", "staff", tenant="acme").vouched_grants)
    assert not acl.admits(Principal.user("ana", "staff", tenant="other").vouched_grants)
    assert not acl.admits(Principal.user("ana", "staff").vouched_grants)


@given(NAMES, NAMES)
def test_scoping_twice_is_scoping_once(grant: str, tenant: str) -> None:
    assert scoped(scoped(grant, tenant), tenant) == scoped(grant, tenant)
