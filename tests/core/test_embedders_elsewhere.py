"""In a run, an embedder or reranker elsewhere is asked about like a hosted model; a no is an event, not a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

import pytest

from ringwall import ACL, App, Pipeline, Principal, Rules, ScriptedModel
from ringwall.data import Rerank, Rewriter, Stage
from ringwall.deployment.journal import InMemoryJournal
from ringwall.deployment.runlog import event_body
from ringwall.personalization import Profile
from ringwall.steps import Agent, Answer, Compose, Personalize, Retrieve

ANA = Principal.user("ana", tenant="acme")
ASKING: Final = "allow user:* ask app:app\n"
MAY_HEAR_QUESTIONS: Final = ASKING + "grant embedder:far collection:questions in acme\n"
DOCUMENTS: Final = [("menu", "the trout is fried"), ("cellar", "a wine from the valley")]


class Far:
    """An embedder elsewhere, which for each text it is sent looks what the journal says by then."""

    principal = Principal("embedder:far")

    def __init__(self, journal: InMemoryJournal) -> None:
        self._journal = journal
        self.sent: list[str] = []
        self.journaled: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float("wine" in text), 1.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        raise AssertionError("it can wait without a thread")

    async def aembed_query(self, text: str) -> list[float]:
        self.sent.append(text)
        (record,) = await self._journal.runs()
        self.journaled.append([event.kind for event in await self._journal.read(record.run)])
        return [float("drink" in text), 0.0]


class Backwards:
    """A reranker elsewhere that likes the last best."""

    principal = Principal("reranker:far")

    def __init__(self) -> None:
        self.sent: list[str] = []

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        self.sent += [question, *texts]
        return [float(place) for place in range(len(texts))]


class House:
    """An app with an embedder elsewhere, filled, and what came of a question."""

    def __init__(self, rules: str, stages: Sequence[Stage] = (), rewriter: Rewriter | None = None) -> None:
        journal = InMemoryJournal()
        self.far = Far(journal)
        retrieve = partial(Retrieve, stages=stages, rewriter=rewriter)
        self.app = App(
            policy=Rules(rules),
            model=ScriptedModel(lambda request: "here"),
            embeddings=self.far,
            journal=journal,
            pipeline=Pipeline(Personalize, retrieve, Compose, Agent, Answer),
        )

    async def ask(self, question: str) -> tuple[list[str], list[tuple[str, str]]]:
        """The documents that were found, and who was allowed or denied to receive something."""
        await self.app.ingest(DOCUMENTS, ACL.of("public"), tenant="acme")
        done = await self.app.ask(question, as_=ANA)
        events = await self.app.events(done.run, as_=ANA)
        flows = [(e.kind, event_body(e)["receiver"]) for e in events if e.kind.startswith("flow.")]
        return [citation.document.removeprefix("acme::") for citation in done.citations], flows


async def test_a_question_leaves_once_the_journal_says_that_it_may() -> None:
    house = House(MAY_HEAR_QUESTIONS)
    found, flows = await house.ask("What is there to drink?")
    assert found[0] == "cellar"
    assert house.far.sent == ["What is there to drink?"]
    assert flows == [("flow.allowed", "embedder:far")]
    assert house.far.journaled == [["run.started", "flow.allowed"]]


@pytest.mark.parametrize("rules", [ASKING, MAY_HEAR_QUESTIONS.replace("acme", "zeta")])
async def test_a_question_that_may_not_leave_is_searched_for_by_its_words(rules: str) -> None:
    house = House(rules)
    found, flows = await house.ask("Is there trout?")
    assert found == ["menu"]
    assert house.far.sent == []
    assert flows == [("flow.denied", "embedder:far")]


async def test_other_wordings_could_be_made_of_all_that_the_run_has_read() -> None:
    async def rewriter(question: str) -> list[str]:
        return ["fried trout"]

    house = House(MAY_HEAR_QUESTIONS, rewriter=rewriter)
    await house.app.profiles.put(ANA, Profile(ANA.own_grant, preferences=("no fish",)))
    found, flows = await house.ask("What is there to drink?")
    assert sorted(found) == ["cellar", "menu"]
    assert house.far.sent == ["What is there to drink?"]
    assert flows == [("flow.allowed", "embedder:far"), ("flow.denied", "embedder:far")]


async def test_a_reranker_elsewhere_is_sent_passages_that_it_may_read() -> None:
    for grant, order in (("", ["menu", "cellar"]), ("grant reranker:far collection:questions", ["cellar", "menu"])):
        reranker = Backwards()
        house = House(ASKING + grant, stages=[Rerank(reranker)])
        found, flows = await house.ask("fried trout from the valley")
        assert found == order
        assert len(reranker.sent) == (3 if grant else 0)
        assert flows == [("flow.denied", "embedder:far"), (f"flow.{'allowed' if grant else 'denied'}", "reranker:far")]


async def test_a_document_is_ingested_if_the_policy_lets_its_embedder_read_it() -> None:
    async def report(readers: str, tenant: str) -> int:
        house = House(ASKING + "grant embedder:far collection:hr in acme")
        return len((await house.app.ingest(DOCUMENTS, ACL.of(readers), tenant=tenant)).ingested)

    cases = [("public", ""), ("collection:hr", "acme"), ("collection:hr", ""), ("role:staff", "acme")]
    assert await asyncio.gather(*(report(*case) for case in cases)) == [2, 2, 0, 0]
