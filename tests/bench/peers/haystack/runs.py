"""Haystack: a `Pipeline` for the RAG run, an `Agent` for the agent turn; async in bursts alone."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"

from haystack import Document, Pipeline, component
from haystack.components.agents import Agent
from haystack.components.builders import ChatPromptBuilder
from haystack.dataclasses import ChatMessage, ToolCall
from haystack.tools import create_tool_from_function

import scene
from harness import Run, ready
from subject import serve

TEMPLATE = """Answer from context:
{% for document in documents %}{{ document.content }}

{% endfor %}Question: {{ question }}"""


@component
class NullRetriever:
    """Returns all documents."""

    def __init__(self) -> None:
        self.documents = [Document(content=text) for text in scene.DOCUMENTS]

    @component.output_types(documents=list[Document])
    def run(self, query: str) -> dict[str, list[Document]]:
        return {"documents": list(self.documents)}

    @component.output_types(documents=list[Document])
    async def run_async(self, query: str) -> dict[str, list[Document]]:
        return {"documents": list(self.documents)}


@component
class NullModel:
    """Proposes the tool when offered one, then answers; `sleep` seconds each."""

    def __init__(self, sleep: float = 0.0) -> None:
        self.sleep = sleep

    @component.output_types(replies=list[ChatMessage])
    def run(self, messages: list[ChatMessage], tools: list | None = None) -> dict[str, list[ChatMessage]]:
        return {"replies": [reply(messages, tools)]}

    @component.output_types(replies=list[ChatMessage])
    async def run_async(self, messages: list[ChatMessage], tools: list | None = None) -> dict[str, list[ChatMessage]]:
        await asyncio.sleep(self.sleep)
        return {"replies": [reply(messages, tools)]}


def reply(messages: list[ChatMessage], tools: list | None) -> ChatMessage:
    if tools and not messages[-1].tool_call_results:
        call = ToolCall(tool_name=scene.TOOL_NAME, arguments=dict(scene.TOOL_ARGUMENTS), id=scene.CALL_ID)
        return ChatMessage.from_assistant(tool_calls=[call])
    return ChatMessage.from_assistant(scene.ANSWER, meta={"finish_reason": "stop"})


def pipeline(*, sleep: float) -> Pipeline:
    built = Pipeline()
    built.add_component("retriever", NullRetriever())
    template = [ChatMessage.from_user(TEMPLATE)]
    built.add_component("prompt", ChatPromptBuilder(template=template, required_variables=["documents", "question"]))
    built.add_component("model", NullModel(sleep))
    built.connect("retriever.documents", "prompt.documents")
    built.connect("prompt.prompt", "model.messages")
    return built


def question() -> dict[str, Any]:
    return {"retriever": {"query": scene.QUESTION}, "prompt": {"question": scene.QUESTION}}


def rag() -> Run:
    built = pipeline(sleep=0.0)
    return lambda: built.run(question())["model"]["replies"][0].text


def sleeping_rag() -> Run:
    built = pipeline(sleep=scene.MODEL_SLEEP_S)

    async def run() -> str:
        return (await built.run_async(question()))["model"]["replies"][0].text

    return run


def tool_agent(*, sleep: float) -> Agent:
    tool = create_tool_from_function(scene.weather, name=scene.TOOL_NAME, description=scene.TOOL_DESCRIPTION)
    built = Agent(chat_generator=NullModel(sleep), tools=[tool])
    built.warm_up()
    return built


def agent() -> Run:
    built = tool_agent(sleep=0.0)
    return lambda: built.run(messages=[ChatMessage.from_user(scene.QUESTION)])["messages"][-1].text


def sleeping_agent() -> Run:
    built = tool_agent(sleep=scene.MODEL_SLEEP_S)

    async def run() -> str:
        return (await built.run_async(messages=[ChatMessage.from_user(scene.QUESTION)]))["messages"][-1].text

    return run


if __name__ == "__main__":
    logging.getLogger("haystack").setLevel(logging.ERROR)
    serve(
        runs={"rag": ready(rag), "agent": ready(agent)},
        bursts={"rag": ready(sleeping_rag), "agent": ready(sleeping_agent)},
        packages=["haystack-ai"],
    )
