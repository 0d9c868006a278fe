"""Who would be told something by a call that it may not be told by itself, and whether the user may let it be told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ringwall.deployment.base import Decision, Verdict
from ringwall.deployment.gates import caused_by
from ringwall.deployment.origins import Causes
from ringwall.deployment.runlog import RunLog
from ringwall.interface.base import PreparedCall
from ringwall.principal import ACL, Principal
from ringwall.schema import JSON


@dataclass(frozen=True, slots=True)
class Disclosure:
    """Telling `receiver` what is for `readers` alone, and what the policy says of that."""

    receiver: str
    readers: ACL
    decision: Decision

    @property
    def objection(self) -> str:
        return f"the arguments could tell {self.receiver} what is for {' or '.join(sorted(self.readers))} alone"


async def disclosures(log: RunLog, prepared: PreparedCall, causes: Causes) -> list[Disclosure]:
    """What the recipients named in the call, or else the tool itself, would be told that they do not hold.

    What the run's principal may read itself it may let others be told, if the policy lets whoever chose the recipients
    `declassify` for them.
    """
    if not causes.label.secrecy:
        return []
    tenant, found = log.principal.tenant, []
    named = [f"to:{name}" for name in _recipients(prepared)]
    for receiver in named or [f"tool:{prepared.tool.name}"]:
        grants = await log.policy.grants(Principal(receiver, tenant))
        for readers in sorted(causes.label.secrecy, key=sorted):
            if not readers.admits(grants):
                chosen = bool(named) and readers.admits(await log.policy.grants(log.principal))
                decision = await _decision(log, causes, receiver) if chosen else _NOT_TO_TOOLS
                found.append(Disclosure(receiver, readers, decision))
    return found


async def _decision(log: RunLog, causes: Causes, receiver: str) -> Decision:
    return await caused_by(log, causes.recipients.influence | {log.principal.id}, "declassify", receiver)


def note_disclosures(log: RunLog, call: str, found: Iterable[Disclosure]) -> None:
    """Write down what is told to somebody who does not hold it, and by which rule, before it is."""
    for each in found:
        readers: list[JSON] = [*sorted(each.readers)]
        rule: dict[str, JSON] = {"rule": each.decision.rule, "reason": each.decision.reason}
        log.note("flow.declassified", {"receiver": each.receiver, "readers": readers, "call": call, **rule})


_NOT_TO_TOOLS = Decision(Verdict.DENY, "only recipients whom the call names may be told more than they hold", "flow")


def _recipients(prepared: PreparedCall) -> list[str]:
    """Everybody that the call names, in whatever collection: a receiver that goes unseen is one that is not asked."""
    names: list[str] = []
    for argument in prepared.tool.recipients:
        value = prepared.arguments.get(argument)
        if isinstance(value, Iterable) and not isinstance(value, str):
            names.extend(map(str, value))
        elif value is not None:
            names.append(str(value))
    return names
