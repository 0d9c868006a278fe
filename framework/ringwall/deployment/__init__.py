"""The deployment ring: policies, gates, the journal and approvals."""

from ringwall.deployment.approvals import Approval
from ringwall.deployment.base import Decision, Policy, Verdict
from ringwall.deployment.journal import Draft, Event, Head, InMemoryJournal, Inspection, Journal, RunRecord, RunStatus
from ringwall.deployment.rules import Rules
from ringwall.deployment.sinks import EventSink, SinkState, Told

__all__ = [
    "Approval",
    "Decision",
    "Draft",
    "Event",
    "EventSink",
    "Head",
    "InMemoryJournal",
    "Inspection",
    "Journal",
    "Policy",
    "Rules",
    "RunRecord",
    "RunStatus",
    "SinkState",
    "Told",
    "Verdict",
]
