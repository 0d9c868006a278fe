"""Ringwall: LLM applications that stay within their authority.

The names below are the public ones; each is imported when it is first used, so that `import ringwall` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ringwall.app import App
    from ringwall.container import Wiring
    from ringwall.data.memory import MemoryStore
    from ringwall.deployment.approvals import Approval
    from ringwall.deployment.base import Decision, Policy, Verdict
    from ringwall.deployment.budgets import Budget, Budgets, Rate
    from ringwall.deployment.journal import InMemoryJournal, Journal, RunStatus
    from ringwall.deployment.rules import Rules
    from ringwall.interface.base import CallContext, Effect, Tool
    from ringwall.interface.functions import tool
    from ringwall.label import Label, Labelled
    from ringwall.model.scripted import ScriptedModel, call
    from ringwall.personalization.compose import PromptTemplate
    from ringwall.pipeline import Pipeline, Step
    from ringwall.principal import ACL, PUBLIC, Principal
    from ringwall.runs import RunResult
    from ringwall.turn import Citation, Turn

_HOMES = {
    "ACL": "principal",
    "App": "app",
    "Approval": "deployment.approvals",
    "Budget": "deployment.budgets",
    "Budgets": "deployment.budgets",
    "CallContext": "interface.base",
    "Citation": "turn",
    "Decision": "deployment.base",
    "Effect": "interface.base",
    "InMemoryJournal": "deployment.journal",
    "Journal": "deployment.journal",
    "Label": "label",
    "Labelled": "label",
    "MemoryStore": "data.memory",
    "PUBLIC": "principal",
    "Pipeline": "pipeline",
    "Policy": "deployment.base",
    "Principal": "principal",
    "PromptTemplate": "personalization.compose",
    "Rate": "deployment.budgets",
    "Rules": "deployment.rules",
    "RunResult": "runs",
    "RunStatus": "deployment.journal",
    "ScriptedModel": "model.scripted",
    "Step": "pipeline",
    "Tool": "interface.base",
    "Turn": "turn",
    "Verdict": "deployment.base",
    "Wiring": "container",
    "call": "model.scripted",
    "tool": "interface.functions",
}

__all__ = [
    "ACL",
    "PUBLIC",
    "App",
    "Approval",
    "Budget",
    "Budgets",
    "CallContext",
    "Citation",
    "Decision",
    "Effect",
    "InMemoryJournal",
    "Journal",
    "Label",
    "Labelled",
    "MemoryStore",
    "Pipeline",
    "Policy",
    "Principal",
    "PromptTemplate",
    "Rate",
    "Rules",
    "RunResult",
    "RunStatus",
    "ScriptedModel",
    "Step",
    "Tool",
    "Turn",
    "Verdict",
    "Wiring",
    "call",
    "tool",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
