"""The deployment ring: policies, gates, the journal and approvals."""

from ringwall.deployment.approvals import Approval
from ringwall.deployment.base import ORDINARY, Decision, Policy, Terms, Verdict
from ringwall.deployment.budgets import Budget, Budgets, Rate, Spender
from ringwall.deployment.desk import ApprovalDesk, Bounds
from ringwall.deployment.journal import Draft, Event, Head, InMemoryJournal, Inspection, Journal, RunRecord, RunStatus
from ringwall.deployment.ledger import Balance, Charge, Hold, InMemoryLedger, Ledger
from ringwall.deployment.limiter import Limiter, Taken
from ringwall.deployment.limits import ANYTHING, Limit, StandingRule
from ringwall.deployment.questions import Objection
from ringwall.deployment.rules import Rules
from ringwall.deployment.sinks import EventSink, SinkState, Told
from ringwall.deployment.standing import Standing

__all__ = [
    "ANYTHING",
    "ORDINARY",
    "Approval",
    "ApprovalDesk",
    "Balance",
    "Bounds",
    "Budget",
    "Budgets",
    "Charge",
    "Decision",
    "Draft",
    "Event",
    "EventSink",
    "Head",
    "Hold",
    "InMemoryJournal",
    "InMemoryLedger",
    "Inspection",
    "Journal",
    "Ledger",
    "Limit",
    "Limiter",
    "Objection",
    "Policy",
    "Rate",
    "Rules",
    "RunRecord",
    "RunStatus",
    "SinkState",
    "Spender",
    "Standing",
    "StandingRule",
    "Taken",
    "Terms",
    "Told",
    "Verdict",
]
