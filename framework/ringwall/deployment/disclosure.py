"""What the user lets others be told: recipients whom she, or what may speak for her, has chosen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ringwall.deployment.base import Decision
from ringwall.deployment.gates import caused_by
from ringwall.deployment.questions import Objection
from ringwall.deployment.runlog import RunLog
from ringwall.label import Label
from ringwall.schema import JSON


class Disclosure(NamedTuple):
    """A secrecy objection that the policy lifts, and by which rule."""

    objection: Objection
    decision: Decision


async def disclosures(log: RunLog, objections: Sequence[Objection], chosen_by: Label) -> list[Disclosure]:
    """Which objections the policy lifts: it lets whoever chose the recipient `declassify` for `to:<name>`.

    Only what the run's principal may read itself, and only for recipients whom the call names: never for a tool.
    """
    found, holds = list[Disclosure](), await log.policy.grants(log.principal)
    for objection in objections:
        if objection.receiver.startswith("to:") and objection.readers.admits(holds):
            sources = chosen_by.influence | {log.principal.id}
            decision = await caused_by(log, sources, "declassify", objection.receiver)
            if decision:
                found.append(Disclosure(objection, decision))
    return found


def note_disclosures(log: RunLog, call: str, found: Iterable[Disclosure]) -> None:
    """Write down what is told to somebody who does not hold it, and by which rule, before it is."""
    for (receiver, acl), decision in found:
        readers: list[JSON] = [*sorted(acl)]
        rule: dict[str, JSON] = {"rule": decision.rule, "reason": decision.reason}
        log.note("flow.declassified", {"receiver": receiver, "readers": readers, "call": call, **rule})
