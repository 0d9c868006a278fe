"""What embedders and rerankers elsewhere take is within the budgets of a run; what this process computes is free."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest

from ringwall import ACL, App, Budget, Pipeline, Principal, Rules, ScriptedModel
from ringwall.data import Rerank, Stage
from ringwall.deployment import Spender
from ringwall.errors import BudgetReached, ProviderUnavailable
from ringwall.model.base import Price
from ringwall.steps import Agent, Answer, Compose, Personalize, Retrieve
from tests.scenes import ANA

RULES = """
allow role:guest ask app:app
grant model:* collection:questions
grant embedder:* collection:questions
grant reranker:* collection:questions
"""
QUESTION = "Is there trout?"


class Far:
    """An embedder elsewhere, at 20 dollars a million tokens."""

    principal: Principal | None = Principal("embedder:far")
    price = Price(prompt=20.0)

    def __init__(self) -> None:
        self.sent = 0

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0, 0.0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        self.sent += 1
        return [1.0, 0.0]


class Counting(Far):
    """Says what a question took."""

    async def aembed_counted(self, text: str) -> tuple[list[float], int]:
        await asyncio.sleep(0)
        return self.embed_query(text), 5


class Here(Counting):
    principal = None


class Unreachable(Far):
    def embed_query(self, text: str) -> list[float]:
        raise ProviderUnavailable("nobody is there")


class FarReranker:
    principal = Principal("reranker:far")

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        return [1.0 for _ in texts]


async def house(embeddings: Far, *budgets: Budget, stages: Sequence[Stage] = ()) -> App:
    steps = Pipeline(Personalize, partial(Retrieve, stages=stages), Compose, Agent, Answer)
    model = ScriptedModel(lambda request: "here")
    app = App(policy=Rules(RULES), model=model, embeddings=embeddings, budgets=budgets, pipeline=steps)
    await app.ingest([("menu", "trout and bread")], ACL.of("public"))
    return app


async def spent(app: App, budget: Budget, provider: str = "embedder:far") -> Any:
    return await app.budgets.spent(budget.name, Spender("", ANA, provider))


@pytest.mark.parametrize(("unit", "expected"), [("tokens", 5), ("money", 5 * 20.0 / 1e6)])
async def test_a_question_is_charged_what_its_embedder_says_that_it_took(unit: Any, expected: float) -> None:
    budget = Budget(1000, unit, per="provider")
    app = await house(Counting(), budget)
    await app.ask(QUESTION, as_=ANA)
    assert await spent(app, budget) == (pytest.approx(expected), 0)


async def test_a_question_of_which_nobody_says_what_it_took_is_charged_what_was_reserved() -> None:
    budget = Budget(1000, "tokens", per="provider")
    app = await house(Far(), budget)
    done = await app.ask(QUESTION, as_=ANA)
    charged, reserved = await spent(app, budget)
    assert charged >= len(QUESTION)
    assert reserved == 0
    assert "budget.guessed" in [event.kind for event in await app.events(done.run, as_=ANA)]


async def test_a_question_that_would_pass_a_budget_is_not_sent_and_stops_the_run() -> None:
    far = Counting()
    app = await house(far, Budget(len(QUESTION) - 1, "tokens", per="provider", of="embedder:*"))
    with pytest.raises(BudgetReached):
        await app.ask(QUESTION, as_=ANA)
    assert far.sent == 0


async def test_runs_at_once_never_pass_a_budget_together() -> None:
    far, budget = Counting(), Budget(200, "tokens", per="provider", of="embedder:*")
    app = await house(far, budget)
    asked = await asyncio.gather(*(app.ask(QUESTION, as_=ANA) for _ in range(60)), return_exceptions=True)
    refused = [result for result in asked if isinstance(result, BudgetReached)]
    assert far.sent == 60 - len(refused)
    assert refused
    assert await spent(app, budget) == (5 * far.sent, 0)


async def test_an_embedder_that_cannot_be_reached_costs_nothing() -> None:
    budget = Budget(1000, "tokens", per="provider")
    app = await house(Unreachable(), budget)
    with pytest.raises(ProviderUnavailable):
        await app.ask(QUESTION, as_=ANA)
    assert await spent(app, budget) == (0, 0)


async def test_what_is_embedded_here_costs_nothing() -> None:
    budget = Budget(1, "tokens", per="provider", of="embedder:*")
    here = Here()
    app = await house(here, budget)
    await app.ask(QUESTION, as_=ANA)
    assert here.sent == 1
    assert await spent(app, budget) == (0, 0)


async def test_a_reranker_elsewhere_is_charged_the_question_with_each_passage() -> None:
    budget = Budget(10_000, "tokens", per="provider", of="reranker:*")
    app = await house(Here(), budget, stages=[Rerank(FarReranker())])
    await app.ask(QUESTION, as_=ANA)
    charged, reserved = await spent(app, budget, "reranker:far")
    assert charged >= len(QUESTION + "trout and bread")
    assert reserved == 0
