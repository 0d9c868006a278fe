"""Health and readiness: each part says how it is, and one that is ill or slow is named."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ringwall import App, InMemoryJournal, Principal, Rules, ScriptedModel, cli
from ringwall.deployment import Decision, Policy, RunRecord
from ringwall.errors import JournalUnavailable, ProviderUnavailable
from ringwall.health import PROBE, PartState
from ringwall.model.health import Breaker
from ringwall.model.router import Router
from ringwall.principal import Grants
from ringwall_sql import SqlJournal
from tests.deployment.test_sinks import Broken
from tests.scenes import ANA, RULES, app_with


class Down(InMemoryJournal):
    async def record(self, run: str) -> RunRecord:
        raise JournalUnavailable("postgresql://ringwall:password@host is gone")


class Slow(Policy):
    async def decide(
        self, principal: Principal, action: str, resource: str, context: Mapping[str, str] = {}
    ) -> Decision:
        raise NotImplementedError

    async def grants(self, principal: Principal) -> Grants:
        await asyncio.sleep(60)
        return frozenset()

    @property
    def version(self) -> str:
        return "1"


@asynccontextmanager
async def opened(**parts: Any) -> AsyncIterator[App]:
    async with app_with(["Yes."], **parts) as app:
        yield app


async def test_an_app_whose_parts_are_well_is_ready(tmp_path: Path) -> None:
    async with opened(journal=SqlJournal(tmp_path / "journal.db")) as app:
        report = await app.health()
    assert report.ready
    states = {part.part: part.state for part in report.parts}
    assert states.pop("model") is PartState.UNKNOWN
    assert set(states.values()) == {PartState.OK}
    assert list(states) == ["policy", "journal", "documents", "profiles", "memories"]


async def test_to_look_leaves_nothing_behind() -> None:
    async with opened() as app:
        await app.health()
        assert await app.journal.runs() == []
        assert not await app.profiles.get(PROBE)


async def test_a_part_that_is_down_is_named_without_what_its_error_says() -> None:
    async with opened(journal=Down()) as app:
        report = await app.health()
    assert not report.ready
    (ill,) = (part for part in report.parts if not part.well)
    assert (ill.part, ill.name, ill.state, ill.why) == ("journal", "Down", PartState.FAILED, "JournalUnavailable")
    assert "password" not in repr(report)


async def test_a_part_that_does_not_answer_is_waited_for_only_so_long() -> None:
    async with App(policy=Slow(), model=ScriptedModel(["Yes."])) as app:
        report = await asyncio.wait_for(app.health(seconds=0.05), 5)
    assert {part.part: part.state for part in report.parts}["policy"] is PartState.TIMED_OUT
    assert not report.ready


class Model(ScriptedModel):
    """Says of itself how it is."""

    def __init__(self, name: str, *, well: bool) -> None:
        def fail(request: object) -> str:
            raise ProviderUnavailable("down", provider=name)

        super().__init__(["Yes."] if well else fail, name=name)
        self._well = well

    async def check(self) -> bool:
        if not self._well:
            raise ProviderUnavailable("down", provider=self.info.name)
        return True


@pytest.mark.parametrize(("well", "ready"), [([True, False], True), ([False, False], False)])
async def test_one_model_that_is_well_is_enough(*, well: list[bool], ready: bool) -> None:
    models = [Model(f"m{number}", well=each) for number, each in enumerate(well)]
    for model in (models, Router(*models)):
        async with App(policy=Rules(RULES), model=model) as app:
            assert (await app.health()).ready is ready


async def test_a_router_whose_every_provider_is_left_alone_is_not_ready() -> None:
    router = Router(Model("down", well=False), breaker=Breaker(failures=1, seconds=60))
    async with App(policy=Rules(RULES), model=router) as app:
        with pytest.raises(ProviderUnavailable):
            await app.ask("Is it?", as_=ANA)
        assert not (await app.health()).ready


async def test_a_sink_that_fails_is_told_of_and_makes_nothing_unready() -> None:
    app = app_with(["Yes."], sinks=[Broken("broken")])
    await app.ask("Is it?", as_=ANA)
    await app.close()
    report = await app.health()
    assert (report.ready, report.sinks[0].name, report.sinks[0].error) == (True, "sink:broken", "OSError")


APP = """
from ringwall import App, Rules, ScriptedModel
from tests.core.test_health import Down
app = App(policy=Rules("allow user:* ask app:app"), model=ScriptedModel(["Yes."]){more})
nothing = 7
"""


def doctor(*words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["ringwall", "doctor", *words])
    with pytest.raises(SystemExit) as left:
        cli.main()
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    return int(left.value.code or 0), said.out, said.err


@pytest.mark.parametrize(("name", "more", "status"), [("well", "", 0), ("ill", ", journal=Down()", 1)])
def test_doctor_looks_at_an_app_of_yours(
    name: str, more: str, status: int, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"{name}_app.py").write_text(APP.format(more=more))
    monkeypatch.chdir(tmp_path)
    code, out, _ = doctor("--app", f"{name}_app:app", "--json", capsys=capsys, monkeypatch=monkeypatch)
    told = json.loads(out)
    assert (code, told["ready"]) == (status, status == 0)
    assert {part["part"] for part in told["parts"]} >= {"policy", "journal", "model"}
    code, out, _ = doctor("--app", f"{name}_app:app", capsys=capsys, monkeypatch=monkeypatch)
    assert (code, "not ready" in out) == (status, status == 1)


@pytest.mark.parametrize("name", ["nowhere:app", "json:nothing", "json", "json:loads", "bad_app:app"])
def test_an_app_that_is_none_is_said_so(
    name: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad_app.py").write_text("raise OSError('no')")
    monkeypatch.chdir(tmp_path)
    status, _, err = doctor("--app", name, capsys=capsys, monkeypatch=monkeypatch)
    assert status == 1
    assert "ConfigurationError" in err
