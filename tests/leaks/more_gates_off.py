"""Gates around people's answers, plans, budgets, guards and sinks, switched off one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, cast

from ringwall.deployment import approvals, asking, delivery, origins, plandesk, toolgate
from ringwall.deployment.base import Decision, Verdict
from ringwall.deployment.budgets import Amounts, Budget, Budgets, Reservation, Spender
from ringwall.deployment.delivery import Delivery
from ringwall.deployment.desk import ApprovalDesk
from ringwall.deployment.disclosure import Disclosure
from ringwall.deployment.guarding import Passage
from ringwall.deployment.ledger import Charge
from ringwall.deployment.limits import StandingRule
from ringwall.deployment.metering import Meter
from ringwall.deployment.questions import Objection
from ringwall.deployment.sinks import EventSink
from ringwall.deployment.standing import Standing
from ringwall.errors import BudgetReached
from ringwall.interface.meaning import Values, evaluate
from ringwall.label import BOTTOM, Label, Labelled
from ringwall.principal import Grants
from ringwall.schema import JSON
from ringwall_guards import pii
from tests.leaks.gates_off import Off, all_of, nothing, without, yes

LET: Final = Decision(Verdict.ALLOW, "whoever asks", "nobody")


def always(*_: object, **__: object) -> bool:
    return True


def never(*_: object, **__: object) -> bool:
    return False


async def all_is_told(log: object, objections: Sequence[Objection], chosen_by: object) -> list[Disclosure]:
    return [Disclosure(each, LET) for each in objections if each.receiver.startswith("to:")]


async def standing_for_anybody(self: ApprovalDesk, as_: object) -> list[Standing]:
    return await self.rules.all()


def one_purse(self: Spender, per: object) -> str:
    return "everybody"


def without_limit(
    self: Budgets, budget: Budget, spender: Spender, amounts: Amounts, now: float, *, sure: bool
) -> Charge:
    return Charge(self.account(budget, spender, now), amounts[budget.unit], None, sure)


def telling_what_is_spent(reserve: Callable[..., Any]) -> Callable[..., Any]:
    async def reserve_more(self: Meter, spender: Spender, amounts: Amounts, *, sure: bool) -> Reservation:
        try:
            return cast(Reservation, await reserve(self, spender, amounts, sure=sure))
        except BudgetReached as error:
            spent, _ = await self._budgets.spent(error.budget, spender)
            raise BudgetReached(error.budget, limit=error.limit, asked=spent) from None

    return reserve_more


async def passes(self: Passage, tally: object, text: str, **_: object) -> str:
    return text


def whoever_guesses(passing: Any, pseudonym: str) -> str:
    return str(passing.kept.get(pseudonym, pseudonym))


def held_at_first(held: Callable[..., Any]) -> Callable[..., Any]:
    async def at_first(self: Delivery, sink: EventSink, tenant: str) -> Grants:
        known: dict[str, Grants] = vars(sink).setdefault("known", {})
        if tenant not in known:
            known[tenant] = await held(self, sink, tenant)
        return known[tenant]

    return at_first


def the_first(labels: Iterable[Label]) -> Label:
    return next(iter(labels))


def taken_from_nobody(origin: Any, known: Values) -> Labelled[JSON]:
    return Labelled(evaluate(origin, known).value, known.words)


MORE_OFF: Final[dict[str, Off]] = {
    "anybody declassifies": without(approvals, "_may_lift", nothing),
    "what flows is not asked about": without(toolgate, "is_lifted", always),
    "a yes holds for ever": all_of(without(asking, "is_lapsed", never), without(approvals, "is_lapsed", never)),
    "anybody is told what is mailed": without(toolgate, "disclosures", all_is_told),
    "a rule stands for ever": without(Standing, "is_open", always),
    "a rule that stands covers everything": without(StandingRule, "covers", always),
    "anybody lets a rule stand": without(ApprovalDesk, "_may_stand", nothing),
    "anybody manages the rules that stand": without(ApprovalDesk, "_may_manage", yes),
    "rules that stand are shown to anybody": without(ApprovalDesk, "standing", standing_for_anybody),
    "readings carry nothing": without(plandesk, "join", the_first),
    "what is taken carries nothing": without(origins, "evaluate", taken_from_nobody),
    "everybody has one purse": without(Spender, "key", one_purse),
    "budgets have no limits": without(Budgets, "_charge", without_limit),
    "a budget tells what is spent": without(Meter, "reserve_more", telling_what_is_spent(Meter.reserve_more)),
    "guards let everything pass": without(Passage, "ruled", passes),
    "pseudonyms are put back for whoever guesses": without(pii, "_data_of", whoever_guesses),
    "sinks receive anything": without(delivery, "event_label", lambda draft: BOTTOM),
    "sinks receive what they might at first": without(Delivery, "_held", held_at_first(Delivery._held)),  # noqa: SLF001
    "facts are contents": without(delivery, "facts_of", lambda kind, body: {"body": body}),
}
