"""The assistant that books dinner: every ring with a real part in it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from booking import booking_tool
from ringwall import App, Pipeline, Policy, Principal, PromptTemplate
from ringwall.data import IngestReport, front_matter_readers, read_folder
from ringwall.model.base import ModelProvider, Sampling
from ringwall.steps import Agent, Answer, Compose, Personalize, Plan, Remember, Retrieve
from ringwall_casbin import CasbinPolicy
from ringwall_chroma import ChromaStore
from ringwall_llama import LlamaCpp
from ringwall_sql import SqlJournal, SqlMemories, SqlProfiles
from ringwall_wordllama import WordLlamaEmbeddings

HERE = Path(__file__).parent

ANA = Principal.user("ana")
BEN = Principal.user("ben")
CARLA = Principal.user("carla")

PROMPT = PromptTemplate(
    name="dinner",
    version="1",
    system="Answer in one short sentence, using only the passages.",
)

PIPELINE = (
    Pipeline(Plan, Personalize)
    | partial(Retrieve, k=2)
    | partial(Compose, template=PROMPT)
    | partial(Agent, sampling=Sampling(max_tokens=48, frequency_penalty=0.6), rounds=3)
    | Answer
    | Remember
)
"""A small model needs a short prompt: two passages, one sentence, and a nudge out of circles."""


def policy() -> Policy:
    """Who may ask, book and approve: see `policy.csv`."""
    return CasbinPolicy.from_files(HERE / "policy.csv")


def build(folder: Path, *, rules: Policy | None = None, model: ModelProvider | None = None) -> App:
    """The app, keeping its documents, journal and bookings in `folder`."""
    return App(
        name="dinner",
        policy=rules or policy(),
        documents=ChromaStore(folder / "documents"),
        embeddings=WordLlamaEmbeddings(),
        model=model or LlamaCpp(context=2048),
        tools=[booking_tool(folder / "bookings.db")],
        journal=SqlJournal(folder / "journal.db"),
        profiles=SqlProfiles(folder / "people.db"),
        memories=SqlMemories(folder / "people.db"),
        pipeline=PIPELINE,
    )


async def ingest(app: App) -> IngestReport:
    """Read the library; each page says at its top who may read it, and one that does not is refused."""
    return await app.ingest(read_folder(HERE / "library"), front_matter_readers)
