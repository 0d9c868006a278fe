"""Who asks, who receives, and what they hold.

A *grant* is a plain string: something a principal holds, and something an ACL names.
`user:ana`, `role:staff`, `collection:hr`, and `public`, which everyone holds.
In an app with tenants a grant carries its tenant in front (`acme::role:staff`), so that the staff of
one tenant never satisfy an ACL of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Self

from ringwall.errors import DocumentWithoutReaders, InvalidInput

Grant = str
"""Something a principal holds and an ACL names. A string: grants go into databases and queries as they are."""

Grants = frozenset[Grant]
"""Everything one principal holds at this moment."""

PUBLIC: Final[Grant] = "public"
"""The grant that everyone holds, in every tenant."""

TENANT_MARK: Final = "::"

_NO_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType({})


def scoped(grant: Grant, tenant: str) -> Grant:
    """Return `grant` as held within `tenant`; `public`, and a grant that has a tenant already, stay as they are."""
    if not tenant or grant == PUBLIC or TENANT_MARK in grant:
        return grant
    return f"{tenant}{TENANT_MARK}{grant}"


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody who asks, or who receives: a user, a service, a hosted model, the recipient of an e-mail.

    `id` is `kind:name` (`user:ana`, `model:openai`). `roles` are what whoever authenticated the principal
    vouches for; a policy may add to them, and decides what they are worth. `attributes` are facts a policy
    may look at (`department`, `clearance`); they grant nothing by themselves.

    Raises `InvalidInput` for an id without a kind, and for `::` in an id or a tenant.
    """

    id: str
    tenant: str = ""
    roles: frozenset[str] = frozenset()
    attributes: Mapping[str, str] = field(default_factory=lambda: _NO_ATTRIBUTES, compare=False)

    def __post_init__(self) -> None:
        kind, _, name = self.id.partition(":")
        if not kind or not name:
            raise InvalidInput(f"principal id {self.id!r} has no kind", expected="`kind:name`, as in `user:ana`")
        if kind in ("role", "collection"):
            raise InvalidInput(f"principal id {self.id!r} is a {kind}", expected="an id that is nobody's grant")
        if TENANT_MARK in "\n".join((self.id, self.tenant, *self.roles)):
            raise InvalidInput(
                f"principal {self.id!r} of tenant {self.tenant!r} contains {TENANT_MARK!r}",
                expected=f"ids, roles and tenants without {TENANT_MARK!r}, which separates the two in a grant",
            )

    @classmethod
    def user(cls, name: str, *roles: str, tenant: str = "") -> Self:
        """Shorthand for the commonest principal: `Principal.user("ana", "guest")`."""
        return cls(f"user:{name}", tenant, frozenset(roles))

    @property
    def own_grant(self) -> Grant:
        """The grant that this principal alone holds."""
        return self.id if not self.tenant else scoped(self.id, self.tenant)

    @property
    def vouched_grants(self) -> Grants:
        """What the principal holds without any policy: `public`, itself, and the roles it was vouched for."""
        return frozenset((PUBLIC, self.own_grant, *(scoped(f"role:{r}", self.tenant) for r in self.roles)))


class ACL(frozenset[Grant]):
    """The readers of one document: a reader needs any one of these grants. Never empty.

    Raises `DocumentWithoutReaders` when built from nothing: "nobody said who may read this" must never
    come to mean "everybody may".
    """

    __slots__ = ()

    def __new__(cls, grants: Iterable[Grant]) -> Self:
        if isinstance(grants, str):
            grants = (grants,)
        self = super().__new__(cls, grants)
        if not self or not all(self):
            raise DocumentWithoutReaders()
        return self

    @classmethod
    def of(cls, *grants: Grant, tenant: str = "") -> Self:
        """Build an ACL from grants, each scoped to `tenant`."""
        return cls(scoped(grant, tenant) for grant in grants)

    def admits(self, grants: Grants) -> bool:
        """Whether somebody who holds `grants` may read what carries this ACL."""
        return not self.isdisjoint(grants)

    @property
    def is_public(self) -> bool:
        return PUBLIC in self

    def __repr__(self) -> str:
        return f"ACL({', '.join(sorted(self))})"
