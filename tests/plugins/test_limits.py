"""Rates counted by the library `limits`, in memory and over the wire in Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from fakeredis import TcpFakeServer

from ringwall import App, Budgets, Principal, Rate, Rules, ScriptedModel
from ringwall.deployment.limiter import Limiter
from ringwall.deployment.limiter_contract import LimiterContract, taken
from ringwall.errors import ConfigurationError, RateReached, StoreError
from ringwall_limits import Limits


@pytest.fixture
def redis() -> Iterator[str]:
    """The URL of a server that speaks Redis's protocol."""
    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    server.shutdown()
    server.server_close()
    thread.join()


class TestLimitsInMemory(LimiterContract):
    @pytest.fixture
    def limiter(self) -> Limiter:
        return Limits()


class TestLimitsInRedis(LimiterContract):
    @pytest.fixture
    def limiter(self, redis: str) -> Limiter:
        return Limits(redis)


async def test_two_limiters_on_one_server_count_together(redis: str) -> None:
    first, second = Limits(redis), Limits(redis)
    assert await first.take([taken("a", 3)]) == 0
    assert await second.take([taken("a", 3)]) > 0
    assert await second.take([taken("a", 2)]) == 0


async def test_a_server_that_is_not_there_stops_what_would_be_counted() -> None:
    with pytest.raises(StoreError, match="could not be counted"):
        await Limits("redis://127.0.0.1:1/0").take([taken("a")])


@pytest.mark.parametrize("url", ["carrier-pigeon://", "nothing"])
def test_where_nobody_can_count_is_refused_when_it_is_said(url: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot count in"):
        Limits(url)


async def test_an_app_lets_pass_what_its_rates_let() -> None:
    rules = Rules("allow role:guest ask app:app")
    budgets = Budgets([Rate(2, "rounds", per="principal", seconds=100_000_000)], limiter=Limits())
    async with App(policy=rules, model=ScriptedModel(["Hello."]), budgets=budgets) as app:
        ana, ben = (Principal.user(name, "guest") for name in ("ana", "ben"))
        for _ in range(2):
            await app.ask("Hello?", as_=ana)
        with pytest.raises(RateReached) as caught:
            await app.ask("Hello?", as_=ana)
        assert caught.value.retry_after > 0
        await app.ask("Hello?", as_=ben)
