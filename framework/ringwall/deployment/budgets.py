"""Budgets and rates: how much of what, for whom, in which time, and where that is counted."""

from __future__ import annotations

import contextlib
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final, Literal, NamedTuple

from ringwall.deployment.ledger import Charge, Hold, InMemoryLedger, Ledger
from ringwall.deployment.limiter import Limiter, Taken
from ringwall.errors import ConfigurationError, StoreError
from ringwall.model.base import ModelInfo, ModelRequest, Price, Usage
from ringwall.principal import Principal
from ringwall.schema import canonical

Unit = Literal["tokens", "money", "seconds", "calls", "rounds"]
"""What is counted: tokens of prompts and answers, US dollars, seconds in which a model or a tool works, tool calls,
requests to a model."""

Per = Literal["run", "principal", "tenant", "provider"]
"""Whose budget it is: each of these has one of its own."""

Period = Literal["", "day", "month"]
"""When it begins anew: never, or at midnight UTC of each day or of each month's first."""

SCALE: Final[Mapping[str, int]] = {"tokens": 1, "money": 10**9, "seconds": 10**6, "calls": 1, "rounds": 1}
"""How many of a ledger's whole numbers make one of each unit."""

_UNITS: Final = tuple(SCALE)
_PERS: Final = ("run", "principal", "tenant", "provider")
_FORMATS: Final[Mapping[str, str]] = {"": "", "day": "%Y-%m-%d", "month": "%Y-%m"}
_PER_MESSAGE: Final = 32  # tokens that a chat template may put around a message


@dataclass(frozen=True, slots=True)
class Budget:
    """So much of a unit for each run, principal, tenant or provider, anew in each period.

    `of` is a pattern of those whom it is for: of ids of principals (`user:ana`, in a tenant `acme::user:ana`),
    tenants, or names of providers. A hard one stops what would pass it; one that is not is only told of when it is
    passed. Budgets of one name count together: keep the name apart in apps that share a ledger and not a budget.

    Raises `ConfigurationError` for what cannot be counted.
    """

    limit: float
    unit: Unit
    per: Per = "run"
    every: Period = ""
    of: str = "*"
    hard: bool = True
    name: str = ""

    def __post_init__(self) -> None:
        _check(self.limit, self.unit, self.per, _UNITS)
        if self.every not in _FORMATS or (self.every and self.per == "run"):
            raise ConfigurationError(
                f"a budget per {self.per} that begins anew every {self.every!r}", expected="'', 'day' or 'month'"
            )
        if not self.name:
            of = "" if self.of == "*" else f" {self.of}"
            every = f" a {self.every}" if self.every else ""
            object.__setattr__(self, "name", f"{self.unit} per {self.per}{of}{every}{'' if self.hard else ', soft'}")

    @property
    def scaled(self) -> int:
        """The limit in whole numbers."""
        return round(self.limit * SCALE[self.unit])


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so much of a unit in any so many `seconds`, for each run, principal, tenant or provider.

    Tokens are counted as they are reserved. `of` is as in `Budget`. Raises `ConfigurationError`.
    """

    limit: int
    unit: Literal["tokens", "calls", "rounds"] = "rounds"
    per: Per = "principal"
    seconds: int = 60
    of: str = "*"
    name: str = ""

    def __post_init__(self) -> None:
        _check(self.limit, self.unit, self.per, ("tokens", "calls", "rounds"))
        if self.seconds < 1:
            raise ConfigurationError("a rate in less than a second", expected="whole seconds")
        if not self.name:
            of = "" if self.of == "*" else f" {self.of}"
            object.__setattr__(self, "name", f"{self.unit} per {self.per}{of} in {self.seconds} s")


def _check(limit: float, unit: str, per: str, units: Sequence[str]) -> None:
    if unit not in units:
        raise ConfigurationError(f"nobody counts {unit!r}", expected=f"one of: {', '.join(units)}")
    if per not in _PERS:
        raise ConfigurationError(f"no budget is per {per!r}", expected=f"one of: {', '.join(_PERS)}")
    if unit == "calls" and per == "provider":
        raise ConfigurationError("providers make no tool calls", expected="calls per run, principal or tenant")
    if not (math.isfinite(limit) and 0 <= limit * SCALE[unit] < 2**62):
        raise ConfigurationError(f"a limit of {limit}", expected="a number from 0 up")


@dataclass(frozen=True, slots=True)
class Spender:
    """On whose account something is done; `provider` is empty for a tool call."""

    run: str
    principal: Principal
    provider: str = ""

    def key(self, per: Per) -> str:
        """Whose budget of that kind it is."""
        match per:
            case "run":
                return self.run
            case "principal":
                return self.principal.own_grant
            case "tenant":
                return self.principal.tenant
        return self.provider


Amounts = Mapping[str, int]
"""Units in a ledger's whole numbers."""


class Reservation(NamedTuple):
    """What is reserved, or to be: a charge of the hold for each budget, in the same order."""

    budgets: tuple[Budget, ...]
    hold: Hold


def most_tokens(request: ModelRequest) -> int:
    """What a prompt can have in tokens at most: as many as it has bytes, and some around each message.

    Content that is no text counts without end: a model's window bounds it.
    """
    texts: list[str] = [tool.name + tool.description + canonical(tool.parameters) for tool in request.tools]
    if request.schema is not None:
        texts.append(canonical(request.schema))
    for message in request.messages:
        if not isinstance(message.content, str):
            return 2**31
        texts.append(message.content)
        texts.extend(call["name"] + canonical(call["args"]) for call in getattr(message, "tool_calls", ()))
    around = _PER_MESSAGE * (len(request.messages) + len(request.tools) + 1)
    return around + sum(len(text.encode("utf-8", "surrogatepass")) for text in texts)


@dataclass(frozen=True, slots=True)
class Budgets:
    """The budgets and rates of an app, with the ledger that counts the ones and the limiter that counts the others.

    `lease` is after how many seconds a reservation lapses that nobody settled: longer than any run lasts. `tokens`
    says how many tokens a prompt has, never too few: better than `most_tokens` if it knows the model's tokenizer.
    `now` is the time, in Unix seconds. The ledger and the limiter are closed with the app.

    Raises `ConfigurationError` for two of one name, and for a rate without a limiter.
    """

    rules: Sequence[Budget | Rate]
    ledger: Ledger = field(default_factory=InMemoryLedger)
    limiter: Limiter | None = None
    lease: float = 900.0
    tokens: Callable[[ModelRequest], int] = most_tokens
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f"two budgets are named {name!r}", hint="give them a `name`")
        if self.limiter is None and any(isinstance(rule, Rate) for rule in self.rules):
            raise ConfigurationError(
                "a rate, and nothing that counts it",
                expected="Budgets([...], limiter=...)",
                hint="`ringwall_limits.Limits()` of the extra `ringwall[limits]` counts in memory or in Redis",
            )

    @property
    def budgets(self) -> tuple[Budget, ...]:
        """Those that the ledger counts."""
        return tuple(rule for rule in self.rules if isinstance(rule, Budget))

    def of_reply(self, info: ModelInfo, request: ModelRequest) -> Amounts:
        """What a reply can take at most."""
        usage = Usage(min(self.tokens(request), info.window), request.sampling.max_tokens)
        price = info.price
        dearest = Price(max(price.prompt, price.cached or 0.0), price.completion)
        return {"rounds": 1, "tokens": usage.prompt + usage.completion, "money": money(dearest.of(usage))}

    def of_texts(self, texts: Sequence[str], price: Price) -> Amounts:
        """What an embedder or a reranker can take at most that is sent these; a request of theirs is no round."""
        tokens = sum(_PER_MESSAGE + len(text.encode("utf-8", "surrogatepass")) for text in texts)
        return self.of_tokens(tokens, price)

    def of_tokens(self, tokens: int, price: Price) -> Amounts:
        """What so many tokens of texts are that were embedded or ranked."""
        return {"tokens": tokens, "money": money(price.of(Usage(tokens)))}

    def reservation(self, spender: Spender, amounts: Amounts, *, sure: bool) -> Reservation:
        """What is to be reserved in the ledger, for every budget that counts one of the amounts."""
        now = self.now()
        asked = tuple([b for b in self.budgets if b.unit in amounts and self.counts(b, spender)])
        charges = [self._charge(budget, spender, amounts, now, sure=sure) for budget in asked]
        return Reservation(asked, Hold(secrets.token_hex(12), tuple(charges), now, now + self.lease))

    def _charge(self, budget: Budget, spender: Spender, amounts: Amounts, now: float, *, sure: bool) -> Charge:
        account, limit = self.account(budget, spender, now), budget.scaled if budget.hard else None
        return Charge(account, amounts[budget.unit], limit, sure and budget.unit != "seconds")

    def taken(self, spender: Spender, amounts: Amounts) -> list[tuple[Rate, Taken]]:
        """What is to be taken of every rate that counts one of the amounts."""
        return [
            (rate, Taken(canonical([rate.name, spender.key(rate.per)]), amounts[rate.unit], rate.limit, rate.seconds))
            for rate in self.rules
            if isinstance(rate, Rate) and rate.unit in amounts and self.counts(rate, spender)
        ]

    def counts(self, rule: Budget | Rate, spender: Spender) -> bool:
        """Whether a budget or rate is one of this spender's."""
        if rule.per == "provider" and not spender.provider:
            return False
        return rule.of == "*" or fnmatchcase(spender.key(rule.per), rule.of)

    def account(self, budget: Budget, spender: Spender, at: float) -> str:
        """The account in which a budget is counted at that time."""
        period = datetime.fromtimestamp(at, UTC).strftime(_FORMATS[budget.every]) if budget.every else ""
        return canonical([budget.name, spender.key(budget.per), period])

    async def spent(self, name: str, spender: Spender) -> tuple[float, float]:
        """What was spent of the budget of that name in the present period, and what is reserved, in its unit.

        Raises `ConfigurationError` for a name that no budget has.
        """
        budget = self.named(name)
        now = self.now()
        (balance,) = await self.ledger.balances([self.account(budget, spender, now)], now)
        scale = SCALE[budget.unit]
        return balance.spent / scale, balance.reserved / scale

    def named(self, name: str) -> Budget:
        """The budget of that name. Raises `ConfigurationError`."""
        for budget in self.budgets:
            if budget.name == name:
                return budget
        names = ", ".join(repr(budget.name) for budget in self.budgets)
        raise ConfigurationError(f"no budget is named {name!r}", expected=f"one of: {names}")

    async def finished(self, run: str, principal: Principal) -> None:
        """Forget what a run spent of budgets per run: it is over. A ledger that fails now must not undo that."""
        spender = Spender(run, principal)
        own = [self.account(budget, spender, 0.0) for budget in self.budgets if budget.per == "run"]
        if own:
            with contextlib.suppress(StoreError):
                await self.ledger.drop(own)

    async def close(self) -> None:
        """Close the ledger and the limiter."""
        await self.ledger.close()
        if self.limiter is not None:
            await self.limiter.close()


def money(dollars: float) -> int:
    """Dollars in a ledger's whole numbers, rounded up; to a millionth of one first, which floats may be off by."""
    return math.ceil(round(dollars * SCALE["money"], 6))
