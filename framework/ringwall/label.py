"""The label that travels with every value: who may receive it, and who could have shaped it.

Labels form a join-semilattice (Denning, "A Lattice Model of Secure Information Flow", CACM 1976):
`a | b` is the label of a value made from both, and is at least as strict as each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Generic, NamedTuple, Self, TypedDict, TypeVar

from ringwall.principal import ACL, Grants

T_co = TypeVar("T_co", covariant=True)

Source = str
"""What could have shaped a value: `user:ana`, `doc:hr/handbook.md`, `web:example.org`, `tool:read_mail`."""


_OPEN: Final[frozenset[ACL]] = frozenset()
_NOBODY: Final[frozenset[Source]] = frozenset()


class LabelJson(TypedDict):
    """A label as the journal keeps it."""

    secrecy: list[list[str]]
    influence: list[Source]


@dataclass(frozen=True, slots=True)
class Label:
    """Who may receive a value, and who could have shaped it.

    `secrecy`: the ACLs of everything the value was made from; a reader must satisfy all of them.
    `influence`: every source that could have shaped it; an action needs all of them to be allowed to cause it.
    """

    secrecy: frozenset[ACL] = frozenset()
    influence: frozenset[Source] = frozenset()

    @classmethod
    def of(cls, readers: ACL | None = None, *influence: Source) -> Self:
        """The label of one source. Public readers add no secrecy; `readers=None` is a value nobody restricted."""
        if readers is None or readers.is_public:
            return cls(_OPEN, frozenset(influence))
        return cls(frozenset((readers,)), frozenset(influence))

    def __or__(self, other: Label) -> Label:
        """Join: the label of a value made from both."""
        if other is self or (other.secrecy <= self.secrecy and other.influence <= self.influence):
            return self
        return Label(self.secrecy | other.secrecy, self.influence | other.influence)

    def __le__(self, other: Label) -> bool:
        """Whether `other` is at least as strict as this label."""
        return self.secrecy <= other.secrecy and self.influence <= other.influence

    def to_json(self) -> LabelJson:
        """The JSON form: `{"secrecy": [[grant, ...], ...], "influence": [source, ...]}`, sorted."""
        return {
            "secrecy": sorted([sorted(acl) for acl in self.secrecy]),
            "influence": sorted(self.influence),
        }

    @classmethod
    def from_json(cls, value: LabelJson) -> Self:
        """Read back what `to_json` wrote."""
        return cls(frozenset(ACL(acl) for acl in value["secrecy"]), frozenset(value["influence"]))

    def may_flow_to(self, grants: Grants) -> bool:
        """Whether somebody who holds `grants` may receive the value: every ACL admits them."""
        return all(not acl.isdisjoint(grants) for acl in self.secrecy)


BOTTOM: Final = Label()
"""Public and uninfluenced: the label of a constant in the program."""


def join(labels: Iterable[Label]) -> Label:
    """The least label at least as strict as every one of `labels`; `BOTTOM` for none."""
    each = list(labels)
    if len(each) == 1:
        return each[0]
    return Label(_OPEN.union(*[x.secrecy for x in each]), _NOBODY.union(*[x.influence for x in each]))


class Labelled(NamedTuple, Generic[T_co]):
    """A value together with its label."""

    value: T_co
    label: Label
