"""Microsoft agent-framework: one `Agent` without tools for the RAG run, one with a tool (all async)."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from agent_framework import (
    Agent,
    BaseChatClient,
    ChatMiddlewareLayer,
    ChatResponse,
    Content,
    FunctionInvocationLayer,
    Message,
    tool,
)

import scene
from harness import Run, ready
from subject import serve


class _NullClient(BaseChatClient):
    sleep = 0.0

    async def _inner_get_response(
        self, *, messages: list[Message], stream: bool, options: dict[str, Any], **kwargs: Any
    ) -> ChatResponse:
        if self.sleep:
            await asyncio.sleep(self.sleep)
        if options.get("tools") and messages[-1].role != "tool":
            return ChatResponse(messages=[Message(role="assistant", contents=[proposal()])])
        return ChatResponse(messages=[Message(role="assistant", contents=[scene.ANSWER])])


class NullClient(FunctionInvocationLayer, ChatMiddlewareLayer, _NullClient):
    """Proposes the tool when offered one, then answers; `sleep` seconds each."""


def proposal() -> Content:
    return Content.from_function_call(call_id=scene.CALL_ID, name=scene.TOOL_NAME, arguments=scene.TOOL_ARGUMENTS_JSON)


@tool(name=scene.TOOL_NAME, description=scene.TOOL_DESCRIPTION, approval_mode="never_require")
async def weather(city: str) -> str:
    return scene.weather(city)


def built(*, sleep: float, tools: list[Any] | None = None) -> Agent:
    client = NullClient()
    client.sleep = sleep
    return Agent(client=client, name="assistant", tools=tools)


def rag(*, sleep: float = 0.0) -> Run:
    agent = built(sleep=sleep)

    async def run() -> str:
        return (await agent.run(scene.rag_prompt(list(scene.DOCUMENTS)))).text

    return run


def agent(*, sleep: float = 0.0) -> Run:
    agent = built(sleep=sleep, tools=[weather])

    async def run() -> str:
        return (await agent.run(scene.QUESTION)).text

    return run


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    serve(
        runs={"rag": ready(rag), "agent": ready(agent)},
        bursts={
            "rag": ready(lambda: rag(sleep=scene.MODEL_SLEEP_S)),
            "agent": ready(lambda: agent(sleep=scene.MODEL_SLEEP_S)),
        },
        packages=["agent-framework-core"],
    )
