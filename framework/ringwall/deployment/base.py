"""The deployment ring: what a policy answers.

A plugin author reads this file alone. Subclass `Policy`, then run `ringwall.deployment.contract` on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ringwall.principal import Grant, Grants, Principal

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


class Verdict(StrEnum):
    """The three answers, mildest first."""

    ALLOW = "allow"
    ASK = "ask"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class Terms:
    """How people are asked, where a rule says `ASK`: as written here unless it says otherwise.

    - `of`: an approver holds one of these grants (written without a tenant); none: whoever may approve the tool.
    - `people`: so many different ones must say yes.
    - `asker`: whether the one who asked may be one of them; without it nobody answers its own question.
    - `within`: seconds in which a question is answered, and after that a yes is used; 0: no end.
    - `then`: grants whose holders may answer too, `after` so many seconds; with `only`, they alone from then on.
    """

    of: frozenset[Grant] = frozenset()
    people: int = 1
    asker: bool = False
    within: float = 0.0
    then: frozenset[Grant] = frozenset()
    after: float = 0.0
    only: bool = False


ORDINARY: Final = Terms()
"""One person who may approve the tool, never the one who asked, at any time."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer of a policy: a value, written down whichever way it went.

    `rule` is the id of the rule that decided, `default` when none matched. Truth is permission:
    only `ALLOW` is true. `terms` matter where the verdict is `ASK`; `also` are other rules that ask about the same
    call because of other sources: each wants its own yes.
    """

    verdict: Verdict
    reason: str
    rule: str = "default"
    terms: Terms = ORDINARY
    also: tuple[Decision, ...] = ()

    def __bool__(self) -> bool:
        return self.verdict is Verdict.ALLOW

    @classmethod
    def no_rule(cls, principal: str, action: str, resource: str) -> Decision:
        """The answer when nothing matched."""
        return cls(Verdict.DENY, f"no rule lets {principal} {action} {resource}")


class Policy(ABC):
    """Says who may do what, and what each principal holds.

    The caller relies on this:

    - nothing matched means `DENY`; a deny beats an ask, an ask beats an allow;
    - the next call sees every change that was acknowledged before it;
    - `version` differs after any change that could alter an answer, so that caches keyed by it never lie;
    - answers are quick (microseconds): compile, do not scan.

    `principal` may be a source that has no account (`doc:menu.md`, `web:example.org`, `tool:read_mail`):
    a value from there may be what caused the action.
    """

    @abstractmethod
    async def decide(
        self, principal: Principal, action: str, resource: str, context: Mapping[str, str] = _NOTHING
    ) -> Decision:
        """Decide whether `principal` may do `action` (`ask`, `call`, `approve`) to `resource` (`tool:book_table`).

        `context` holds facts of the case (`argument.city`), never labels: those the gate quantifies over.
        """

    @abstractmethod
    async def grants(self, principal: Principal) -> Grants:
        """Return all that `principal` holds: `principal.vouched_grants`, inherited roles, collections."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Identifies the present state of the rules."""

    async def close(self) -> None:
        """Release what the policy holds; called once, by the app that opened it."""


__all__ = ["ORDINARY", "Decision", "Policy", "Terms", "Verdict"]
