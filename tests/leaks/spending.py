"""Who has had how many calls made: what a budget may say no to, and all that it may tell then."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ringwall import Budget
from ringwall.errors import BudgetReached, LimitReached
from tests.leaks.doing import Clock, Doing, Run
from tests.leaks.witness import Witness

BUDGETS: Final = (
    Budget(4, "calls", per="run"),
    Budget(9, "calls", per="principal", every="day"),
    Budget(14, "calls", per="tenant", every="day"),
)
DAY: Final = 86_400.0


@dataclass
class Spending:
    """Counts the calls that were made within budgets, by whose account they are on; `going` are runs that go on."""

    witness: Witness
    clock: Clock
    made_by: Counter[tuple[str, object]] = field(default_factory=Counter)
    tools: dict[str, list[str]] = field(default_factory=dict)
    going: list[Run] = field(default_factory=list)

    def made(self, doing: Doing, tool: str) -> None:
        """A call was made. No account holds more than its budget."""
        self.tools.setdefault(doing.run, []).append(tool)
        if not doing.budgeted:
            return
        self.made_by.update(self._accounts(doing.run, doing))
        for budget, account in zip(BUDGETS, self._accounts(doing.run, doing), strict=True):
            if self.made_by[account] > budget.limit:
                self.witness.leaks.append(f"tool:{tool} was told more than {budget.name!r} has")

    def hears(self, run: Run, error: Exception) -> None:
        """Somebody's run ended with this error: it tells of its own limits and calls, and of nobody else's."""
        if isinstance(error, LimitReached):
            done = [each.tool for each in error.done if each.status != "refused"]
            if error.run not in ("", run.id) or Counter(done) - Counter(self.tools.get(run.id, [])):
                self.witness.leaks.append(f"{run.who.id} was told of another run by {error!r}")
        if isinstance(error, BudgetReached):
            self.witness.told["budget reached"] += 1
            self._is_its_own(run, error)

    def _is_its_own(self, run: Run, error: BudgetReached) -> None:
        accounts = dict(zip(BUDGETS, self._accounts(run.id, run), strict=True))
        budget = next(budget for budget in BUDGETS if budget.name == error.budget)
        others = sum(accounts[budget] in self._accounts(other.id, other) for other in self.going if other is not run)
        if self.made_by[accounts[budget]] + others < budget.limit:
            self.witness.leaks.append(f"{run.who.id} was told {error.what!r} because of what others did")
        what = f"the budget {budget.name!r} is used up: 1 more could pass {budget.limit}"
        if error.what not in (what, "the run failed; what it had read may not be shown to you"):
            self.witness.leaks.append(f"{run.who.id} was told {error.what!r}")

    def _accounts(self, run: str, whose: Doing | Run) -> Iterator[tuple[str, object]]:
        day = self.clock.now // DAY
        return iter((("run", run), ("principal", (whose.who, day)), ("tenant", (whose.who.tenant, day))))
