"""Whatever the documents, their readers, the asker and the policy: an embedder or reranker elsewhere is sent what it
may read, through every door: ingestion, questions, rewriters, reranking, copies, and LangChain's face.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from ringwall import App, Pipeline, Principal, Rules, ScriptedModel
from ringwall.data import CachedEmbeddings, Ingestor, MemoryStore, Rerank, Retriever
from ringwall.data.care import copy
from ringwall.deployment.gates import QUESTIONS
from ringwall.errors import FlowDenied
from ringwall.personalization import Memory
from ringwall.principal import Grants
from ringwall.steps import Agent, Answer, Compose, Personalize, Retrieve
from ringwall.turn import Turn
from ringwall.vectorstore import RingwallVectorStore
from tests.leaks.world import CLUBS, Secret, Words, World, words_in, words_of

EMBEDDER, RERANKER = "embedder:far", "reranker:far"
CLUB_SETS = st.sampled_from([frozenset(some) for n in range(len(CLUBS) + 1) for some in combinations(CLUBS, n)])
NOTHING = st.just(frozenset[str]())
HELD = st.builds(frozenset.union, CLUB_SETS, st.sampled_from([frozenset[str](), frozenset((QUESTIONS,))]))
READERS = st.frozensets(st.sampled_from(["public", "user:ana", *CLUBS]), min_size=1, max_size=2)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Somebody of each of two tenants, documents of both, and what everybody holds."""
    tenants = draw(st.sampled_from([("", ""), ("acme", "zeta"), ("acme", "")]))
    people = tuple(Principal(name, tenant) for name, tenant in zip(("user:ana", "user:zoe"), tenants, strict=True))
    texts = draw(st.lists(st.tuples(READERS, st.sampled_from(tenants)), min_size=1, max_size=4))
    documents = tuple(Secret(f"secret-{number}", *text) for number, text in enumerate(texts))
    held = {who: draw(CLUB_SETS) for who in people}
    for name in (EMBEDDER, RERANKER):
        everywhere = draw(HELD) if "" in tenants else frozenset()  # a line without a tenant holds in each of them
        held |= {Principal(name, tenant): everywhere | draw(HELD if tenant else NOTHING) for tenant in set(tenants)}
    return World(people, documents, held)


class Far:
    """Takes down each text that it is sent, as what it embeds or ranks."""

    def __init__(self, name: str) -> None:
        self.principal = Principal(name)
        self.sent: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.sent.append(text)
        return [1.0, float(len(text))]

    def scores(self, question: str, texts: Sequence[str]) -> list[float]:
        self.sent += (question, *texts)
        return [float(len(text)) for text in texts]


class Onwards:
    """A step that goes on searching with all that was found: in one question, and in many wordings."""

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever

    async def __call__(self, turn: Turn) -> Turn:
        read = [match.chunk.text for match in turn.matches] + [memory.text for memory in turn.memories]

        async def rewriter(question: str) -> list[str]:
            return read

        await self._retriever.retrieve(" ".join((turn.question.value, *read)), turn.grants)
        await self._retriever.retrieve(turn.question.value, turn.grants, rewriter=rewriter)
        return turn


class Play:
    """A world as an app whose embedder and reranker are elsewhere, and all that they are sent."""

    def __init__(self, world: World, *, cached: bool) -> None:
        self.world, self.embedder, self.reranker = world, Far(EMBEDDER), Far(RERANKER)
        self.cache = CachedEmbeddings(self.embedder, ":memory:", model="far")
        self.embeddings = self.cache if cached else self.embedder
        retrieve = partial(Retrieve, k=9, stages=(Rerank(self.reranker),))
        self.app = App(
            policy=Rules(world.rules),
            model=ScriptedModel(lambda request: "nothing"),
            embeddings=self.embeddings,
            pipeline=Pipeline(partial(Personalize, k=9), retrieve, Onwards, Compose, Agent, Answer),
        )

    def may_read(self, far: Far, secret: Secret) -> bool:
        return self.world.may_read(Principal(far.principal.id, secret.tenant), secret)

    def readable(self, far: Far, secrets: Sequence[Secret]) -> Words:
        return words_of(secret for secret in secrets if self.may_read(far, secret))

    async def ingest(self) -> None:
        for secret in self.world.documents:
            report = await self.app.ingest([(f"{secret.word}.md", secret.text)], secret.acl, tenant=secret.tenant)
            assert bool(report.ingested) == self.may_read(self.embedder, secret)
            assert all(isinstance(refused.error, FlowDenied) for refused in report.refused)
        assert words_in(*self.embedder.sent) == self.readable(self.embedder, self.world.documents)

    async def ask(self, who: Principal) -> None:
        question = Secret(f"secret-question-{who.id[5:]}", frozenset((who.id, QUESTIONS)), who.tenant)
        memory = Secret(f"secret-memory-{who.id[5:]}", frozenset((who.id,)), who.tenant)
        await self.app.memories.add(who, [Memory("1", who.own_grant, memory.text, memory.label(who.id))])
        for far in (self.embedder, self.reranker):
            far.sent.clear()
        await self.app.ask(question.text, as_=who)
        known = (question, memory, *self.world.documents)
        for far in (self.embedder, self.reranker):
            assert words_in(*far.sent) <= self.readable(far, known)
        assert (question.text in self.embedder.sent) == self.may_read(self.embedder, question)

    async def copy_and_show(self, tenant: str) -> None:
        """Doors without a run, opened by the grants of one tenant."""
        self.embedder.sent.clear()
        holds = await self.app.policy.grants(Principal(EMBEDDER, tenant))
        source = MemoryStore()
        for secret in self.world.documents:
            await Ingestor(source).ingest([(secret.word, secret.text)], secret.acl, tenant=secret.tenant)
            await self._show(secret, holds)
        with suppress(FlowDenied):
            await copy(source, MemoryStore(), embeddings=self.embeddings, embedder_holds=holds)
        assert words_in(*self.embedder.sent) <= words_of(s for s in self.world.documents if s.acl.admits(holds))

    async def _show(self, secret: Secret, holds: Grants) -> None:
        shown = RingwallVectorStore(
            MemoryStore(), self.embeddings, readable=holds, readers=secret.acl, embedder_holds=holds
        )
        with suppress(FlowDenied):
            await shown.aadd_texts([secret.text])


@settings(max_examples=150, deadline=None)
@given(world=worlds(), cached=st.booleans())
def test_what_an_embedder_or_reranker_elsewhere_is_sent_it_may_read(world: World, *, cached: bool) -> None:
    play = Play(world, cached=cached)
    with closing(play.cache), play.app as app:
        app.run_sync(play.ingest())
        for who in world.people:
            app.run_sync(play.ask(who))
            app.run_sync(play.copy_and_show(who.tenant))
