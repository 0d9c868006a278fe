"""The gates of one run with guards or budgets: which stands before which.

A budget stands outermost, so that what a gate or a guard refuses costs nothing; guards stand as `guarded` says.
"""

from __future__ import annotations

from functools import partial

from ringwall.data.receiving import Sending, nobody_counts
from ringwall.deployment.budgetgate import BudgetedModel, BudgetedTools, budgeted_sending
from ringwall.deployment.budgets import Budgets
from ringwall.deployment.gates import GatedModel
from ringwall.deployment.guarded import GuardedArguments, GuardedModel, GuardedResults
from ringwall.deployment.guarding import RunGuards
from ringwall.deployment.metering import Meter
from ringwall.deployment.runlog import RunLog
from ringwall.deployment.toolgate import GatedTools
from ringwall.interface.base import ToolRunner
from ringwall.model.base import ModelProvider


class RunGates:
    """Puts the gates of one run in front of its models and its tools: one meter for all of them."""

    def __init__(self, log: RunLog, guards: RunGuards | None, budgets: Budgets | None) -> None:
        self._log, self._guards, self._budgets = log, guards, budgets
        self._meter = None if budgets is None else Meter(budgets, log)

    def model(self, provider: ModelProvider) -> ModelProvider:
        """The gates in front of a provider."""
        gated = GatedModel(provider if self._guards is None else GuardedModel(provider, self._guards), self._log)
        if self._budgets is None or self._meter is None:
            return gated
        return BudgetedModel(gated, self._budgets, self._meter, self._log)

    @property
    def sending(self) -> Sending:
        """What counts the texts that go to embedders and rerankers elsewhere."""
        if self._budgets is None or self._meter is None:
            return nobody_counts
        return partial(budgeted_sending, self._budgets, self._meter, self._log)

    def tools(self, runner: ToolRunner) -> ToolRunner:
        """The gates in front of the tools."""
        gated = self._gated(runner)
        return gated if self._meter is None else BudgetedTools(gated, self._meter, self._log)

    def _gated(self, runner: ToolRunner) -> ToolRunner:
        guards, log = self._guards, self._log
        if guards is None:
            return GatedTools(runner, log)
        return GuardedArguments(GatedTools(GuardedResults(runner, guards), log), log, guards)


__all__ = ["RunGates"]
