"""Semantic Kernel: a prompt function for the RAG run, a `ChatCompletionAgent` for the agent turn; async."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ClassVar

from semantic_kernel import Kernel
from semantic_kernel.agents import ChatCompletionAgent
from semantic_kernel.connectors.ai.chat_completion_client_base import ChatCompletionClientBase
from semantic_kernel.connectors.ai.function_choice_behavior import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.prompt_execution_settings import PromptExecutionSettings
from semantic_kernel.contents import ChatHistory, ChatMessageContent, FunctionCallContent
from semantic_kernel.functions import KernelArguments, KernelFunctionFromPrompt, kernel_function

import scene
from harness import Run, ready
from subject import serve

TEMPLATE = "Answer from context:\n{{$context}}\n\nQuestion: {{$question}}"


class NullModel(ChatCompletionClientBase):
    """Proposes the tool when offered one, then answers; `sleep` seconds each."""

    SUPPORTS_FUNCTION_CALLING: ClassVar[bool] = True
    sleep: float = 0.0

    async def _inner_get_chat_message_contents(
        self, chat_history: ChatHistory, settings: PromptExecutionSettings
    ) -> list[ChatMessageContent]:
        if self.sleep:
            await asyncio.sleep(self.sleep)
        if settings.function_choice_behavior and chat_history.messages[-1].role != "tool":
            name = f"{Weather.__name__}-{scene.TOOL_NAME}"
            call = FunctionCallContent(id=scene.CALL_ID, name=name, arguments=scene.TOOL_ARGUMENTS_JSON)
            return [ChatMessageContent(role="assistant", items=[call])]
        return [ChatMessageContent(role="assistant", content=scene.ANSWER)]

    def _update_function_choice_settings_callback(self) -> Callable[..., None]:
        return lambda *args, **kwargs: None

    def _reset_function_choice_settings(self, settings: PromptExecutionSettings) -> None:
        pass


class Weather:
    """The tool, as a kernel plugin."""

    @kernel_function(name=scene.TOOL_NAME, description=scene.TOOL_DESCRIPTION)
    async def weather(self, city: str) -> str:
        return scene.weather(city)


def null_model(sleep: float) -> NullModel:
    return NullModel(ai_model_id="null", service_id="default", sleep=sleep)


def rag(*, sleep: float = 0.0) -> Run:
    kernel = Kernel()
    kernel.add_service(null_model(sleep))
    function = KernelFunctionFromPrompt(function_name="rag", prompt=TEMPLATE)

    async def run() -> str:
        context = scene.context(list(scene.DOCUMENTS))
        return str(await kernel.invoke(function, KernelArguments(context=context, question=scene.QUESTION)))

    return run


def agent(*, sleep: float = 0.0) -> Run:
    built: Any = ChatCompletionAgent(
        service=null_model(sleep),
        name="assistant",
        plugins=[Weather()],
        function_choice_behavior=FunctionChoiceBehavior.Auto(),
    )

    async def run() -> str:
        return str((await built.get_response(messages=scene.QUESTION)).content)

    return run


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    serve(
        runs={"rag": ready(rag), "agent": ready(agent)},
        bursts={
            "rag": ready(lambda: rag(sleep=scene.MODEL_SLEEP_S)),
            "agent": ready(lambda: agent(sleep=scene.MODEL_SLEEP_S)),
        },
        packages=["semantic-kernel"],
    )
