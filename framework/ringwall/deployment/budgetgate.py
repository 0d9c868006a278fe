"""The gates that keep a run within its budgets: in front of each model, and in front of the tools."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from ringwall.data.receiving import Took
from ringwall.deployment.budgets import Amounts, Budgets, money
from ringwall.deployment.gates import ModelGate
from ringwall.deployment.metering import Meter, Work
from ringwall.deployment.runlog import CallPhase, CallState, RunLog
from ringwall.errors import BadReply, LimitReached, RingwallError
from ringwall.interface.base import CallContext, CallStatus, PreparedCall, Tool, ToolOutcome, ToolRunner
from ringwall.model.base import Delta, Location, ModelProvider, ModelRequest, Price, Usage
from ringwall.principal import Principal

_NOTHING: Final[Amounts] = {"rounds": 0, "tokens": 0, "money": 0}


class BudgetedModel(ModelGate):
    """Sends a request on only if what the reply can take is within every budget, and charges what it took.

    A reply of which nobody says what it took is charged what was reserved; one that never began, nothing.
    """

    def __init__(self, inner: ModelProvider, budgets: Budgets, meter: Meter, log: RunLog) -> None:
        self._inner, self._budgets, self._meter, self._log = inner, budgets, meter, log

    async def stream(self, request: ModelRequest) -> AsyncGenerator[Delta, None]:
        info = self._inner.info
        amounts = self._budgets.of_reply(info, request)
        spender = self._meter.spender(info.name)
        work = await Work.begin(self._meter, spender, amounts, sure=info.location is Location.REMOTE)
        usage: Usage | None = None
        began = failed = False
        deltas = self._inner.stream(request)
        try:
            while True:
                async with work.timed():
                    delta = await anext(deltas, None)
                if delta is None:
                    break
                began, usage = True, delta.usage or usage
                yield delta
        except RingwallError as error:
            failed = not isinstance(error, BadReply | LimitReached)
            raise
        finally:
            try:
                await deltas.aclose()
            finally:
                await work.end(self._took(usage, idle=failed and not began))

    def _took(self, usage: Usage | None, *, idle: bool) -> Amounts:
        if usage is not None:
            cost = money(self._inner.info.price.of(usage))
            return {"rounds": 1, "tokens": usage.prompt + usage.completion, "money": cost}
        if idle:
            return _NOTHING
        self._log.note("budget.guessed", {"provider": self._inner.info.name})
        return {}


@asynccontextmanager
async def budgeted_sending(
    budgets: Budgets, meter: Meter, log: RunLog, part: object, receiver: Principal, texts: Sequence[str]
) -> AsyncGenerator[Took, None]:
    """Let texts be sent to an embedder or a reranker only if what it can take is within every budget.

    Charged is what it says that it took, at its `price` if it has one; else what was reserved. Who could not be
    reached is charged nothing.
    """
    price = getattr(part, "price", None)
    price = price if isinstance(price, Price) else Price()
    spender = meter.spender(receiver.id)
    work = await Work.begin(meter, spender, budgets.of_texts(texts, price), sure=True)
    told: list[int] = []
    failed = False
    try:
        async with work.timed():
            yield told.append
    except RingwallError as error:
        failed = not isinstance(error, BadReply | LimitReached)
        raise
    finally:
        if not told and not failed:
            log.note("budget.guessed", {"provider": receiver.id})
        await work.end(budgets.of_tokens(sum(told), price) if told or failed else {})


class BudgetedTools(ToolRunner):
    """Lets a call be made only if one more is within every budget; what was only asked for is given back."""

    def __init__(self, inner: ToolRunner, meter: Meter, log: RunLog) -> None:
        self._inner, self._meter, self._log = inner, meter, log

    def tools(self) -> Sequence[Tool]:
        return self._inner.tools()

    async def execute(self, prepared: PreparedCall, context: CallContext) -> ToolOutcome:
        before = self._log.calls.get(prepared.call.id)
        if before is not None and before.phase is CallPhase.FINISHED:
            return await self._inner.execute(prepared, context)
        work = await Work.begin(self._meter, self._meter.spender(), {"calls": 1}, sure=True)
        try:
            async with work.timed():
                return await self._inner.execute(prepared, context)
        finally:
            after = self._log.calls.get(prepared.call.id)
            await work.end({"calls": int(_was_made(before, after))})


def _was_made(before: CallState | None, after: CallState | None) -> bool:
    """Whether a call was made between these two states of it, as far as anybody can tell."""
    if after is None or after is before:
        return False
    if after.outcome is not None:
        return after.outcome.status is not CallStatus.REFUSED
    begun = (CallPhase.STARTED, CallPhase.IN_DOUBT)
    return after.phase in begun and (before is None or before.phase not in begun)
