"""LangChain and LangGraph: an LCEL chain for the RAG run, `create_agent` for the agent turn, without and with
`SqliteSaver`; async in bursts alone, since it costs more.

The durable turns are measured at both settings that write a checkpoint at every step: `async`, the default,
which saves a step while the next one already runs, and `sync`, which saves it before.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

os.environ["LANGSMITH_TRACING"] = "false"

from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.tools import StructuredTool
from langgraph.checkpoint.sqlite import SqliteSaver

import scene
from harness import OpenRun, Run, ready
from subject import serve

PROMPT = ChatPromptTemplate.from_messages([("user", "Answer from context:\n{context}\n\nQuestion: {question}")])


class NullRetriever(BaseRetriever):
    """Returns all documents."""

    documents: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return list(self.documents)

    async def _aget_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return list(self.documents)


class NullModel(BaseChatModel):
    """Proposes the tool when offered one, then answers; `sleep` seconds each."""

    sleep: float = 0.0

    @property
    def _llm_type(self) -> str:
        return "null"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Runnable:
        return self.bind(tools=[{"name": tool.name} for tool in tools])

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any):
        return result(reply(messages, kwargs.get("tools")))

    async def _agenerate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any):
        await asyncio.sleep(self.sleep)
        return result(reply(messages, kwargs.get("tools")))


def reply(messages: list[BaseMessage], tools: object) -> AIMessage:
    if tools and not isinstance(messages[-1], ToolMessage):
        call = {"name": scene.TOOL_NAME, "args": dict(scene.TOOL_ARGUMENTS), "id": scene.CALL_ID}
        return AIMessage(content="", tool_calls=[call])
    return AIMessage(content=scene.ANSWER)


def result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def joined(documents: list[Document]) -> str:
    return scene.context([document.page_content for document in documents])


def chain(*, sleep: float) -> Runnable:
    retriever = NullRetriever(documents=[Document(page_content=text) for text in scene.DOCUMENTS])
    inputs = {"context": retriever | joined, "question": RunnablePassthrough()}
    return inputs | PROMPT | NullModel(sleep=sleep) | StrOutputParser()


def rag() -> Run:
    built = chain(sleep=0.0)
    return lambda: built.invoke(scene.QUESTION)


def sleeping_rag() -> Run:
    built = chain(sleep=scene.MODEL_SLEEP_S)
    return lambda: built.ainvoke(scene.QUESTION)


async def weather(city: str) -> str:
    return scene.weather(city)


def tool_agent(*, sleep: float = 0.0, checkpointer: SqliteSaver | None = None) -> Any:
    tool = StructuredTool.from_function(
        scene.weather, coroutine=weather, name=scene.TOOL_NAME, description=scene.TOOL_DESCRIPTION
    )
    return create_agent(NullModel(sleep=sleep), [tool], checkpointer=checkpointer)


def question() -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": scene.QUESTION}]}


def agent() -> Run:
    built = tool_agent()
    return lambda: built.invoke(question())["messages"][-1].content


def sleeping_agent() -> Run:
    built = tool_agent(sleep=scene.MODEL_SLEEP_S)

    async def run() -> str:
        return (await built.ainvoke(question()))["messages"][-1].content

    return run


@asynccontextmanager
async def durable_agent(synchronous: str, durability: str) -> AsyncIterator[Run]:
    with tempfile.TemporaryDirectory() as folder, closing(connect(Path(folder), synchronous)) as connection:
        built = tool_agent(checkpointer=SqliteSaver(connection))
        threads = itertools.count()

        def run() -> str:
            config = {"configurable": {"thread_id": str(next(threads))}}
            return built.invoke(question(), config, durability=durability)["messages"][-1].content

        yield run


def connect(folder: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(folder / "checkpoints.db", check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(f"PRAGMA synchronous={synchronous}")
    return connection


def durable_agents() -> dict[str, OpenRun]:
    return {
        f"agent_sqlite_{synchronous.lower()}{suffix}": partial(durable_agent, synchronous, durability)
        for synchronous in ("NORMAL", "FULL")
        for durability, suffix in (("async", ""), ("sync", "_before_next_step"))
    }


if __name__ == "__main__":
    serve(
        runs={"rag": ready(rag), "agent": ready(agent), **durable_agents()},
        bursts={"rag": ready(sleeping_rag), "agent": ready(sleeping_agent)},
        packages=["langchain", "langchain-core", "langgraph", "langgraph-checkpoint-sqlite"],
    )
