"""Who may see which events of a run: nobody but its owner and auditors, and of each event only what its label lets."""

from __future__ import annotations

from collections.abc import Sequence

from ringwall.deployment.base import Policy
from ringwall.deployment.journal import Event
from ringwall.deployment.runlog import RunLog, event_body, event_label
from ringwall.deployment.sealing import is_erased
from ringwall.errors import Done, LimitReached, RingwallError, RunErased, UnknownRun
from ringwall.principal import TENANT_MARK, Principal


def app_of(events: Sequence[Event]) -> str:
    """The name of the app that a run belongs to; empty for a run that is no app's, as the checkpoints'.

    Raises `RunErased`.
    """
    if is_erased(events):
        raise RunErased(events[0].run)
    first = events[0]
    return str(event_body(first)["app"]) if first.kind == "run.started" else ""


async def readable_events(
    events: Sequence[Event], owner: str, policy: Policy, as_: Principal, *, app: str = ""
) -> list[Event]:
    """The events as far as `as_` may receive them; what it may not is left empty, its place kept.

    Raises `UnknownRun` for whoever neither is the owner nor may `audit` the app, and for the run of another app than
    `app`, if that is given. Whose an erased run was, and which app's, nobody knows: who may audit is told what is left.
    """
    if is_erased(events):
        if not await _may_audit(policy, as_, owner, app or "erased"):
            raise UnknownRun(events[0].run)
        return list(events)
    wanted, app = app, app_of(events)
    if not app or wanted not in ("", app) or (owner != as_.own_grant and not await _may_audit(policy, as_, owner, app)):
        raise UnknownRun(events[0].run)
    grants = await policy.grants(as_)
    return [e if event_label(e).may_flow_to(grants) else e._replace(body="", label="") for e in events]


async def _may_audit(policy: Policy, reader: Principal, owner: str, app: str) -> bool:
    same_tenant = owner.startswith(f"{reader.tenant}{TENANT_MARK}") if reader.tenant else True
    return same_tenant and bool(await policy.decide(reader, "audit", f"app:{app}"))


def tell_what_was_done(error: RingwallError, log: RunLog) -> None:
    """Complete the error of a limit with the run, and what its tools had done.

    Not what they returned: no guard has seen that on its way to whoever asked.
    """
    if isinstance(error, LimitReached):
        calls = log.calls.values()
        error.run = log.run
        error.done = tuple([Done(call.call.tool, str(call.outcome.status)) for call in calls if call.outcome])
