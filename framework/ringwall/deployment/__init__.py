"""The deployment ring: policies, gates, the journal and approvals."""

from ringwall.deployment.approvals import Approval
from ringwall.deployment.base import Decision, Policy, Verdict
from ringwall.deployment.budgets import Budget, Budgets, Rate, Spender
from ringwall.deployment.journal import Draft, Event, Head, InMemoryJournal, Inspection, Journal, RunRecord, RunStatus
from ringwall.deployment.ledger import Balance, Charge, Hold, InMemoryLedger, Ledger
from ringwall.deployment.limiter import Limiter, Taken
from ringwall.deployment.rules import Rules
from ringwall.deployment.sinks import EventSink, SinkState, Told

__all__ = [
    "Approval",
    "Balance",
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
    "Limiter",
    "Policy",
    "Rate",
    "Rules",
    "RunRecord",
    "RunStatus",
    "SinkState",
    "Spender",
    "Taken",
    "Told",
    "Verdict",
]
