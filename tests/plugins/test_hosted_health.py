"""Whether a hosted model could answer is looked up cheaply, and told without its key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ringwall import App, Rules
from ringwall.errors import ProviderRefused, ProviderUnavailable, RingwallError
from ringwall.model.cache import CachedModel, InMemoryReplies
from tests.plugins.openai_server import Told, http, told
from tests.plugins.test_hosted import KEY, hosted, shown


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


async def looked(server: Told, **options: Any) -> bool:
    model = hosted(server, **options)
    try:
        return await model.check()
    finally:
        await model.close()


async def test_a_server_that_lists_its_models_is_there_and_is_asked_for_nothing_else() -> None:
    async with told(http(200, {"data": []})) as server:
        assert await looked(server)
    ((asked),) = server.asked
    assert (asked.path, asked.headers["authorization"], asked.body) == ("/v1/models", f"Bearer {KEY}", {})


@pytest.mark.parametrize("status", [404, 405])
async def test_of_a_server_without_a_list_nothing_can_be_told(status: int) -> None:
    async with told(http(status)) as server:
        assert not await looked(server)


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, ProviderRefused), (403, ProviderRefused), (429, ProviderUnavailable), (503, ProviderUnavailable)],
)
async def test_what_speaks_against_a_server_is_told_without_the_key_it_repeats(
    status: int, error: type[RingwallError]
) -> None:
    async with told(http(status, {"error": {"message": f"not {KEY}"}})) as server:
        with pytest.raises(error) as caught:
            await looked(server)
    assert len(server.asked) == 1
    assert KEY not in shown(caught.value)


async def test_a_server_that_is_gone_is_told_of_and_one_that_is_silent_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    monkeypatch.setattr("ringwall_hosted.model._LOOK", 0.2)
    async with told(silent) as server:
        with pytest.raises(ProviderUnavailable, match="no answer in time"):
            await looked(server)
    with pytest.raises(ProviderUnavailable, match="no connection") as caught:
        await looked(server)
    assert KEY not in shown(caught.value)


async def test_an_app_whose_hosted_model_is_down_is_not_ready() -> None:
    async with told(http(200, {"data": []})) as server, App(policy=Rules(""), model=hosted(server)) as app:
        assert [part.state for part in (await app.health()).parts if part.part == "model"] == ["ok"]
    async with App(policy=Rules(""), model=CachedModel(hosted(server), InMemoryReplies())) as app:
        report = await app.health()
        (model,) = [part for part in report.parts if part.part == "model"]
    assert (model.state, model.why, report.ready) == ("failed", "ProviderUnavailable", False)
