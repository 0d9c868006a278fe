"""What every policy must pass. Shipped to plugin authors; needs pytest with pytest-asyncio.

class TestMyPolicy(PolicyContract):
    @pytest.fixture
    def policy(self) -> Policy: ...            # with the rules of `STANDARD_RULES`

    async def revoke(self, policy: Policy) -> None: ...
"""

from __future__ import annotations

from itertools import product
from typing import Final

import pytest

from ringwall.deployment.base import Policy, Verdict
from ringwall.principal import PUBLIC, Principal

STANDARD_RULES: Final = """
role staff includes guest
role manager includes staff
member user:bo role:staff in acme
grant role:staff collection:kitchen
grant role:manager collection:wages in acme

allow role:guest ask app:dinner
allow role:guest call tool:book_table
allow * call tool:search
ask doc:* call tool:book_table
ask web:* call tool:search
deny web:shady.example call tool:*
deny role:banned call tool:book_table
allow role:manager approve * in acme
"""
"""The rules that the policy under test has, in the language of `ringwall.deployment.rules.Rules`.

Without `in`, a rule holds in every tenant, and for principals without a tenant.
"""

ACME: Final = "acme"
GUEST: Final = Principal.user("ana", "guest", tenant=ACME)
MEMBER: Final = Principal.user("bo", tenant=ACME)
MANAGER: Final = Principal.user("mia", "manager", tenant=ACME)
BANNED: Final = Principal.user("eve", "manager", "banned", tenant=ACME)
STRANGER: Final = Principal.user("sam", tenant=ACME)
NAMESAKE: Final = Principal.user("bo", tenant="globex")
OUTSIDER: Final = Principal.user("gil", "manager", tenant="globex")
TENANTLESS: Final = Principal.user("tom", "manager")
DOCUMENT: Final = Principal("doc:menu.md", tenant=ACME)
PAGE: Final = Principal("web:example.org", tenant=ACME)
SHADY_PAGE: Final = Principal("web:shady.example", tenant=ACME)

EVERYBODY: Final = (
    *(GUEST, MEMBER, MANAGER, BANNED, STRANGER, NAMESAKE, OUTSIDER, TENANTLESS),
    *(DOCUMENT, PAGE, SHADY_PAGE),
)


@pytest.mark.asyncio
class PolicyContract:
    """Override the fixture `policy` and the method `revoke`."""

    @pytest.fixture
    def policy(self) -> Policy:
        raise NotImplementedError("return a policy with the rules of STANDARD_RULES")

    async def revoke(self, policy: Policy) -> None:
        """Take the membership of `user:bo` in `role:staff` of `acme` away."""
        raise NotImplementedError("remove `member user:bo role:staff in acme`")

    @pytest.mark.parametrize(
        ("principal", "action", "resource"),
        [
            (STRANGER, "ask", "app:dinner"),
            (GUEST, "ask", "app:lunch"),
            (GUEST, "call", "app:dinner"),
            (GUEST, "approve", "tool:book_table"),
            (DOCUMENT, "ask", "app:dinner"),
        ],
    )
    async def test_what_no_rule_allows_is_denied(
        self, policy: Policy, principal: Principal, action: str, resource: str
    ) -> None:
        decision = await policy.decide(principal, action, resource)
        assert (decision.verdict, decision.rule) == (Verdict.DENY, "default")
        assert not decision

    async def test_what_a_rule_allows_is_allowed_and_the_rule_is_named(self, policy: Policy) -> None:
        decision = await policy.decide(GUEST, "ask", "app:dinner")
        assert decision.verdict is Verdict.ALLOW
        assert decision.rule != "default"
        assert decision.reason

    async def test_a_deny_beats_an_ask_and_an_allow(self, policy: Policy) -> None:
        assert (await policy.decide(SHADY_PAGE, "call", "tool:search")).verdict is Verdict.DENY
        assert (await policy.decide(BANNED, "call", "tool:book_table")).verdict is Verdict.DENY

    async def test_an_ask_beats_an_allow(self, policy: Policy) -> None:
        assert (await policy.decide(STRANGER, "call", "tool:search")).verdict is Verdict.ALLOW
        assert (await policy.decide(PAGE, "call", "tool:search")).verdict is Verdict.ASK

    async def test_an_ask_needs_no_allow_beside_it(self, policy: Policy) -> None:
        assert (await policy.decide(DOCUMENT, "call", "tool:book_table")).verdict is Verdict.ASK

    async def test_a_role_holds_what_it_includes_however_far(self, policy: Policy) -> None:
        grants = await policy.grants(MANAGER)
        assert grants >= {"acme::role:staff", "acme::role:guest", "acme::collection:kitchen"}
        assert await policy.decide(MANAGER, "ask", "app:dinner")

    async def test_a_role_does_not_hold_what_includes_it(self, policy: Policy) -> None:
        grants = await policy.grants(GUEST)
        assert grants.isdisjoint({"acme::role:staff", "acme::role:manager", "acme::collection:kitchen"})

    async def test_a_membership_said_by_the_policy_counts_like_one_that_was_vouched_for(self, policy: Policy) -> None:
        assert await policy.grants(MEMBER) >= {"acme::role:staff", "acme::collection:kitchen"}
        assert await policy.decide(MEMBER, "ask", "app:dinner")

    async def test_a_rule_of_one_tenant_says_nothing_in_another(self, policy: Policy) -> None:
        assert await policy.decide(MANAGER, "approve", "tool:book_table")
        for elsewhere in (OUTSIDER, TENANTLESS):
            assert not await policy.decide(elsewhere, "approve", "tool:book_table")
            assert not any("collection:wages" in grant for grant in await policy.grants(elsewhere))
        assert not await policy.decide(NAMESAKE, "ask", "app:dinner")

    async def test_a_rule_of_every_tenant_gives_grants_of_the_principals_own_tenant(self, policy: Policy) -> None:
        assert "globex::collection:kitchen" in await policy.grants(OUTSIDER)
        assert "collection:kitchen" in await policy.grants(TENANTLESS)

    @pytest.mark.parametrize("principal", EVERYBODY, ids=str)
    async def test_nobody_ever_holds_a_grant_of_another_tenant(self, policy: Policy, principal: Principal) -> None:
        own = f"{principal.tenant}::" if principal.tenant else ""
        for grant in await policy.grants(principal) - {PUBLIC}:
            assert grant.startswith(own)
            assert "::" not in grant.removeprefix(own)

    @pytest.mark.parametrize("principal", EVERYBODY, ids=str)
    async def test_everybody_holds_what_they_were_vouched_for(self, policy: Policy, principal: Principal) -> None:
        assert await policy.grants(principal) >= principal.vouched_grants

    async def test_the_version_stays_while_nothing_changes(self, policy: Policy) -> None:
        before = policy.version
        for principal, action in product(EVERYBODY, ("ask", "call", "approve")):
            await policy.decide(principal, action, "tool:search")
        assert policy.version == before

    async def test_a_revocation_changes_the_version_and_the_next_call_sees_it(self, policy: Policy) -> None:
        before = policy.version
        assert await policy.decide(MEMBER, "ask", "app:dinner")
        assert "acme::role:staff" in await policy.grants(MEMBER)

        await self.revoke(policy)

        assert policy.version != before
        assert not await policy.decide(MEMBER, "ask", "app:dinner")
        assert await policy.grants(MEMBER) == MEMBER.vouched_grants
        assert await policy.decide(GUEST, "ask", "app:dinner")


__all__ = ["STANDARD_RULES", "PolicyContract"]
