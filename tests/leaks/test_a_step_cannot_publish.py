"""What a run has read cannot leave by way of a document, a profile, or an old answer."""

from __future__ import annotations

import pytest

from ringwall import ACL, App, Label, Pipeline, Principal, Rules, ScriptedModel, Turn, call, tool
from ringwall.data.base import DocumentStore
from ringwall.errors import FlowDenied
from ringwall.personalization import Profile, ProfileStore
from ringwall.steps import Agent, Compose, Retrieve
from tests.scenes import ANA, BEN, RULES, chunk, library

SECRET = "The cellar code is swordfish."
MAY_WRITE = RULES + "\nallow user:* write documents\nallow doc:* write documents"


class Publish:
    def __init__(self, store: DocumentStore) -> None:
        self.store = store

    async def __call__(self, turn: Turn) -> Turn:
        await self.store.upsert([chunk(turn.matches[0].chunk.text, "public", document="copy.md")])
        return turn


class KeepInProfile:
    def __init__(self, profiles: ProfileStore) -> None:
        self.profiles = profiles

    async def __call__(self, turn: Turn) -> Turn:
        note = turn.matches[0].chunk.text
        await self.profiles.put(turn.principal, Profile(turn.principal.own_grant, preferences=(note,)))
        return turn


class KeepAnswer:
    def __init__(self, profiles: ProfileStore) -> None:
        self.profiles = profiles

    async def __call__(self, turn: Turn) -> Turn:
        await self.profiles.put(turn.principal, Profile(turn.principal.own_grant, preferences=(turn.answer,)))
        return turn


@pytest.mark.parametrize("step", [Publish, KeepInProfile])
async def test_a_step_cannot_write_down_what_the_run_has_read_for_wider_readers(step: type) -> None:
    documents = await library(chunk(SECRET, "role:staff"))
    model = ScriptedModel(["hi"])
    pipeline = Pipeline(Retrieve, step)
    async with App(policy=Rules(MAY_WRITE), model=model, documents=documents, pipeline=pipeline) as app:
        with pytest.raises(FlowDenied):
            await app.ask("cellar code", as_=BEN)


async def test_a_profile_takes_no_secret_though_nobody_influenced_it() -> None:
    @tool(effect="read", label=Label.of(ACL.of("role:staff")))
    async def peek() -> str:
        """Look into the cellar."""
        return SECRET

    model, pipeline = ScriptedModel([call("peek"), SECRET]), Pipeline(Compose, Agent, KeepAnswer)
    async with App(policy=Rules(RULES), model=model, tools=[peek], pipeline=pipeline) as app:
        with pytest.raises(FlowDenied):
            await app.ask("look", as_=ANA)
        assert not await app.profiles.get(ANA)


async def test_a_finished_answer_is_not_given_again_after_a_revocation() -> None:
    dora = Principal.user("dora")
    member = "\nmember user:dora role:guest"
    rules = Rules(RULES + member + "\nmember user:dora role:staff")
    documents = await library(chunk(SECRET, "role:staff"))
    pipeline = Pipeline(Retrieve, Compose, Agent)
    async with App(policy=rules, model=ScriptedModel(["swordfish"]), documents=documents, pipeline=pipeline) as app:
        run = (await app.ask("cellar code", as_=dora)).run
        assert (await app.resume(run)).text == "swordfish"
        rules.replace(RULES + member)
        with pytest.raises(FlowDenied):
            await app.resume(run)
