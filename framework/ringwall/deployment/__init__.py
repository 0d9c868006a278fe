"""The deployment ring: policies, gates, the journal and approvals."""

from ringwall.deployment.approvals import Approval
from ringwall.deployment.base import ORDINARY, Decision, Policy, Terms, Verdict
from ringwall.deployment.desk import ApprovalDesk, Bounds
from ringwall.deployment.journal import Draft, Event, Head, InMemoryJournal, Inspection, Journal, RunRecord, RunStatus
from ringwall.deployment.limits import ANYTHING, Limit, StandingRule
from ringwall.deployment.questions import Objection
from ringwall.deployment.rules import Rules
from ringwall.deployment.standing import Standing

__all__ = [
    "ANYTHING",
    "ORDINARY",
    "Approval",
    "ApprovalDesk",
    "Bounds",
    "Decision",
    "Draft",
    "Event",
    "Head",
    "InMemoryJournal",
    "Inspection",
    "Journal",
    "Limit",
    "Objection",
    "Policy",
    "Rules",
    "RunRecord",
    "RunStatus",
    "Standing",
    "StandingRule",
    "Terms",
    "Verdict",
]
